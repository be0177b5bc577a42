//! Events are searched by their content, with the archive and while it is missing.

use std::fs;

use serde_json::json;

use super::{done, field, objects, told};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::sender::{array_of, session};
use crate::support::wait::{SOON, eventually};

/// Number of events in one batch of the archive.
const BATCH: usize = 4096;

/// Posts one event that the searches find, and enough others to complete a batch.
async fn fill(bridge: &Bridge, id: &str) {
    let person = |name: &str| json!({"name": name, "userId": "acme~c~7"});
    let mut creator = person("Aroha Ngata");
    creator["company"] = json!({"name": "Kauri Timber Ltd", "identifier": "KauriTimber"});
    let found = json!({
        "creator": creator,
        "participants": [person("Zoë Sato")],
        "closeRecord": {"note": "Password-Reset; the printer prints"},
    });
    let mut sessions = vec![session(id, "completed", found)];
    sessions.extend((1..BATCH).map(|n| session(&format!("{id}-{n}"), "created", json!({}))));
    for sessions in sessions.chunks(1024) {
        assert_eq!(bridge.post(array_of(sessions)).await.status, 202);
    }
}

async fn sessions(bridge: &Bridge, filters: &[&str]) -> Vec<String> {
    let arguments = [&["list", "--json"], filters].concat();
    let events = objects(&done(&bridge.run("events", &arguments).await));
    let sessions = field(&events, "session").into_iter();
    sessions.map(|id| id.as_str().unwrap().to_owned()).collect()
}

async fn check(bridge: &Bridge, expected: &[&str]) {
    for filters in [
        ["--grep", "PASSWORD reset"],
        ["--company", "kauri timber"],
        ["--company", "kauritimber"],
        ["--name", "zoë sato"],
        ["--name", "Aroha"],
        ["--status", "completed"],
    ] {
        assert_eq!(sessions(bridge, &filters).await, expected, "{filters:?}");
    }
    for filters in [
        ["--grep", "reset password"],
        ["--grep", "passwor"],
        ["--company", "Aroha"],
        ["--name", "Kauri"],
    ] {
        assert!(sessions(bridge, &filters).await.is_empty(), "{filters:?}");
    }
}

async fn is_indexed(bridge: &Bridge, events: usize) {
    let archive = bridge.journal_dir().join("archive.db");
    eventually("the archive is filled", 6 * SOON, || async {
        let query = "SELECT indexed FROM progress";
        let output = std::process::Command::new("sqlite3")
            .args(["-readonly".as_ref(), archive.as_os_str(), query.as_ref()])
            .output();
        let indexed = output.expect("sqlite3 is installed").stdout;
        let indexed = String::from_utf8_lossy(&indexed);
        indexed
            .trim()
            .parse()
            .is_ok_and(|indexed: usize| indexed >= events)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_works_with_without_and_with_a_foreign_archive() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    fill(&bridge, "one").await;
    is_indexed(&bridge, BATCH).await;
    check(&bridge, &["one"]).await;

    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bridge.journal_dir().join(format!("archive.db{suffix}")));
    }
    check(&bridge, &["one"]).await;
    fill(&bridge, "two").await;
    check(&bridge, &["one", "two"]).await;
    is_indexed(&bridge, 2 * BATCH).await;
    check(&bridge, &["one", "two"]).await;
    bridge.backlog_is_empty().await;
    bridge.terminate().await;
    assert!(!bridge.journal_dir().join("archive.db-wal").exists());
    check(&bridge, &["one", "two"]).await;

    // A foreign file is reported and kept.
    let archive = bridge.journal_dir().join("archive.db");
    fs::write(&archive, "notes of somebody else").unwrap();
    bridge.start().await;
    bridge.says("is not a search index of deskbridge").await;
    fill(&bridge, "three").await;
    check(&bridge, &["one", "two", "three"]).await;
    assert_eq!(fs::read(&archive).unwrap(), b"notes of somebody else");
    let output = bridge.run("events", &["list", "--grep=password"]).await;
    let (code, _, err) = told(&output);
    assert_eq!(code, Some(0), "{err}");
    for words in [
        "the search index (archive.db) cannot be used",
        "is not a search index of deskbridge",
        "reads all 12288 events",
    ] {
        assert!(err.contains(words), "{err}");
    }
}
