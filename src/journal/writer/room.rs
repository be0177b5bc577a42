//! Room on the disk: how much there is, what is said about it, and how what is settled gives way to
//! what is not.
//!
//! Room is what the file system has free and what the database has: its free pages are used before
//! the file grows. The log needs bytes of the file system all the same, for what is written between
//! two checkpoints; where these are few, free pages are given back.

use jiff::Timestamp;

use super::{Retention, Writer};
use crate::journal::space::Space;
use crate::telemetry::status::DiskStatus;

/// Settled events give way a little before `journal.disk_free_min` is reached: so much before, or
/// this part of it, if that is less.
const MARGIN_BYTES: u64 = 16 << 20;
const MARGIN_PART: u64 = 4;
/// Bytes of the file system that the log should have: what two checkpoints are apart, and the group
/// that comes last.
const LOG_BYTES: u64 = 32 << 20;
/// Or this part of a small disk.
const LOG_PART: u64 = 8;
/// How much more than a group goes when the disk did not take it.
const GIVEN_BYTES: u64 = 1 << 20;
/// Events that give way in one transaction then. It needs room itself: less of it each time.
const GIVEN_EVENTS: [usize; 3] = [1000, 64, 4];
/// Pages given back to a disk that is short.
const GIVEN_PAGES_MAX: u32 = 64;

/// The disk as it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What settled events must give back.
    shortage: u64,
    /// There is no room, and what is settled would not make any.
    pub(super) is_low: bool,
    /// The log may soon have no room.
    pub(super) is_short_of_log: bool,
    told: Told,
}

/// What operators have been told, until there is enough again.
#[derive(Debug, Default)]
struct Told {
    is_scarce: bool,
    is_giving: bool,
}

impl Writer {
    pub(super) fn look_at_free_space(&mut self) {
        let Some(space) = self.database.parent().and_then(|dir| Space::of(dir).ok()) else {
            return;
        };
        let Ok(free_pages) = self.store.free_bytes() else {
            return;
        };
        let (minimum, retained) = (self.limits.disk_free_min, self.store.retained_bytes());
        let free = space.free.saturating_add(free_pages);
        // Without room for its log not even a deletion can be written.
        let log = LOG_BYTES.min(space.total / LOG_PART);
        let floor = minimum.max(log);
        let wanted = floor.saturating_add(MARGIN_BYTES.min(floor / MARGIN_PART));
        // What cannot be reached is not worth what is kept.
        let is_low = free.saturating_add(retained) < minimum;
        let room = &mut self.state.room;
        room.shortage = match wanted.saturating_sub(free) {
            _ if is_low => 0,
            shortage => shortage.min(retained),
        };
        room.is_short_of_log = space.free.saturating_add(space.log) < log;
        room.tell(is_low, free, minimum);
        self.shared.set_disk(DiskStatus {
            free_bytes: free,
            free_pages_bytes: free_pages,
            free_min_bytes: minimum,
            journal_bytes: space.journal,
            retained_bytes: retained,
            backlog_bytes_max: self.limits.backlog_bytes_max,
        });
    }

    /// What is kept, before a group that takes so many bytes.
    pub(super) fn retention(&self, disk_bytes: u64) -> Retention {
        let shortage = match self.state.room.shortage {
            0 => 0,
            shortage => shortage.saturating_add(disk_bytes),
        };
        Retention {
            shortage,
            ..self.limits.retention
        }
    }

    /// The disk is full: deletes what is settled until a group fits; says whether that may help.
    pub(super) fn make_room(&mut self, disk_bytes: u64) -> bool {
        if self.store.retained_bytes() == 0 {
            return false;
        }
        self.state.room.tell_giving();
        let retention = Retention {
            shortage: disk_bytes.saturating_add(GIVEN_BYTES),
            ..self.limits.retention
        };
        // The log begins anew, or the deletion itself may have no room in it.
        let _ = self.checkpoint();
        let now = Timestamp::now();
        let has_given = GIVEN_EVENTS.into_iter().any(|events| {
            let swept = self.store.sweep(now, &retention, events);
            swept.is_ok_and(|is_swept| is_swept)
        });
        if has_given {
            let _ = self.checkpoint();
            // The log needs bytes of the file system, not pages.
            if self.give_pages_back(GIVEN_PAGES_MAX, true) == Ok(true) {
                let _ = self.checkpoint();
            }
        }
        has_given
    }
}

impl Room {
    fn tell(&mut self, is_low: bool, free_bytes: u64, minimum: u64) {
        if is_low != self.is_low {
            if is_low {
                tracing::error!(
                    free_bytes,
                    disk_free_min = minimum,
                    "less than `journal.disk_free_min` is free; webhooks are refused until there is \
                     more"
                );
            } else {
                tracing::info!(free_bytes, "the journal's disk has room again");
            }
            self.is_low = is_low;
        }
        let twice = minimum.saturating_mul(2);
        // Far enough apart that it is not told again and again.
        let enough = twice.saturating_add(MARGIN_BYTES.min(twice / MARGIN_PART));
        if free_bytes < twice && !self.told.is_scarce {
            self.told.is_scarce = true;
            tracing::warn!(
                free_bytes,
                disk_free_min = minimum,
                "the journal's disk is nearly full"
            );
        } else if free_bytes >= enough && self.told.is_scarce {
            self.told.is_scarce = false;
            self.told.is_giving = false;
            tracing::info!(free_bytes, "the journal's disk is not nearly full any more");
        }
        if self.shortage > 0 {
            self.tell_giving();
        }
    }

    /// Once until there is enough again.
    fn tell_giving(&mut self) {
        if !self.told.is_giving {
            self.told.is_giving = true;
            tracing::warn!(
                "the journal's disk has no room; settled events are deleted before \
                 `journal.retention` is over"
            );
        }
    }
}
