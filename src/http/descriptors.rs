//! For how many connections the process has file descriptors. The journal and the connections to
//! the broker need some as well, and have priority.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are reserved for everything but HTTP connections.
const RESERVED: u64 = 48;

/// Connections that are allowed however low the limit is.
const CONNECTIONS_MIN: u64 = 8;

/// Returns how many of the wanted connections there are file descriptors for. First raises the soft
/// limit of the process, if necessary and as far as the hard limit allows.
pub(super) fn fit(connections_wanted: usize) -> usize {
    let wanted = connections_wanted as u64;
    let needed = wanted.saturating_add(RESERVED);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum.map(|most| most.min(needed)).or(Some(needed)),
        ..limit
    };
    let is_enough = limit.current.is_none_or(|current| current >= needed);
    if !is_enough && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!("open file limit cannot be raised");
    }
    let fitting = fitting(wanted, getrlimit(Resource::Nofile).current);
    if fitting < wanted {
        tracing::warn!(
            wanted,
            fitting,
            "open file limit allows fewer connections than configured"
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
    fn descriptors_are_reserved_for_journal_and_broker() {
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
