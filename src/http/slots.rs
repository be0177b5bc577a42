//! How many connections may be open, and which one is closed when there is no slot for a new one.
//! A slot is free as soon as its connection has been told to go: nobody waits for that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::progress::Progress;
use crate::config::networks::Network;

/// Connections that were told to go and have not gone yet. More would need descriptors that the
/// rest of the process counts on.
const LEAVING_MAX: usize = 16;

/// Limits how many connections one listener has.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    connections_max: usize,
    share: Option<Share>,
    slots: Arc<Mutex<Slots>>,
}

/// How many connections one client address may have.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// So many.
    pub(super) connections_max: usize,
    /// Addresses that speak for many clients.
    pub(super) exempt: Vec<Network>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    taken: HashMap<u64, Taken>,
    leaving: usize,
}

#[derive(Debug)]
struct Taken {
    progress: Arc<Progress>,
    client: IpAddr,
}

/// The slot of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    slots: Arc<Mutex<Slots>>,
}

/// Whether there is a slot for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There was one.
    Free,
    /// There is one now, because another connection was told to go.
    Made,
    /// All are taken by authentic requests.
    None,
}

impl ConnectionLimiter {
    /// So many connections at once.
    pub(super) fn new(connections_max: usize, share: Option<Share>) -> Self {
        Self {
            connections_max: connections_max.max(1),
            share,
            slots: Arc::default(),
        }
    }

    /// Makes room for one more connection of this client.
    pub(super) fn make_room(&self, client: IpAddr) -> Room {
        let mut slots = lock(&self.slots);
        if let Some(share) = &self.share
            && !share.exempt.iter().any(|network| network.contains(client))
        {
            let client = prefix(client);
            let is_theirs = |taken: &Taken| taken.client == client;
            let theirs = slots.taken.values().filter(|taken| is_theirs(taken));
            if theirs.count() >= share.connections_max && slots.evict(is_theirs) {
                return Room::Made;
            }
        }
        if slots.taken.len() < self.connections_max {
            Room::Free
        } else if slots.evict(|_| true) {
            Room::Made
        } else {
            Room::None
        }
    }

    /// Gives a slot to a connection for which there is room.
    pub(super) fn take(&self, progress: &Arc<Progress>, client: IpAddr) -> Slot {
        let mut slots = lock(&self.slots);
        let number = slots.next;
        slots.next += 1;
        let taken = Taken {
            progress: Arc::clone(progress),
            client: prefix(client),
        };
        slots.taken.insert(number, taken);
        Slot {
            number,
            slots: Arc::clone(&self.slots),
        }
    }

    /// Tells the connection with the least progress to go, if there is one that may.
    pub(super) fn evict(&self) -> bool {
        lock(&self.slots).evict(|_| true)
    }

    /// Whether those that were told to go should be waited for.
    pub(super) fn are_too_many_leaving(&self) -> bool {
        lock(&self.slots).leaving > LEAVING_MAX
    }

    /// Has every connection look at its standing again.
    pub(super) fn poke_all(&self) {
        for taken in lock(&self.slots).taken.values() {
            taken.progress.poke.notify_one();
        }
    }
}

impl Slots {
    fn evict(&mut self, is_candidate: impl Fn(&Taken) -> bool) -> bool {
        loop {
            let now = Instant::now();
            let candidates = self.taken.iter().filter(|(_, taken)| is_candidate(taken));
            let least = candidates
                .filter_map(|(number, taken)| Some((taken.progress.worth(now)?, *number)))
                .min();
            let Some((_, number)) = least else {
                return false;
            };
            // Unless its request has been verified in between.
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

/// What counts as one client: an IPv4 address, or the network that one IPv6 client has to itself.
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

    fn enter(limiter: &ConnectionLimiter, client: IpAddr) -> (Room, Arc<Progress>, Slot) {
        let room = limiter.make_room(client);
        let progress = Arc::new(Progress::accepted());
        let slot = limiter.take(&progress, client);
        (room, progress, slot)
    }

    #[test]
    fn a_newcomer_has_the_slot_at_once() {
        let limiter = ConnectionLimiter::new(2, None);
        let (_, first, _first_slot) = enter(&limiter, HERE);
        let (free, second, _second_slot) = enter(&limiter, HERE);
        assert_eq!(free, Room::Free);
        let (made, _, _third_slot) = enter(&limiter, HERE);
        assert_eq!(made, Room::Made);
        assert!(first.is_evicted() && !second.is_evicted());
    }

    #[test]
    fn there_is_no_room_among_authentic_requests() {
        let limiter = ConnectionLimiter::new(1, None);
        let (_, first, slot) = enter(&limiter, HERE);
        first.request_verified(true);
        assert_eq!(limiter.make_room(HERE), Room::None);
        drop(slot);
        assert_eq!(limiter.make_room(HERE), Room::Free);
    }

    #[test]
    fn a_client_beyond_its_share_displaces_itself() {
        let share = Share {
            connections_max: 2,
            exempt: vec!["192.0.2.0/24".parse().unwrap()],
        };
        let limiter = ConnectionLimiter::new(10, Some(share));
        let (_, of_another, _slot) = enter(&limiter, "198.51.100.1".parse().unwrap());
        let mut theirs = vec![enter(&limiter, HERE), enter(&limiter, HERE)];
        assert!(theirs.iter().all(|(room, _, _)| *room == Room::Free));
        theirs.push(enter(&limiter, HERE));
        assert!(theirs[0].1.is_evicted() && !of_another.is_evicted());
        let exempt: Vec<_> = (0..4).map(|_| enter(&limiter, other())).collect();
        assert!(exempt.iter().all(|(room, _, _)| *room == Room::Free));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let [one, same, another] = ["2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1"]
            .map(|address| prefix(address.parse().unwrap()));
        assert!(one == same && one != another);
        assert_eq!(prefix("::ffff:192.0.2.1".parse().unwrap()), other());
    }
}
