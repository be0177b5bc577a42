//! Which fault happens when: a pure function of the seed. The lanes run concurrently, and each has
//! at most one active fault, because two faults of one lane would interfere.

use std::time::Duration;

use crate::random::Random;

const LASTS_MIN: Duration = Duration::from_millis(50);
const LASTS_MAX: Duration = Duration::from_secs(4);
const LASTS_LONG: Duration = Duration::from_secs(8);
const GAP: Duration = Duration::from_millis(700);

macro_rules! kinds {
    ($($kind:ident $name:literal $lane:ident $weight:literal)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($kind),* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            pub fn lane(self) -> Lane {
                match self { $(Self::$kind => Lane::$lane),* }
            }

            /// How often the kind occurs in one round of its lane.
            fn weight(self) -> usize {
                match self { $(Self::$kind => $weight),* }
            }
        }
    };
}

kinds! {
    BrokerKill "broker killed and started" Broker 1
    BrokerRestart "broker stopped and started" Broker 1
    BrokerFreeze "broker frozen" Broker 4
    MemoryAlarm "memory alarm" Broker 1
    DiskAlarm "disk alarm" Broker 1
    CloseAll "all connections closed by the broker" Broker 2
    ExchangeDeleted "exchange deleted" Broker 2
    BindingDeleted "bindings deleted, unrouted" Broker 2
    Returned "bindings deleted, returned" Broker 2
    QueueDeleted "queue deleted" Broker 2
    QueueFull "queue full, nacks" Broker 2
    PermissionRevoked "permission revoked" Broker 2
    PasswordChanged "password changed" Broker 1
    CutReset "connection cut, RST" Near 3
    CutClose "connection cut, FIN" Near 3
    CutAfterBytes "connection cut after n bytes" Near 4
    BlackholeUp "publishes swallowed" Near 1
    BlackholeDown "confirms swallowed" Near 1
    BlackholeBoth "half-open link" Near 1
    StallUp "publishes held back" Near 2
    StallDown "confirms held back" Near 2
    Latency "latency" Near 2
    Throttle "narrow link" Near 1
    Slicer "packets of a byte" Near 1
    Refuse "connections refused" Near 2
    BridgeKill "bridge killed" Near 5
    BridgeStorm "bridge killed again and again" Near 1
    BridgeTerminate "bridge stopped and started" Near 2
    SecretRotated "secret rotated" Near 2
    BridgeFreeze "bridge frozen" Near 2
    BacklogFull "journal full" Near 1
    FsyncSlow "slow fsync" Near 1
    FsyncFails "failed fsync" Near 1
    ConsumerKilled "consumer killed" Near 3
    SenderGone "sender gone in mid-request" Near 4
    IdleBodies "strangers: 1,100 bodies that stop" Strangers 1
    LargeBodies "strangers: large unfinished bodies" Strangers 1
    FatHeads "strangers: 1,020 fat heads" Strangers 1
    ForeignBytes "strangers: TLS, PROXY, garbage" Strangers 1
    ForgedWebhooks "strangers: forged webhooks" Strangers 1
    Restless "strangers who come and go" Strangers 1
    Siege "strangers: bodies and heads at once" Strangers 1
}

/// The part of the system that a fault affects exclusively.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The broker process, and its exchanges, queues and bindings.
    Broker,
    /// The network, the bridge, its disk, senders and consumers.
    Near,
    /// The HTTP listener of the bridge.
    Strangers,
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Broker, Self::Near, Self::Strangers];
}

/// One scheduled fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub kind: Kind,
    /// Time from the end of the previous fault of this lane.
    pub gap: Duration,
    pub lasts: Duration,
    /// Random bits for further choices.
    pub dice: u64,
}

/// The endless sequence of the faults of a lane.
pub struct Faults {
    lane: Lane,
    random: Random,
    deck: Vec<Kind>,
    rounds: usize,
}

impl Faults {
    pub fn new(seed: u64, lane: Lane) -> Self {
        Self {
            lane,
            random: Random::new(seed, 100 + lane as u64),
            deck: Vec::new(),
            rounds: 0,
        }
    }

    /// The first round has each kind once, later rounds have each by its weight; every round is
    /// shuffled.
    fn deal(&mut self) {
        let is_first = self.rounds == 0;
        self.rounds += 1;
        let kinds = Kind::ALL.iter().filter(|kind| kind.lane() == self.lane);
        self.deck = kinds
            .flat_map(|kind| vec![*kind; if is_first { 1 } else { kind.weight() }])
            .collect();
        self.random.shuffle(&mut self.deck);
    }
}

impl Iterator for Faults {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.deck.is_empty() {
            self.deal();
        }
        let random = &mut self.random;
        let longest = if random.percent(5) {
            LASTS_LONG
        } else {
            LASTS_MAX
        };
        Some(Planned {
            kind: self.deck.pop().expect("just dealt"),
            gap: random.exponential(GAP),
            lasts: random.log_uniform(LASTS_MIN, longest),
            dice: random.next(),
        })
    }
}

/// The faults of a crash storm: only `kill -9`, at any moment after the start.
pub fn storm(seed: u64, rounds: usize) -> Vec<Planned> {
    let mut random = Random::new(seed, 99);
    let mut planned = Vec::new();
    planned.resize_with(rounds, || Planned {
        kind: Kind::BridgeKill,
        gap: random.log_uniform(Duration::from_millis(5), Duration::from_millis(800)),
        lasts: Duration::ZERO,
        dice: random.next(),
    });
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, lane: Lane, count: usize) -> Vec<Planned> {
        Faults::new(seed, lane).take(count).collect()
    }

    #[test]
    fn seed_determines_the_schedule() {
        for lane in Lane::ALL {
            assert_eq!(first(3, lane, 500), first(3, lane, 500));
            assert_ne!(first(3, lane, 500), first(4, lane, 500));
        }
        assert_eq!(storm(3, 500), storm(3, 500));
    }

    #[test]
    fn every_kind_occurs_repeatedly() {
        for lane in Lane::ALL {
            let planned = first(1, lane, 200);
            let all = Kind::ALL.iter().filter(|kind| kind.lane() == lane);
            let kinds = all.clone().count();
            for kind in all {
                let times =
                    |planned: &[Planned]| planned.iter().filter(|one| one.kind == *kind).count();
                assert_eq!(times(&planned[..kinds]), 1, "{kind:?} first");
                assert!(times(&planned) > 2, "{kind:?}");
            }
        }
    }

    #[test]
    fn faults_are_short() {
        let planned = first(1, Lane::Near, 1000);
        let all: Duration = planned.iter().map(|one| one.gap + one.lasts).sum();
        assert!(all < Duration::from_secs(2200), "{all:?}");
        assert!(planned.iter().all(|one| one.lasts >= LASTS_MIN));
    }
}
