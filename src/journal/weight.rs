//! What an event takes on the disk, by the size of its body: `backlog_bytes_max` and
//! `retention_bytes` count this. A close estimate, so that what a number of events will take can be
//! said without asking SQLite for each.

use super::schema::PAGE_BYTES;

/// The row beside its body: ids, source, session, status and other routing fields of usual length.
const ROW_BYTES: u64 = 130;
/// Its place in the queue or among what is settled, with the indexes.
const PLACE_BYTES: u64 = 80;
/// What a page has for rows: all but its header.
const PAGE_ROOM: u64 = PAGE_BYTES as u64 - 12;
/// A longer row has pages of its own, but for a beginning that stays in the table.
const LOCAL_MAX: u64 = PAGE_BYTES as u64 - 35;
/// What such a beginning adds to the bytes of the row.
const LOCAL_BYTES: u64 = 512;

/// Bytes on the disk of an event with a body of so many bytes.
pub(super) fn on_disk(body_bytes: u64) -> u64 {
    let row = body_bytes.saturating_add(ROW_BYTES);
    let share = if row <= LOCAL_MAX {
        // Rows do not cross pages: what is left of a page is part of what they take.
        u64::from(PAGE_BYTES) / (PAGE_ROOM / row).max(1)
    } else {
        row.saturating_add(LOCAL_BYTES)
    };
    share.saturating_add(PLACE_BYTES)
}

/// The same for numbers of SQL.
pub(super) fn of_row(body_bytes: i64) -> i64 {
    let bytes = on_disk(u64::try_from(body_bytes).unwrap_or_default());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_is_the_least_of_it() {
        assert!((150..300).contains(&on_disk(2)), "{}", on_disk(2));
    }

    #[test]
    fn a_row_of_more_than_half_a_page_takes_a_page() {
        assert!(on_disk(4200) > 8192);
        assert!(on_disk(2000) < 3200);
    }

    #[test]
    fn a_large_body_takes_little_more_than_its_bytes() {
        assert!(on_disk(1 << 20) < (1 << 20) + 4096);
        assert_eq!(on_disk(u64::MAX), u64::MAX);
    }
}
