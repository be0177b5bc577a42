//! The process ends, or one of its threads panics, at every failpoint of the binary.
//! `make failpoints ROUNDS=10` tests all of them that often, each time at another pass.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use deskbridge::failpoint::Failpoint;
use futures_util::future::join_all;
use rustix::process::Signal;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::{Bridge, Exit};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::{Ledger, Load};
use crate::support::proxy::Proxy;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// The environment variable that arms a failpoint in the binary under test.
const FAILPOINT: &str = "DESKBRIDGE_FAILPOINT";
/// Number of bridges that are tested at the same time.
const WALKERS: usize = 4;
/// Some failpoints are not reached by load alone: something else is provoked at this interval.
const PROVOKED_EVERY: Duration = Duration::from_millis(500);
/// A failpoint that is not hit in this time is never hit.
const HIT_WITHIN: Duration = Duration::from_mins(1);

/// A bridge that crashes and restarts repeatedly, and a ledger of all events it has ever accepted.
struct Walker {
    _vhost: Vhost,
    proxy: Proxy,
    bridge: Bridge,
    consumer: Consumer,
    ledger: Ledger,
}

impl Walker {
    async fn start() -> Self {
        let vhost = Broker::shared().await.vhost().await;
        let proxy = Proxy::to(vhost.amqp_address()).await;
        let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
            // Completed events are deleted soon, so there is always something to delete.
            .with("journal.retention_bytes = '4KiB'")
            .connected()
            .await;
        let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
        Self {
            _vhost: vhost,
            proxy,
            bridge,
            consumer,
            ledger: Ledger::default(),
        }
    }

    /// Kills the running bridge, starts it with an armed failpoint, and returns how it ended there.
    async fn ends_at(&mut self, place: Failpoint, mode: &str, pass: u64, round: u64) -> Exit {
        let name = place.name();
        let said = self.times_said(place);
        if self.bridge.is_running() {
            self.bridge.kill().await;
        }
        let armed = format!("{name}={mode}@{pass}");
        self.bridge.set_environment(FAILPOINT, Some(&armed));
        self.bridge.spawn();
        let load = Load::start_as(&format!("{name}-{round}"), self.bridge.address(), 4);
        let begin = Instant::now();
        let mut provoked = Instant::now();
        let mut provocations = 0;
        while self.bridge.is_running() {
            assert!(begin.elapsed() < HIT_WITHIN, "{armed} was never hit");
            let is_time = provoked.elapsed() >= PROVOKED_EVERY;
            if load.accepted() > 50 && (provocations == 0 || is_time) {
                self.provoke(place, provocations);
                provoked = Instant::now();
                provocations += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let exit = self.bridge.exit().await;
        self.ledger.add(load.stop().await);
        assert_eq!(self.times_said(place), said + 1, "{armed} was never hit");
        self.bridge.set_environment(FAILPOINT, None);
        exit
    }

    /// Starts the bridge without a failpoint and waits until all events that were ever accepted
    /// have arrived, in order; duplicates must have the same id.
    async fn recovers(&mut self) {
        self.bridge.start().await;
        self.ledger.arrives_at(&self.consumer).await;
        self.bridge.backlog_is_empty().await;
        eventually("every array has arrived whole", SOON, || async {
            self.ledger.torn(&self.consumer.all()).is_empty()
        })
        .await;
    }

    fn provoke(&mut self, place: Failpoint, provocations: u64) {
        match place.name().split_once('/').unwrap() {
            ("rabbitmq", step) if step.starts_with("connect") || step.starts_with("declare") => {
                self.proxy.cut();
            }
            ("journal", step) if step.starts_with("reroute") && provocations == 0 => {
                self.reroute();
                self.bridge.hang_up();
            }
            ("journal", step) if step.starts_with("close") && provocations == 0 => {
                self.bridge.signal(Signal::TERM);
            }
            ("bridge", _) if provocations == 0 => self.bridge.signal(Signal::TERM),
            _ => {}
        }
    }

    /// Switches to the other of two configurations.
    fn reroute(&mut self) {
        let config = std::fs::read_to_string(self.bridge.config_file()).unwrap();
        let key = if config.contains("chat-session.{status}.{type}") {
            "chat-session.{status}"
        } else {
            "chat-session.{status}.{type}"
        };
        self.bridge
            .reconfigure(&format!("routing.routing_key = '{key}'"));
    }

    fn times_said(&self, place: Failpoint) -> usize {
        let line = format!("failpoint {}\n", place.name());
        self.bridge.stderr().matches(&line).count()
    }
}

/// The pass at which a failpoint ends the process, so that it does not happen before there is load.
fn pass_of(place: Failpoint, round: u64) -> u64 {
    use Failpoint::{
        HttpAcceptAfter, HttpAcceptBefore, HttpAnswerAfter, HttpAnswerBefore, JournalAppendAfter,
        JournalAppendBefore, JournalCheckpointAfter, JournalCheckpointBefore, JournalCommitAfter,
        JournalCommitBefore, JournalDeleteAfter, JournalDeleteBefore, JournalSettleAfter,
        JournalSettleBefore, RabbitmqConnectAfter, RabbitmqConnectBefore, RabbitmqDeclareAfter,
        RabbitmqDeclareBefore,
    };
    match place {
        // The first commits are those of opening the journal.
        JournalCommitBefore | JournalCommitAfter => 6 + round * 7 % 20,
        // In the middle of an array of three events.
        JournalAppendBefore | JournalAppendAfter => 8 + round * 7 % 60,
        JournalSettleBefore | JournalSettleAfter | JournalDeleteBefore | JournalDeleteAfter => {
            4 + round * 7 % 60
        }
        HttpAnswerBefore | HttpAnswerAfter => 5 + round * 7 % 60,
        Failpoint::ForwarderSettleBefore
        | Failpoint::ForwarderSettleAfter
        | Failpoint::RabbitmqPublishBefore
        | Failpoint::RabbitmqPublishAfter
        | Failpoint::RabbitmqConfirmBefore
        | Failpoint::RabbitmqConfirmAfter => 3 + round * 3 % 20,
        HttpAcceptBefore | HttpAcceptAfter => 1 + round % 4,
        // The second connection of a process is a reconnect.
        RabbitmqConnectBefore
        | RabbitmqConnectAfter
        | RabbitmqDeclareBefore
        | RabbitmqDeclareAfter => 2 + round % 2,
        JournalCheckpointBefore | JournalCheckpointAfter => 1 + round % 3,
        _ => 1,
    }
}

/// All failpoints except those that are passed only once in the life of a journal.
fn places() -> impl Iterator<Item = Failpoint> {
    let is_passed_once = |place: &Failpoint| {
        matches!(
            place,
            Failpoint::JournalMigrateBefore | Failpoint::JournalMigrateAfter
        )
    };
    Failpoint::ALL
        .iter()
        .copied()
        .filter(move |place| !is_passed_once(place))
}

fn rounds() -> u64 {
    let rounds = std::env::var("FAILPOINT_ROUNDS").unwrap_or_else(|_| "1".into());
    rounds.parse().expect("FAILPOINT_ROUNDS is a number")
}

async fn walk(number: usize) -> usize {
    let mut walker = Walker::start().await;
    for round in 0..rounds() {
        for place in places().skip(number).step_by(WALKERS) {
            let exit = walker
                .ends_at(place, "abort", pass_of(place, round), round)
                .await;
            assert_eq!(exit.status.signal(), Some(6), "{}: {exit:?}", place.name());
            walker.recovers().await;
        }
    }
    walker.ledger.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_at_any_failpoint_loses_nothing() {
    let accepted = join_all((0..WALKERS).map(walk)).await;
    println!(
        "{} failpoints, each {} times: {} events accepted, 0 lost",
        places().count(),
        rounds(),
        accepted.iter().sum::<usize>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_during_recovery_loses_nothing() {
    let mut walker = Walker::start().await;
    walker
        .ends_at(Failpoint::RabbitmqConfirmBefore, "abort", 4, 0)
        .await;
    walker.reroute();
    for (round, place) in [
        Failpoint::JournalOpenBefore,
        Failpoint::JournalCommitBefore, // the commit that resets the retry delays
        Failpoint::JournalRerouteAfter,
        Failpoint::JournalOpenAfter,
        Failpoint::JournalCommitAfter,
    ]
    .into_iter()
    .enumerate()
    {
        let exit = walker.ends_at(place, "abort", 1, round as u64).await;
        assert_eq!(exit.status.signal(), Some(6), "{}: {exit:?}", place.name());
    }
    walker.recovers().await;
    assert!(walker.ledger.len() > 0, "no event was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_during_migration_loses_nothing() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/journal-v1.db");
    for place in [
        Failpoint::JournalMigrateBefore,
        Failpoint::JournalMigrateAfter,
        Failpoint::JournalOpenAfter,
    ] {
        let name = place.name();
        let mut bridge = BridgeBuilder::at(&format!("amqp://{}", free_address()))
            .environment(FAILPOINT, &format!("{name}=abort"))
            .build();
        std::fs::create_dir(bridge.journal_dir()).unwrap();
        let path = bridge.journal_dir().join("journal.db");
        std::fs::copy(golden, &path).unwrap();
        bridge.spawn();
        assert_eq!(bridge.exit().await.status.signal(), Some(6), "{name}");
        let is_old = std::fs::read(&path).unwrap() == std::fs::read(golden).unwrap();
        assert_eq!(is_old, place == Failpoint::JournalMigrateBefore, "{name}");
        bridge.set_environment(FAILPOINT, None);
        bridge.start().await;
        // The completed events are older than the retention by now.
        assert_eq!(bridge.status().await["backlog"]["events"], 4, "{name}");
        assert!(!bridge.journal_dir().join("journal.db.new").exists());
    }
}

/// A bridge that accepts must be able to forward: if any of its parts fails, the process ends, so
/// that it is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn component_panic_ends_the_process_without_loss() {
    let mut walker = Walker::start().await;
    for (round, (place, pass, said)) in [
        (Failpoint::JournalCommitBefore, 6, "the journal failed"),
        (Failpoint::JournalSettleAfter, 4, "the journal failed"),
        (Failpoint::JournalCheckpointBefore, 1, "the journal failed"),
        (Failpoint::ForwarderSettleBefore, 3, "the task `forwarder`"),
        (
            Failpoint::RabbitmqPublishBefore,
            3,
            "the task `broker connection`",
        ),
        (
            Failpoint::RabbitmqConfirmAfter,
            3,
            "the task `broker connection`",
        ),
        (
            Failpoint::RabbitmqConnectBefore,
            1,
            "the task `broker connection`",
        ),
        (
            Failpoint::RabbitmqDeclareAfter,
            1,
            "the task `broker connection`",
        ),
        (Failpoint::HttpAcceptAfter, 3, "the task `webhook listener`"),
    ]
    .into_iter()
    .enumerate()
    {
        let begin = Instant::now();
        let exit = walker.ends_at(place, "panic", pass, round as u64).await;
        let (name, log) = (place.name(), walker.bridge.stderr());
        assert_eq!(exit.status.code(), Some(1), "{name}: {exit:?}");
        assert!(log.contains(said), "{name}: {log}");
        println!("{name}: ended within {:?}", begin.elapsed());
        walker.recovers().await;
    }
}
