//! A real power failure under load: an ext4 file system that loses all data that was not synced.
//! `make power-loss ROUNDS=100` runs more rounds. Under `libeatmydata`, which turns every fsync
//! into a no-op, the same harness must find a loss; otherwise it could not detect one.

use std::time::{Duration, Instant};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::disk::Disk;
use crate::support::load::{Ledger, Load};
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::skip::skipped;
use crate::support::vhost::Vhost;

/// Environment variable that `make power-loss` sets.
const ROUNDS: &str = "POWER_LOSS_ROUNDS";
const SEED: &str = "POWER_LOSS_SEED";
const EATMYDATA: &str = "POWER_LOSS_EATMYDATA";

/// How long missing messages may still be on their way when no event is pending any more.
const PATIENCE: Duration = Duration::from_secs(3);

/// The results of a campaign.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    lost: usize,
    torn: usize,
    /// Number of cuts; some happen during a start.
    cuts: usize,
}

/// A simulated machine whose power can be cut: a disk, a bridge on it, and a broker elsewhere.
struct Machine {
    disk: Disk,
    bridge: Bridge,
    proxy: Proxy,
    vhost: Vhost,
    random: Random,
    tally: Tally,
}

impl Machine {
    /// `None`, and a skip report, if a disk cannot be mounted.
    async fn new(test: &str, preload: Option<&str>, seed: u64) -> Option<Self> {
        let disk = Disk::in_a_file(test, 256 << 20)?;
        let vhost = Broker::shared().await.vhost().await;
        let proxy = Proxy::to(vhost.amqp_address()).await;
        let mut builder = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
            .with("telemetry.log_level = \"info\"")
            .with("rabbitmq.reconnect_delay_max = \"200ms\"")
            .with("journal.retention = \"5s\"")
            .journal_in(&disk.path().join("journal"));
        if let Some(library) = preload {
            builder = builder.environment("LD_PRELOAD", library);
        }
        Some(Self {
            bridge: builder.start().await,
            disk,
            proxy,
            vhost,
            random: Random(seed),
            tally: Tally::default(),
        })
    }

    /// Load, a cut at a random moment, a restart; counts acknowledged events that never arrive. In
    /// every other round nothing reaches the broker before the cut.
    async fn round(&mut self, number: usize) {
        self.bridge.broker_is("connected").await;
        let consumer = Consumer::subscribed(&self.vhost, "chat-sessions", "#").await;
        if number % 2 == 1 {
            self.proxy.refuse();
        }
        let load = Load::start_as(&format!("round-{number}"), self.bridge.address(), 8);
        load.accepts(30).await;
        self.random.pause(1500).await;
        // A power failure stops everything at once. A process that went on could get success for an
        // fsync that the cut has in fact overtaken.
        self.bridge.freeze();
        self.cut();
        self.bridge.kill().await;
        let ledger = load.stop().await;
        assert!(ledger.answers.keys().all(|code| [202, 503].contains(code)));

        self.disk.restore();
        if number % 3 == 2 {
            self.bridge.spawn();
            self.random.pause(60).await;
            self.cut();
            self.bridge.kill().await;
            self.disk.restore();
        }
        self.proxy.pass();
        self.bridge.start().await;
        self.judge(number, &ledger, &consumer).await;
        consumer.close().await;
    }

    fn cut(&mut self) {
        self.disk.cut();
        self.tally.cuts += 1;
    }

    async fn judge(&mut self, round: usize, ledger: &Ledger, consumer: &Consumer) {
        self.bridge.backlog_is_empty().await;
        let begin = Instant::now();
        while !ledger.missing(&consumer.all()).is_empty() && begin.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let arrived = consumer.all();
        let (lost, torn) = (ledger.missing(&arrived), ledger.torn(&arrived));
        if !lost.is_empty() || !torn.is_empty() {
            println!(
                "round {round}: {} of {} lost, {} torn; the first: {:?} {:?}",
                lost.len(),
                ledger.len(),
                torn.len(),
                lost.first(),
                torn.first()
            );
        }
        self.tally.acknowledged += ledger.len();
        self.tally.lost += lost.len();
        self.tally.torn += torn.len();
    }
}

/// Runs this number of rounds; `None` if that is not possible here.
async fn campaign(test: &str, rounds: usize, preload: Option<&str>) -> Option<Tally> {
    let seed = number_in(SEED).unwrap_or_else(Random::new_seed);
    println!("power loss: seed {seed}");
    let mut machine = Machine::new(test, preload, seed).await?;
    for round in 0..rounds {
        machine.round(round).await;
        if round % 10 == 9 {
            println!("after {} rounds: {:?}", round + 1, machine.tally);
        }
    }
    machine.bridge.kill().await;
    let Tally {
        acknowledged, lost, ..
    } = machine.tally;
    println!("power loss: {rounds} rounds, {acknowledged} acknowledged, {lost} lost");
    Some(machine.tally)
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_loses_nothing_acknowledged() {
    let test = "power_loss_loses_nothing_acknowledged";
    let rounds = number_in(ROUNDS).map_or(3, |rounds| usize::try_from(rounds).unwrap());
    let preload = number_in(EATMYDATA).map(|_| LIBEATMYDATA);
    let Some(tally) = campaign(test, rounds, preload).await else {
        return;
    };
    assert_eq!((tally.lost, tally.torn), (0, 0), "{tally:?}");
    assert!(tally.cuts >= rounds && tally.acknowledged >= 30 * rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_without_a_disk() {
    let test = "nothing_is_accepted_without_a_disk";
    let Some(mut machine) = Machine::new(test, None, 1).await else {
        return;
    };
    let held = machine.bridge.post(array_of_new("in-time", 1)).await;
    assert_eq!(held.status, 202);
    machine.cut();
    let refused = machine.bridge.try_post(array_of_new("too-late", 1)).await;
    assert!(
        refused.is_err() || refused.is_ok_and(|answer| answer.status == 503),
        "accepted without a disk"
    );
    machine.bridge.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_that_ignores_fsync_loses_events() {
    let test = "disk_that_ignores_fsync_loses_events";
    if !is_loadable(LIBEATMYDATA) {
        return skipped(test, "needs libeatmydata");
    }
    let Some(tally) = campaign(test, 2, Some(LIBEATMYDATA)).await else {
        return;
    };
    assert!(
        tally.lost > 0,
        "the harness sees no missing fsync: {tally:?}"
    );
}

const LIBEATMYDATA: &str = "libeatmydata.so";

fn is_loadable(library: &str) -> bool {
    let tried = std::process::Command::new("/bin/true")
        .env("LD_PRELOAD", library)
        .output();
    tried.is_ok_and(|tried| tried.stderr.is_empty())
}

fn number_in(variable: &str) -> Option<u64> {
    let value = std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())?;
    Some(value.parse().expect("a whole number"))
}

/// The generator `SplitMix64`: good enough for random moments.
struct Random(u64);

impl Random {
    fn new_seed() -> u64 {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::from(now.subsec_nanos())
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    async fn pause(&mut self, milliseconds_max: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(milliseconds_max))).await;
    }
}
