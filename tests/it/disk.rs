//! The guarantee of a 2xx: whatever happens to the process or its disk, accepted events are stored,
//! and events that are not stored were not accepted.

mod counters;
mod crash;
mod damage;
mod durability;
mod free_space;
mod full;
mod growth;
mod io_faults;
mod locks;
mod power_loss;
mod retention;
mod strace;
mod unknown_values;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// The number of rows of a table of this journal, read while the bridge may be running.
fn rows(journal_dir: &Path, table: &str) -> i64 {
    let path = journal_dir.join("journal.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = format!("SELECT count(*) FROM {table}");
    database.query_row(&count, [], |row| row.get(0)).unwrap()
}
