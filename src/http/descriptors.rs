//! How many connections the process may open files for. Journal and broker need some as well, and
//! come first.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections leave to everything else.
const RESERVED: u64 = 48;

/// Connections there are in any case.
const CONNECTIONS_MIN: u64 = 8;

/// As many of the wanted connections as there are descriptors for. Raises the limit of the process
/// as far as it may.
pub(super) fn fit(connections_wanted: usize) -> usize {
    let wanted = u64::try_from(connections_wanted).unwrap_or(u64::MAX);
    let needed = wanted.saturating_add(RESERVED);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum.map(|most| most.min(needed)).or(Some(needed)),
        ..limit
    };
    let is_enough = limit.current.is_none_or(|current| current >= needed);
    if !is_enough && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!("the limit of open files cannot be raised");
    }
    let fitting = fitting(wanted, getrlimit(Resource::Nofile).current);
    if fitting < wanted {
        tracing::warn!(
            wanted,
            fitting,
            "the limit of open files allows fewer connections than configured"
        );
    }
    usize::try_from(fitting).unwrap_or(usize::MAX)
}

fn fitting(wanted: u64, descriptors: Option<u64>) -> u64 {
    let most = descriptors.map_or(u64::MAX, |descriptors| descriptors.saturating_sub(RESERVED));
    wanted.min(most.max(CONNECTIONS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_journal_and_broker() {
        let check = |wanted, descriptors, expected| {
            assert_eq!(
                fitting(wanted, descriptors),
                expected,
                "{wanted} of {descriptors:?}"
            );
        };
        check(1024, None, 1024);
        check(1024, Some(4096), 1024);
        check(1024, Some(1024), 976);
        check(1024, Some(64), 16);
        check(1024, Some(20), 8);
        check(4, Some(20), 4);
    }
}
