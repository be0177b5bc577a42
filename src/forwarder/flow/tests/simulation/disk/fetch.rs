//! What a fetch reads: heads of a route, in the window or with rows, and their followers.

use super::{Disk, Row};
use crate::journal::{BatchBudget, FetchRequest, Fetched, Seq, SessionBatch};

impl Disk {
    /// Reads from one snapshot: rescheduled heads that are due come first, at most half of the
    /// fetch.
    pub(in super::super) fn fetch(&self, request: &FetchRequest, followers_max: usize) -> Fetched {
        let is_head = |row: &Row| row.is_head && row.route_id == request.route_id;
        let is_sought = |seq: &Seq| !request.skip.contains(seq);
        let heads = || self.rows.iter().filter(|(_, row)| is_head(row));
        let due_max = request.events_max.div_ceil(2);
        let mut due: Vec<(u64, Seq)> = heads()
            .map(|(seq, row)| (row.due_ms, *seq))
            .filter(|(due_ms, seq)| (1..=request.now_ms).contains(due_ms) && is_sought(seq))
            .collect();
        due.sort_unstable();
        due.truncate(due_max);
        let fresh = heads().filter(|(_, row)| row.due_ms == 0);
        let mut fresh: Vec<Seq> = fresh
            .map(|(seq, _)| *seq)
            .chain(self.window.heads(request.route_id))
            .filter(is_sought)
            .collect();
        fresh.sort_unstable();
        let fresh_max = request.events_max.saturating_sub(due.len());
        let later = heads().map(|(_, row)| row.due_ms);
        let mut fetched = Fetched {
            has_more: fresh.len() > fresh_max || due.len() >= due_max,
            next_due_ms: later.filter(|due_ms| *due_ms > request.now_ms).min(),
            ..Fetched::default()
        };
        fresh.truncate(fresh_max);
        let mut room = BatchBudget::of(request, due.len() + fresh.len());
        room.followers_max = room.followers_max.min(followers_max);
        for head in due.into_iter().map(|(_, seq)| seq).chain(fresh) {
            let mut batch = SessionBatch {
                events: Vec::new(),
                has_more: false,
            };
            for seq in self.session_from(head) {
                let queued = self.buffered(seq);
                let bytes = queued.event.body.len() as u64;
                if !room.takes(batch.events.len(), bytes) {
                    batch.has_more = true;
                    break;
                }
                room.fill(bytes);
                batch.events.push(queued);
            }
            if batch.events.is_empty() {
                fetched.has_more = true;
                break;
            }
            fetched.batches.push(batch);
        }
        fetched
    }

    /// A head and its followers: those in the window first, then those with rows. Those in the tail
    /// are not visible.
    fn session_from(&self, head: Seq) -> Vec<Seq> {
        let in_window = self.window.chain(head, usize::MAX);
        let mut seqs: Vec<Seq> = in_window.into_iter().map(|(seq, _)| seq).collect();
        if seqs.is_empty() {
            seqs.push(head);
        }
        let last = seqs[seqs.len() - 1];
        let rows = self.rows_of(self.unsettled[&head].session);
        seqs.extend(rows.filter(|seq| *seq > last));
        seqs
    }
}
