//! The log cannot be written: webhooks are answered as usual, and the process neither blocks nor
//! ends.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::array_of_new;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const WEBHOOKS: usize = 200;
/// Results in more log lines than the queue and a pipe can buffer.
const MANY_WEBHOOKS: usize = 2500;

/// A bridge with trace logging, started by a shell script that redirects its standard error.
async fn started(vhost: &Vhost, script: &str) -> Bridge {
    BridgeBuilder::new(vhost)
        .with("telemetry.log_level = \"trace\"")
        .under(&["sh", "-c", script, "sh"])
        .connected()
        .await
}

async fn check_works(vhost: &Vhost, bridge: &Bridge, webhooks: usize) {
    let mut consumer = Consumer::subscribed(vhost, "chat-sessions", "#").await;
    for number in 0..webhooks {
        let began = Instant::now();
        let answer = bridge
            .post(array_of_new(&format!("unheard-{number}"), 1))
            .await;
        assert_eq!(answer.status, 202);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
    assert_eq!(consumer.receive_n(webhooks).await.len(), webhooks);
}

async fn check_ends(bridge: &mut Bridge) {
    let exit = bridge.terminate().await;
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.took < Duration::from_secs(8), "{:?}", exit.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_log_pipe_blocks_nothing_and_is_counted() {
    let vhost = Broker::shared().await.vhost().await;
    let script = "mkfifo pipe && exec 3<>pipe && exec \"$@\" 2>&3";
    let mut bridge = started(&vhost, script).await;
    check_works(&vhost, &bridge, MANY_WEBHOOKS).await;

    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(0o4000) // O_NONBLOCK
        .open(bridge.dir().join("pipe"))
        .unwrap();
    let mut log = Vec::new();
    eventually("the log reports the lost lines", SOON, || {
        let _ = pipe.read_to_end(&mut log);
        let said = String::from_utf8_lossy(&log).contains("log lines did not fit and are lost");
        async move { said }
    })
    .await;
    assert!(
        log.len() >= 60 << 10,
        "the pipe was not full: {} bytes",
        log.len()
    );
    drop(pipe);
    check_ends(&mut bridge).await;
}

/// The log's reader has ended, its disk is full, or every standard stream is closed.
#[tokio::test(flavor = "multi_thread")]
async fn unwritable_log_blocks_nothing() {
    for script in [
        "mkfifo pipe; (head -n 1 pipe >first &); exec \"$@\" 2>pipe",
        "exec \"$@\" >/dev/full 2>/dev/full",
        "exec \"$@\" <&- >&- 2>&-",
    ] {
        let vhost = Broker::shared().await.vhost().await;
        let mut bridge = started(&vhost, script).await;
        if script.contains("pipe") {
            let first = bridge.dir().join("first");
            eventually("the reader has gone", SOON, || async {
                std::fs::read(&first).is_ok_and(|line| !line.is_empty())
            })
            .await;
        }
        check_works(&vhost, &bridge, WEBHOOKS).await;
        check_ends(&mut bridge).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unwritable_error_keeps_its_exit_code() {
    for (toml, code) in [
        ("http.listen = \"nowhere\"", 2),
        ("journal.dir = \"/dev/null/x\"", 1),
    ] {
        let mut bridge = BridgeBuilder::without_broker()
            .with(toml)
            .under(&["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"])
            .build();
        assert_eq!(
            bridge.run_to_exit().await.status.code(),
            Some(code),
            "{toml}"
        );
    }
}
