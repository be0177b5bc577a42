//! Limits the number of open connections, and decides which one is evicted when there is no slot
//! for a new one. A slot is free as soon as its connection is told to close: a new connection does
//! not wait until the evicted one has closed.
//!
//! The newest ones, as many as half of the slots, are evicted only if all others are protected. Of
//! the others, those that have transferred the fewest bytes go first, in powers of
//! two; among equals the oldest one. So with N slots and R new connections a second, none is closed
//! within N/2R seconds, and afterwards only silent ones are while there are any.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::progress::Progress;
use crate::config::http::Http;
use crate::config::networks::Network;

/// Maximum number of evicted connections that are still open. More would need file descriptors
/// that the rest of the process relies on.
const LEAVING_MAX: usize = 16;

/// Memory for what all unanswered heads have beyond a usual size. If they have more, connections are
/// evicted that use more than an equal share of it: with 1024 slots, more than 2 KiB.
const HEADS_BYTES_MAX: usize = 2 << 20;

/// The rank of the newest connections.
const NEW: u32 = u32::MAX;

/// Limits the number of connections of one listener.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    connections_max: usize,
    per_client_max: Option<usize>,
    /// They forward for many clients, so they have no limit per client.
    proxies: Vec<Network>,
    slots: Arc<Mutex<Slots>>,
    heads: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    /// How many connections have the rank `NEW`.
    new: usize,
    new_max: usize,
    taken: HashMap<u64, OpenSlot>,
    /// Rank and number of each connection. The rank may have risen since.
    order: BTreeSet<(u32, u64)>,
    leaving: usize,
}

#[derive(Debug)]
struct OpenSlot {
    progress: Arc<Progress>,
    client: IpAddr,
    rank: u32,
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
        let connections_max = connections_max.max(1);
        let slots = Slots {
            new_max: connections_max / 2,
            ..Slots::default()
        };
        Self {
            connections_max,
            per_client_max: config.connections_per_client_max,
            proxies: config.trusted_proxies.clone(),
            slots: Arc::new(Mutex::new(slots)),
            heads: Arc::default(),
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
    pub(super) fn take(&self, client: IpAddr) -> (Arc<Progress>, Slot) {
        let progress = Arc::new(Progress::accepted(&self.heads));
        let mut slots = lock(&self.slots);
        let number = slots.next;
        slots.next += 1;
        let taken = OpenSlot {
            progress: Arc::clone(&progress),
            client: prefix(client),
            rank: NEW,
        };
        slots.taken.insert(number, taken);
        slots.order.insert((NEW, number));
        slots.new += 1;
        let slots = Arc::clone(&self.slots);
        (progress, Slot { number, slots })
    }

    /// Evicts the connection with the least progress. Returns false if all are protected.
    pub(super) fn evict(&self) -> bool {
        lock(&self.slots).evict(|_| true)
    }

    /// Evicts a connection with a large head if all heads together take too much memory.
    pub(super) fn limit_heads(&self) {
        if self.heads.load(Ordering::Relaxed) > HEADS_BYTES_MAX {
            let share = HEADS_BYTES_MAX / self.connections_max;
            lock(&self.slots).evict(|taken| taken.progress.large_head_bytes() > share);
        }
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
        while self.new > self.new_max
            && let Some(&(_, number)) = self.order.range((NEW, 0)..).next()
        {
            self.rank(number);
        }
        let mut from = (0, 0);
        while let Some(&(rank, number)) = self.order.range(from..).next() {
            from = (rank, number + 1);
            let taken = &self.taken[&number];
            if !is_candidate(taken) {
                continue;
            }
            if rank < taken.progress.magnitude() {
                // It has grown since it was ranked, and comes up again.
                self.rank(number);
            } else if taken.progress.evict() {
                self.remove(number);
                self.leaving += 1;
                return true;
            }
        }
        false
    }

    /// Ranks a connection by what it has transferred until now.
    fn rank(&mut self, number: u64) {
        if let Some(mut taken) = self.remove(number) {
            taken.rank = taken.progress.magnitude();
            self.order.insert((taken.rank, number));
            self.taken.insert(number, taken);
        }
    }

    fn remove(&mut self, number: u64) -> Option<OpenSlot> {
        let taken = self.taken.remove(&number)?;
        self.order.remove(&(taken.rank, number));
        self.new -= usize::from(taken.rank == NEW);
        Some(taken)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = lock(&self.slots);
        if slots.remove(self.number).is_none() {
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
        let (progress, slot) = limiter.take(client);
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
    fn fewest_bytes_go_first_then_the_oldest_but_the_newest_half_stays() {
        let limiter = ConnectionLimiter::new(6, &Http::default());
        let open: Vec<_> = [1000, 10, 0, 15, 0, 5000]
            .into_iter()
            .map(|bytes| {
                let (_, progress, slot) = enter(&limiter, HERE);
                progress.bytes_arrived(bytes);
                (progress, slot)
            })
            .collect();
        let evicted = || -> Vec<_> {
            let evicted = |number: &usize| open[*number].0.is_evicted();
            (0..6).filter(evicted).collect()
        };
        let (_newest, expected) = (enter(&limiter, HERE), [vec![2], vec![1, 2]]);
        assert_eq!(evicted(), expected[0]);
        open[3].0.bytes_arrived(1000);
        let _newest = enter(&limiter, HERE);
        assert_eq!(evicted(), expected[1]);
        // Of those that remain, only the fifth is silent.
        let _newest = enter(&limiter, HERE);
        assert_eq!(evicted(), [1, 2, 4]);
        let _newest = enter(&limiter, HERE);
        assert_eq!(evicted(), [0, 1, 2, 4]);
    }

    #[test]
    fn large_heads_are_bounded() {
        let limiter = ConnectionLimiter::new(1024, &Http::default());
        let small = enter(&limiter, HERE);
        small.1.bytes_arrived(1000);
        let large: Vec<_> = (0..600).map(|_| enter(&limiter, HERE)).collect();
        for (_, progress, _) in &large {
            progress.bytes_arrived((8 << 10) + (4 << 10));
            limiter.limit_heads();
        }
        let evicted = |(_, progress, _): &&(_, Arc<Progress>, _)| progress.is_evicted();
        assert_eq!(large.iter().filter(evicted).count(), 88);
        assert!(evicted(&&large[87]) && !small.1.is_evicted());
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
