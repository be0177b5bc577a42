//! Another program at the database: it is waited for as long as a webhook may wait, and named.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::process::end_with_us;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::skip::skipped;
use crate::support::wait::{SOON, eventually};

const NOBODY: &str = "amqp://guest:guest@127.0.0.1:1/";

/// A shell of SQLite in a transaction; it ends when this is dropped.
struct Shell {
    child: Child,
}

impl Shell {
    /// None, said to be missing for `test`, where there is no such program.
    fn begin(test: &str, journal: &Path, transaction: &str) -> Option<Self> {
        let child = Command::new("sqlite3")
            .arg(journal.join("journal.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            skipped(test, "needs sqlite3");
            return None;
        };
        end_with_us(child.id());
        let statements = format!(".timeout 5000\n{transaction}\n");
        let input = child.stdin.as_mut().unwrap();
        std::io::Write::write_all(input, statements.as_bytes()).unwrap();
        Some(Self { child })
    }

    fn writing(test: &str, journal: &Path) -> Option<Self> {
        Self::begin(test, journal, "BEGIN IMMEDIATE;")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn locked(bridge: &Bridge) {
    bridge.says("holds a write lock on journal.db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_is_waited_for_and_named() {
    let test = "a_write_lock_is_waited_for_and_named";
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let Some(shell) = Shell::writing(test, &bridge.journal_dir()) else {
        return;
    };
    let named = format!("(process {}, sqlite3) holds a write lock", shell.pid());
    bridge.says(&named).await;
    let others = bridge.status().await["journal"]["others"].clone();
    assert!(others.as_str().unwrap().contains(&named), "{others}");
    let began = Instant::now();
    let (answer, ()) = tokio::join!(bridge.post(array_of_new("late", 3)), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(shell);
    });
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(began.elapsed() > Duration::from_secs(4), "it did not wait");
    assert!(bridge.ready().await);
    bridge.says("the write lock on journal.db is gone").await;
    assert_eq!(bridge.status().await["journal"]["others"], json!(null));
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_for_too_long_is_503_for_those_alone() {
    let test = "a_lock_for_too_long_is_503_for_those_alone";
    let bridge = BridgeBuilder::at(NOBODY).start().await;
    let Some(shell) = Shell::writing(test, &bridge.journal_dir()) else {
        return;
    };
    locked(&bridge).await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        bridge.post(array_of_new("later", 1)).await
    };
    let released = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        let unready = bridge.admin("/readyz").await;
        let status = bridge.status().await;
        drop(shell);
        (unready, status)
    };
    let early = bridge.post(array_of_new("early", 1));
    let (early, later, (unready, status)) = tokio::join!(early, later, released);
    assert_eq!(early.status, 503);
    assert_eq!(later.status, 202, "it waited for less than its time");
    assert_eq!(unready.status, 503);
    assert!(
        unready.text().contains("holds a write lock"),
        "{}",
        unready.text()
    );
    assert!(
        status["not_ready"]
            .to_string()
            .contains("holds a write lock"),
        "{status}"
    );
    bridge.says("webhook refused").await;
    assert!(!bridge.stderr().contains("the disk fails"));
    eventually("/readyz says yes", SOON, || bridge.ready()).await;
    assert_eq!(bridge.status().await["backlog"]["events"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_names_the_program_that_has_the_lock() {
    let test = "a_start_names_the_program_that_has_the_lock";
    let mut bridge = BridgeBuilder::at(NOBODY).start().await;
    assert_eq!(bridge.post(array_of_new("held", 1)).await.status, 202);
    bridge.kill().await;
    let Some(shell) = Shell::writing(test, &bridge.journal_dir()) else {
        return;
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let exit = bridge.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1));
    let said = bridge.stderr();
    let named = format!("process {}, sqlite3", shell.pid());
    assert!(said.contains(&named), "{said}");
    drop(shell);
    bridge.start().await;
    assert_eq!(bridge.status().await["backlog"]["events"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_makes_the_log_grow_is_named() {
    let test = "a_reader_that_makes_the_log_grow_is_named";
    let bridge = BridgeBuilder::at(NOBODY).start().await;
    assert_eq!(bridge.post(array_of_new("first", 1)).await.status, 202);
    let transaction = "BEGIN; SELECT count(*) FROM events;";
    let Some(shell) = Shell::begin(test, &bridge.journal_dir(), transaction) else {
        return;
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    for number in 0..100 {
        let note = json!({ "note": "x".repeat(900_000) });
        let body = array_of(&[session(&format!("s{number}"), "created", note)]);
        assert_eq!(bridge.post(body).await.status, 202);
    }
    let named = format!(
        "process {}, sqlite3) reads journal.db in one long",
        shell.pid()
    );
    bridge.says(&named).await;
    assert!(bridge.ready().await);
    drop(shell);
    eventually("the log begins anew", SOON, || async {
        bridge.post(array_of_new("after", 1)).await;
        bridge.status().await["journal"]["others"] == json!(null)
    })
    .await;
}
