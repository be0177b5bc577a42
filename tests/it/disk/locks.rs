//! Another program locks the database: the bridge waits for as long as a webhook may wait, and
//! names the program.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::process::end_with_us;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::skip::skipped;
use crate::support::wait::{SOON, eventually};

/// Much longer than a commit takes.
const HELD_FOR: Duration = Duration::from_secs(2);

/// The `sqlite3` shell inside a transaction; ends when dropped.
struct Shell {
    child: Child,
}

impl Shell {
    /// `None` if there is no `sqlite3`; `test` is then reported as skipped.
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
async fn write_lock_is_awaited_and_its_holder_named() {
    let test = "write_lock_is_awaited_and_its_holder_named";
    let (_vhost, bridge) = on_shared_broker("").await;
    let Some(shell) = Shell::writing(test, &bridge.journal_dir()) else {
        return;
    };
    let named = format!("(process {}, sqlite3) holds a write lock", shell.pid());
    bridge.says(&named).await;
    let others = bridge.status().await["journal"]["others"].clone();
    assert!(others.as_str().unwrap().contains(&named), "{others}");
    let began = Instant::now();
    let (answer, ()) = tokio::join!(bridge.post(array_of_new("late", 3)), async {
        tokio::time::sleep(HELD_FOR).await;
        drop(shell);
    });
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(began.elapsed() >= HELD_FOR, "it did not wait");
    assert!(bridge.ready().await);
    bridge.says("write lock on journal.db released").await;
    assert_eq!(bridge.status().await["journal"]["others"], json!(null));
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_write_lock_is_503_for_expired_webhooks() {
    let test = "long_write_lock_is_503_for_expired_webhooks";
    let bridge = BridgeBuilder::without_broker().start().await;
    let Some(shell) = Shell::writing(test, &bridge.journal_dir()) else {
        return;
    };
    locked(&bridge).await;
    let early = async {
        let answer = bridge.post(array_of_new("early", 1)).await;
        eventually("/readyz names the lock", SOON, || async {
            let unready = bridge.admin("/readyz").await;
            unready.status == 503 && unready.text().contains("holds a write lock")
        })
        .await;
        let status = bridge.status().await;
        drop(shell);
        (answer, status)
    };
    let later = async {
        // The first webhook may wait for ten seconds.
        tokio::time::sleep(Duration::from_secs(5)).await;
        bridge.post(array_of_new("later", 1)).await
    };
    let ((early, status), later) = tokio::join!(early, later);
    assert_eq!(early.status, 503);
    assert_eq!(early.header("retry-after"), Some("10"));
    assert_eq!(
        early.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(later.status, 202, "it waited for less than its time");
    assert!(
        status["not_ready"]
            .to_string()
            .contains("holds a write lock"),
        "{status}"
    );
    bridge.says("webhook refused").await;
    assert!(!bridge.stderr().contains("the journal cannot be written"));
    eventually("/readyz is 200", SOON, || bridge.ready()).await;
    assert_eq!(bridge.status().await["backlog"]["events"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_names_the_holder_of_the_lock() {
    let test = "start_names_the_holder_of_the_lock";
    let mut bridge = BridgeBuilder::without_broker().start().await;
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
async fn long_reader_is_named() {
    let test = "long_reader_is_named";
    let bridge = BridgeBuilder::without_broker().start().await;
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
    let wal = bridge.journal_dir().join("journal.db-wal");
    let size = || std::fs::metadata(&wal).unwrap().len();
    assert!(size() > 64 << 20, "{}", size());
    drop(shell);
    eventually("the WAL is reset", SOON, || async {
        bridge.post(array_of_new("after", 1)).await;
        bridge.status().await["journal"]["others"] == json!(null) && size() <= 16 << 20
    })
    .await;
}
