//! The process ends, or one of its threads panics, at every place of `failpoint::Place`.
//! `make failpoints ROUNDS=10` walks all of them that often, each time at another pass.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use deskbridge::failpoint::Place;
use futures_util::future::join_all;
use rustix::process::Signal;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::{Bridge, Exit};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::{Ledger, Load};
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::vhost::Vhost;

/// Arms a place in the binary under test.
const FAILPOINT: &str = "DESKBRIDGE_FAILPOINT";
/// Bridges that walk beside each other.
const WALKERS: usize = 4;
/// Where a bridge is armed to crash is not reached at once: something else has to happen.
const PROVOKED_EVERY: Duration = Duration::from_millis(500);
/// A place that is not passed in that time is not passed at all.
const HIT_WITHIN: Duration = Duration::from_mins(1);

/// A bridge that crashes and comes back, with everything it has ever accepted.
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
            // Everything settled is soon deleted, and there is always something to delete.
            .with("journal.retention_bytes = '4KiB'")
            .start()
            .await;
        bridge.broker_is("connected").await;
        let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
        Self {
            _vhost: vhost,
            proxy,
            bridge,
            consumer,
            ledger: Ledger::default(),
        }
    }

    /// Ends the running bridge, starts it armed, and returns how it ended at that place.
    async fn ends_at(&mut self, place: Place, mode: &str, pass: u64, round: u64) -> Exit {
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

    /// Starts it as it is in production and waits until everything that was ever accepted is
    /// there, in order, repeated only under the same id.
    async fn recovers(&mut self) {
        self.bridge.start().await;
        self.ledger.arrives_at(&self.consumer).await;
        self.bridge.backlog_is_empty().await;
    }

    fn provoke(&mut self, place: Place, provocations: u64) {
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

    /// The other one of two configurations.
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

    fn times_said(&self, place: Place) -> usize {
        let line = format!("failpoint {}\n", place.name());
        self.bridge.stderr().matches(&line).count()
    }
}

/// The pass at which a place is to end the process: not before the load is under way.
fn pass_of(place: Place, round: u64) -> u64 {
    use Place::{
        HttpAcceptAfter, HttpAcceptBefore, HttpAnswerAfter, HttpAnswerBefore, JournalAppendAfter,
        JournalAppendBefore, JournalCheckpointAfter, JournalCheckpointBefore, JournalCommitAfter,
        JournalCommitBefore, JournalDeleteAfter, JournalDeleteBefore, JournalSettleAfter,
        JournalSettleBefore, RabbitmqConnectAfter, RabbitmqConnectBefore, RabbitmqDeclareAfter,
        RabbitmqDeclareBefore,
    };
    match place {
        // The first ones are those of opening the journal.
        JournalCommitBefore | JournalCommitAfter => 6 + round * 7 % 20,
        // In the middle of an array of three.
        JournalAppendBefore | JournalAppendAfter => 8 + round * 7 % 60,
        JournalSettleBefore | JournalSettleAfter | JournalDeleteBefore | JournalDeleteAfter => {
            4 + round * 7 % 60
        }
        HttpAnswerBefore | HttpAnswerAfter => 5 + round * 7 % 60,
        Place::ForwarderSettleBefore
        | Place::ForwarderSettleAfter
        | Place::RabbitmqPublishBefore
        | Place::RabbitmqPublishAfter
        | Place::RabbitmqConfirmBefore
        | Place::RabbitmqConfirmAfter => 3 + round * 3 % 20,
        HttpAcceptBefore | HttpAcceptAfter => 1 + round % 4,
        // The second connection of the process is a reconnect.
        RabbitmqConnectBefore
        | RabbitmqConnectAfter
        | RabbitmqDeclareBefore
        | RabbitmqDeclareAfter => 2 + round % 2,
        JournalCheckpointBefore | JournalCheckpointAfter => 1 + round % 3,
        _ => 1,
    }
}

fn rounds() -> u64 {
    let rounds = std::env::var("FAILPOINT_ROUNDS").unwrap_or_else(|_| "1".into());
    rounds.parse().expect("FAILPOINT_ROUNDS is a number")
}

async fn walk(number: usize) -> usize {
    let mut walker = Walker::start().await;
    for round in 0..rounds() {
        for place in Place::ALL.iter().copied().skip(number).step_by(WALKERS) {
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
async fn a_crash_at_any_failpoint_loses_nothing_that_was_accepted() {
    let accepted = join_all((0..WALKERS).map(walk)).await;
    println!(
        "{} failpoints, each {} times: {} events accepted, 0 lost",
        Place::ALL.len(),
        rounds(),
        accepted.iter().sum::<usize>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_during_the_recovery_from_a_crash_loses_nothing() {
    let mut walker = Walker::start().await;
    walker
        .ends_at(Place::RabbitmqConfirmBefore, "abort", 4, 0)
        .await;
    walker.reroute();
    for (round, place) in [
        Place::JournalOpenBefore,
        Place::JournalCommitBefore, // while the delays of the crashed process are forgotten
        Place::JournalRerouteAfter,
        Place::JournalOpenAfter,
        Place::JournalCommitAfter,
    ]
    .into_iter()
    .enumerate()
    {
        let exit = walker.ends_at(place, "abort", 1, round as u64).await;
        assert_eq!(exit.status.signal(), Some(6), "{}: {exit:?}", place.name());
    }
    walker.recovers().await;
    assert!(walker.ledger.len() > 0, "nothing was there to be lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_held_whole_or_not_at_all_wherever_a_crash_interrupts_it() {
    for (place, pass, held) in [
        (Place::JournalAppendBefore, 1, 0),
        (Place::JournalAppendBefore, 2, 0),
        (Place::JournalAppendAfter, 2, 0),
        (Place::JournalAppendAfter, 3, 0),
        (Place::HttpAnswerBefore, 1, 3),
    ] {
        let name = place.name();
        let mut bridge = BridgeBuilder::at(&format!("amqp://{}", free_address()))
            .environment(FAILPOINT, &format!("{name}=abort@{pass}"))
            .start()
            .await;
        let answer = bridge.try_post(array_of_new("whole", 3)).await;
        assert!(answer.is_err(), "{name}: {answer:?}");
        assert_eq!(bridge.exit().await.status.signal(), Some(6), "{name}");
        bridge.set_environment(FAILPOINT, None);
        bridge.start().await;
        let events = bridge.status().await["backlog"]["events"].clone();
        assert_eq!(events, held, "{name}, pass {pass}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_a_request_is_a_500_for_that_request_alone() {
    let vhost = Broker::shared().await.vhost().await;
    let armed = format!("{}=panic@2", Place::HttpAnswerBefore.name());
    let bridge = BridgeBuilder::new(&vhost)
        .environment(FAILPOINT, &armed)
        .start()
        .await;
    let mut codes = Vec::new();
    for number in 0..4 {
        let body = array_of_new(&format!("panic-{number}"), 1);
        codes.push(bridge.post(body).await.status);
    }
    assert_eq!(codes, [202, 500, 202, 202]);
    bridge.says("failpoint http/answer/before").await;
    bridge.broker_is("connected").await;
    bridge.backlog_is_empty().await;
}

/// Whoever accepts must be able to forward: a bridge without one of its parts ends, so that it is
/// started anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_any_part_ends_the_process_and_loses_nothing() {
    let mut walker = Walker::start().await;
    for (round, (place, pass, said)) in [
        (Place::JournalCommitBefore, 6, "the journal failed"),
        (Place::JournalSettleAfter, 4, "the journal failed"),
        (Place::JournalCheckpointBefore, 1, "the journal failed"),
        (Place::ForwarderSettleBefore, 3, "the forwarder"),
        (
            Place::RabbitmqPublishBefore,
            3,
            "the connection to the broker",
        ),
        (
            Place::RabbitmqConfirmAfter,
            3,
            "the connection to the broker",
        ),
        (
            Place::RabbitmqConnectBefore,
            1,
            "the connection to the broker",
        ),
        (
            Place::RabbitmqDeclareAfter,
            1,
            "the connection to the broker",
        ),
        (Place::HttpAcceptAfter, 3, "the listener of webhooks"),
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
