//! What a 2xx is worth: whatever happens to the process or its disk, what was accepted is held,
//! and what is not held was not accepted.

mod accounts;
mod crash;
mod damage;
mod faults;
mod growth;
mod honesty;
mod limits;
mod locks;
mod power_loss;
mod retention;
mod room;
mod strace;
mod unknown;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// How many rows a table of this journal has, read beside the bridge.
fn rows(journal_dir: &Path, table: &str) -> i64 {
    let path = journal_dir.join("journal.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = format!("SELECT count(*) FROM {table}");
    database.query_row(&count, [], |row| row.get(0)).unwrap()
}
