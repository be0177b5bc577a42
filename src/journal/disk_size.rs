//! The size of webhooks on disk, as `backlog_bytes_max` and `retention_bytes` count it. It is
//! estimated closely from the length of the rows, so the size of a webhook is known before it is
//! written and without a query.

use std::sync::Arc;

use super::schema::PAGE_BYTES;
use super::stored;
use crate::webhook::{Event, Webhook};

/// A row of `webhooks` without fields and bodies: the ids and the envelope.
const ROW_BYTES: u64 = 90;
/// The fields of one event: ids, status and other routing fields of usual length.
const FIELDS_BYTES: u64 = 110;
/// One row of `pending` and its entries in two indexes.
pub(super) const PENDING_BYTES: i64 = 160;
const PAGE: u64 = PAGE_BYTES as u64;
/// The bytes of a page for rows: all but its header.
const PAGE_ROOM: u64 = PAGE - 12;
/// The bytes of an overflow page for its row: all but the number of the next overflow page.
const OVERFLOW_ROOM: u64 = PAGE - 4;
/// A row longer than `LOCAL_MAX` continues in overflow pages. These are the least and the most
/// bytes of it that stay in the page of the table (<https://sqlite.org/fileformat2.html>).
const LOCAL_MIN: u64 = (PAGE - 12) * 32 / 255 - 23;
const LOCAL_MAX: u64 = PAGE - 35;

/// The size on disk of a row of `webhooks` with this many bytes of fields and bodies.
pub(super) fn of_part(bytes: u64) -> u64 {
    let row = bytes.saturating_add(ROW_BYTES);
    let local = match row {
        ..=LOCAL_MAX => row,
        _ => match LOCAL_MIN + (row - LOCAL_MIN) % OVERFLOW_ROOM {
            rest @ ..=LOCAL_MAX => rest,
            _ => LOCAL_MIN,
        },
    };
    let own_pages = (row - local).div_ceil(OVERFLOW_ROOM);
    // Rows do not cross pages, so the unused rest of a page is charged to the rows in it.
    let share = PAGE / (PAGE_ROOM / local).max(1);
    own_pages.saturating_mul(PAGE).saturating_add(share)
}

/// The size on disk of a webhook that is not written yet.
pub(super) fn of_webhook(webhook: &Webhook) -> u64 {
    let part = |events: &[Arc<Event>]| {
        let event = |event: &Arc<Event>| event.body.len() as u64 + FIELDS_BYTES;
        of_part(events.iter().map(event).sum())
    };
    stored::parts(&webhook.events).map(part).sum()
}

/// Converts to the signed integers of SQL; a larger value becomes `i64::MAX`.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
