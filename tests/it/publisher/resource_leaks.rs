//! A peer that accepts connections and never answers costs neither threads nor sockets, however
//! many attempts are made.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::harness::{Harness, config};
use crate::support::wait::{SOON, eventually};

/// Runs in a process of its own, so that only its own threads and files are counted.
#[test]
fn silent_peer_leaks_no_threads_or_sockets() {
    let this = std::env::current_exe().unwrap();
    let inner = "publisher::resource_leaks::twenty_attempts_on_a_silent_peer";
    let output = Command::new(this)
        .args(["--exact", inner, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above in a process of its own"]
async fn twenty_attempts_on_a_silent_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, left) = (Arc::clone(&accepted), Arc::clone(&open));
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            left.fetch_add(1, Ordering::SeqCst);
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                while peer.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let mut config = config(&[&format!("amqp://{address}")]);
    config.rabbitmq.connect_timeout = Duration::from_millis(150);
    let harness = Harness::start(&config);
    let attempts = async |count: usize| {
        let made = || async { accepted.load(Ordering::SeqCst) >= count };
        eventually("enough connections were attempted", SOON, made).await;
    };
    // The first attempts start one or two permanent threads: one for name resolution, one for
    // lapin's reactor.
    attempts(3).await;
    let (threads, files) = (count("task"), count("fd"));
    attempts(20).await;
    harness.shutdown.cancel();
    harness.ended.await.unwrap();
    eventually("every socket is closed", SOON, || async {
        open.load(Ordering::SeqCst) == 0
    })
    .await;
    eventually("no thread of lapin is left", SOON, || async {
        lapin_threads() == 0
    })
    .await;
    println!(
        "threads {threads} -> {}, files {files} -> {}",
        count("task"),
        count("fd")
    );
    assert!(count("task") <= threads, "{threads} -> {}", count("task"));
    assert!(count("fd") <= files, "{files} -> {}", count("fd"));
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}"))
        .unwrap()
        .count()
}

pub fn lapin_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}
