//! Unsettled events follow the configuration of now, and forget the delays of an earlier process.

use rusqlite::OptionalExtension;

use super::Store;
use crate::failpoint::{self, Place};
use crate::journal::rows::{RouteId, Seq};
use crate::journal::stored::{self, Values, columns};
use crate::webhook::{Event, Reason};

/// An unsettled event without its body, and where it goes so far.
struct Queued {
    seq: Seq,
    event: Event,
    label: String,
    route_id: RouteId,
    condemned: Option<Reason>,
}

impl Store {
    pub(super) fn forget_delays(&mut self) -> rusqlite::Result<()> {
        self.database.execute_batch(
            "UPDATE pending SET due = 0 WHERE head = 1 AND due > 0;
             DELETE FROM routes WHERE id NOT IN (SELECT route FROM pending);",
        )
    }

    /// Gives every unsettled event the route it has by the configuration of now. Dead letters keep
    /// theirs unless their exchange has another name.
    pub(super) fn reroute(&mut self) -> rusqlite::Result<()> {
        // Ordered maps throughout: the same configuration has the same text.
        let configuration = format!("{:?}", self.routing);
        if self.routing_of_the_rows()?.as_ref() == Some(&configuration) {
            return Ok(());
        }
        failpoint::pass(Place::JournalRerouteBefore);
        let mut page = self.queued_after(0)?;
        while let Some(last) = page.last() {
            let after = last.seq;
            for queued in page {
                self.reroute_one(&queued)?;
            }
            page = self.queued_after(after)?;
        }
        failpoint::pass(Place::JournalRerouteAfter);
        self.database
            .execute(
                "INSERT INTO settings (name, value) VALUES ('routing', ?1)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
                [configuration],
            )
            .map(drop)
    }

    fn reroute_one(&mut self, queued: &Queued) -> rusqlite::Result<()> {
        let route = match queued.condemned {
            Some(reason) => self.routing.dead_letter_route(reason),
            None => self.routing.route(&queued.event),
        };
        let route_id = self.route_id(&route)?;
        let label = self.routing.routed_status(&queued.event);
        if route_id == queued.route_id && label == queued.label {
            return Ok(());
        }
        self.database
            .prepare_cached("UPDATE pending SET route = ?2, label = ?3 WHERE seq = ?1")?
            .execute((queued.seq, route_id, label))
            .map(drop)
    }

    fn routing_of_the_rows(&self) -> rusqlite::Result<Option<String>> {
        let statement = "SELECT value FROM settings WHERE name = 'routing'";
        self.database
            .query_row(statement, [], |row| row.get(0))
            .optional()
    }

    /// A page of what is unsettled. Bodies do not matter here, and a hundred may be a gigabyte.
    fn queued_after(&self, seq: Seq) -> rusqlite::Result<Vec<Queued>> {
        let statement = concat!(
            "SELECT ",
            columns!(body: "NULL"),
            ", p.label, p.route, p.reason FROM pending p JOIN events e USING (seq)
             WHERE p.seq > ?1 ORDER BY p.seq LIMIT 100"
        );
        self.database
            .prepare_cached(statement)?
            .query_map([seq], |row| {
                let mut values = Values::of(row);
                let mut condemned = values.reason(stored::COLUMNS + 2, "reason")?;
                if values.unknown.is_some() {
                    condemned = Some(Reason::Damaged);
                }
                Ok(Queued {
                    seq: row.get(0)?,
                    event: stored::read(row)?.event,
                    label: values.needed_text(stored::COLUMNS, "label")?,
                    route_id: row.get(stored::COLUMNS + 1)?,
                    condemned,
                })
            })?
            .collect()
    }
}
