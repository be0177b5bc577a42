//! Free space on the disk: how much there is, what is logged about it, and how completed events are
//! deleted to make room for pending ones.
//!
//! Free space is the free space of the file system plus the free pages of the database, which are
//! used before the file grows. The WAL, however, needs space in the file system for everything that
//! is written between two checkpoints. If that is short, free pages are returned to the file
//! system.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::admission::is_fatal;
use super::{Retention, Writer};
use crate::journal::disk_space::{Space, wal_bytes, wanted_bytes, with_margin};
use crate::telemetry::status::DiskStatus;

/// When a write failed on a full disk, this much more than the group's size is deleted.
const MAKE_ROOM_BYTES: u64 = 1 << 20;
/// Events deleted in one transaction in that case. The deletion itself needs space, so it is
/// retried with fewer events.
const MAKE_ROOM_EVENTS: [usize; 3] = [1000, 64, 4];
/// Pages returned at once to a file system that is short of space.
const GIVEN_PAGES_MAX: u32 = 64;

/// The state of the disk at the last check.
#[derive(Debug, Default)]
pub(super) struct FreeSpace {
    /// Bytes that must be freed by deleting completed events.
    shortage: u64,
    /// Whether less than the minimum is free, even if all completed events were deleted.
    pub(super) is_low: bool,
    /// Whether the WAL may soon have no space.
    pub(super) is_short_of_wal: bool,
    logged: Logged,
}

/// What has been logged since there was last enough space.
#[derive(Debug, Default)]
struct Logged {
    is_scarce: bool,
    is_deleting: bool,
}

impl Writer {
    pub(in crate::journal) fn measure_free_space(&mut self) {
        let Some(space) = self.database.parent().and_then(|dir| Space::of(dir).ok()) else {
            return;
        };
        let Ok(free_pages) = self.store.free_bytes() else {
            return;
        };
        let (minimum, retained) = (self.limits.disk_free_min, self.store.retained_bytes());
        let free = space.free.saturating_add(free_pages);
        let wal = wal_bytes(space.total);
        let wanted = wanted_bytes(minimum, space.total);
        // If the minimum cannot be reached anyway, the completed events are kept.
        let is_low = free.saturating_add(retained) < minimum;
        let room = &mut self.state.free_space;
        room.shortage = match wanted.saturating_sub(free) {
            _ if is_low => 0,
            shortage => shortage.min(retained),
        };
        room.is_short_of_wal = space.free.saturating_add(space.wal) < wal;
        room.tell(is_low, free, minimum);
        self.shared.disk.store(Arc::new(DiskStatus {
            free_bytes: free,
            free_pages_bytes: free_pages,
            free_min_bytes: minimum,
            journal_bytes: space.journal,
            retained_bytes: retained,
            backlog_bytes_max: self.limits.backlog_bytes_max,
        }));
    }

    /// The limits of retention for a group that takes `disk_bytes`.
    pub(super) fn retention(&mut self, disk_bytes: u64) -> Retention {
        let shortage = match self.state.free_space.shortage {
            0 => 0,
            shortage => shortage.saturating_add(disk_bytes),
        };
        Retention {
            shortage,
            ..self.retention_by_age()
        }
    }

    /// The limits without a shortage; without the one of age if the clock cannot be trusted.
    fn retention_by_age(&mut self) -> Retention {
        let mut retention = self.limits.retention;
        if !self
            .state
            .clock
            .is_steady_for(retention.age_max, Timestamp::now())
        {
            retention.age_max = Duration::MAX;
        }
        retention
    }

    /// Called when the disk is full: deletes completed events until a group fits. Returns whether a
    /// retry may succeed.
    pub(super) fn make_room(&mut self, disk_bytes: u64) -> bool {
        if self.store.retained_bytes() == 0 {
            return false;
        }
        self.state.free_space.tell_giving();
        let retention = Retention {
            shortage: disk_bytes.saturating_add(MAKE_ROOM_BYTES),
            ..self.retention_by_age()
        };
        // Resets the WAL first; without this, the deletion itself may find no space in it.
        let reset = self.checkpoint();
        self.ok_unless_fatal(reset);
        let now = Timestamp::now();
        let has_deleted = MAKE_ROOM_EVENTS.into_iter().any(|events| {
            let swept = self.store.sweep(now, &retention, events);
            self.ok_unless_fatal(swept) == Some(true)
        });
        if has_deleted {
            let reset = self.checkpoint();
            self.ok_unless_fatal(reset);
            // The WAL needs free space in the file system; free pages of the database do not help
            // it.
            let given_back = self.give_pages_back(GIVEN_PAGES_MAX, true);
            if self.ok_unless_fatal(given_back) == Some(true) {
                let reset = self.checkpoint();
                self.ok_unless_fatal(reset);
            }
        }
        has_deleted && !self.shared.has_failed()
    }

    /// Reports an error after which the process cannot continue. Others are expected on a full disk.
    fn ok_unless_fatal<T>(&mut self, result: rusqlite::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                if is_fatal(error) {
                    self.classify_error(error);
                }
            })
            .ok()
    }
}

impl FreeSpace {
    fn tell(&mut self, is_low: bool, free_bytes: u64, minimum: u64) {
        if is_low != self.is_low {
            if is_low {
                tracing::error!(
                    free_bytes,
                    disk_free_min = minimum,
                    "less than `journal.disk_free_min` is free; webhooks are answered 503 until there is more"
                );
            } else {
                tracing::info!(free_bytes, "journal disk has enough free space again");
            }
            self.is_low = is_low;
        }
        let twice = minimum.saturating_mul(2);
        // The two thresholds are far enough apart that the messages do not alternate.
        let enough = with_margin(twice);
        if free_bytes < twice && !self.logged.is_scarce {
            self.logged.is_scarce = true;
            tracing::warn!(
                free_bytes,
                disk_free_min = minimum,
                "journal disk is nearly full"
            );
        } else if free_bytes >= enough && self.logged.is_scarce {
            self.logged.is_scarce = false;
            self.logged.is_deleting = false;
            tracing::info!(free_bytes, "journal disk is no longer nearly full");
        }
        if self.shortage > 0 {
            self.tell_giving();
        }
    }

    /// Logs once, until there is enough space again.
    fn tell_giving(&mut self) {
        if !self.logged.is_deleting {
            self.logged.is_deleting = true;
            tracing::warn!(
                "journal disk is short of space; deleting completed events before `journal.retention` has passed"
            );
        }
    }
}
