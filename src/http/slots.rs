//! Limits the number of open connections, and decides which one is evicted when there is no slot
//! for a new one. A slot is free as soon as its connection is told to close: a new connection does
//! not wait until the evicted one has closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::progress::Progress;
use crate::config::http::Http;
use crate::config::networks::Network;

/// Maximum number of evicted connections that are still open. More would need file descriptors
/// that the rest of the process relies on.
const LEAVING_MAX: usize = 16;

/// Limits the number of connections of one listener.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    connections_max: usize,
    per_client_max: Option<usize>,
    /// They forward for many clients, so they have no limit per client.
    proxies: Vec<Network>,
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    taken: HashMap<u64, OpenSlot>,
    leaving: usize,
}

#[derive(Debug)]
struct OpenSlot {
    progress: Arc<Progress>,
    client: IpAddr,
}

/// The slot of one connection; released when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    slots: Arc<Mutex<Slots>>,
}

/// The answer to a request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotGrant {
    /// A slot was free.
    Free,
    /// A slot is free now, because another connection was evicted.
    Made,
    /// Verified requests hold all slots.
    None,
}

impl ConnectionLimiter {
    /// A limiter for `connections_max` connections, but at least one.
    pub(super) fn new(connections_max: usize, config: &Http) -> Self {
        Self {
            connections_max: connections_max.max(1),
            per_client_max: config.connections_per_client_max,
            proxies: config.trusted_proxies.clone(),
            slots: Arc::default(),
        }
    }

    /// Makes room for one more connection of this client, by evicting another one if necessary.
    pub(super) fn make_room(&self, client: IpAddr) -> SlotGrant {
        let mut slots = lock(&self.slots);
        if let Some(per_client_max) = self.per_client_max
            && !self.proxies.iter().any(|network| network.contains(client))
        {
            let client = prefix(client);
            let is_theirs = |taken: &OpenSlot| taken.client == client;
            let theirs = slots.taken.values().filter(|taken| is_theirs(taken));
            if theirs.count() >= per_client_max && slots.evict(is_theirs) {
                return SlotGrant::Made;
            }
        }
        if slots.taken.len() < self.connections_max {
            SlotGrant::Free
        } else if slots.evict(|_| true) {
            SlotGrant::Made
        } else {
            SlotGrant::None
        }
    }

    /// Gives a slot to a connection for which there is room.
    pub(super) fn take(&self, progress: &Arc<Progress>, client: IpAddr) -> Slot {
        let mut slots = lock(&self.slots);
        let number = slots.next;
        slots.next += 1;
        let taken = OpenSlot {
            progress: Arc::clone(progress),
            client: prefix(client),
        };
        slots.taken.insert(number, taken);
        Slot {
            number,
            slots: Arc::clone(&self.slots),
        }
    }

    /// Evicts the connection with the least progress. Returns false if all are protected.
    pub(super) fn evict(&self) -> bool {
        lock(&self.slots).evict(|_| true)
    }

    /// Whether so many evicted connections are still open that the accept loop must wait.
    pub(super) fn are_too_many_leaving(&self) -> bool {
        lock(&self.slots).leaving > LEAVING_MAX
    }

    /// Wakes every connection, so that it checks its state again.
    pub(super) fn wake_all(&self) {
        for taken in lock(&self.slots).taken.values() {
            taken.progress.wake.notify_one();
        }
    }
}

impl Slots {
    fn evict(&mut self, is_candidate: impl Fn(&OpenSlot) -> bool) -> bool {
        loop {
            let now = Instant::now();
            let candidates = self.taken.iter().filter(|(_, taken)| is_candidate(taken));
            let least = candidates
                .filter_map(|(number, taken)| Some((taken.progress.eviction_rank(now)?, *number)))
                .min();
            let Some((_, number)) = least else {
                return false;
            };
            // Fails if its request has been verified in the meantime.
            if self.taken[&number].progress.evict() {
                self.taken.remove(&number);
                self.leaving += 1;
                return true;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = lock(&self.slots);
        if slots.taken.remove(&self.number).is_none() {
            slots.leaving -= 1;
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 network of an IPv6 address.
fn prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(client) => client.into(),
        IpAddr::V6(client) => {
            let network = client.to_bits() & (u128::MAX << 64);
            IpAddr::V6(network.into())
        }
    }
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn other() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn enter(limiter: &ConnectionLimiter, client: IpAddr) -> (SlotGrant, Arc<Progress>, Slot) {
        let room = limiter.make_room(client);
        let progress = Arc::new(Progress::accepted());
        let slot = limiter.take(&progress, client);
        (room, progress, slot)
    }

    #[test]
    fn new_connection_gets_the_slot_at_once() {
        let limiter = ConnectionLimiter::new(2, &Http::default());
        let (_, first, _first_slot) = enter(&limiter, HERE);
        let (free, second, _second_slot) = enter(&limiter, HERE);
        assert_eq!(free, SlotGrant::Free);
        let (made, _, _third_slot) = enter(&limiter, HERE);
        assert_eq!(made, SlotGrant::Made);
        assert!(first.is_evicted() && !second.is_evicted());
    }

    #[test]
    fn authentic_requests_are_not_evicted() {
        let limiter = ConnectionLimiter::new(1, &Http::default());
        let (_, first, slot) = enter(&limiter, HERE);
        first.request_verified(true);
        assert_eq!(limiter.make_room(HERE), SlotGrant::None);
        drop(slot);
        assert_eq!(limiter.make_room(HERE), SlotGrant::Free);
    }

    #[test]
    fn client_beyond_its_share_displaces_itself() {
        let config = Http {
            connections_per_client_max: Some(2),
            trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
            ..Http::default()
        };
        let limiter = ConnectionLimiter::new(10, &config);
        let (_, of_another, _slot) = enter(&limiter, "198.51.100.1".parse().unwrap());
        let mut theirs = vec![enter(&limiter, HERE), enter(&limiter, HERE)];
        assert!(theirs.iter().all(|(room, _, _)| *room == SlotGrant::Free));
        theirs.push(enter(&limiter, HERE));
        assert!(theirs[0].1.is_evicted() && !of_another.is_evicted());
        let exempt: Vec<_> = (0..4).map(|_| enter(&limiter, other())).collect();
        assert!(exempt.iter().all(|(room, _, _)| *room == SlotGrant::Free));
    }

    #[test]
    fn ipv6_client_is_its_network() {
        let [one, same, another] = ["2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1"]
            .map(|address| prefix(address.parse().unwrap()));
        assert!(one == same && one != another);
        assert_eq!(prefix("::ffff:192.0.2.1".parse().unwrap()), other());
    }
}
