//! Tests of the test support that no other test would replace: a process that is left behind, a
//! wrapper that is measured instead of the bridge, and a delay that is none would go unnoticed. All
//! other faults are observed by the tests that inject them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::{Broker, noted_pid};
use crate::support::process::{is_alive, script, signal};
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually, eventually_some};

#[tokio::test(flavor = "multi_thread")]
async fn frozen_broker_does_not_outlive_its_owner() {
    let place = tempfile::tempdir().unwrap();
    let node = place.path().join("node");
    let mut owner = Command::new("sleep")
        .arg("600")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut hold = Command::new(script("broker.sh"))
        .args(["hold".as_ref(), node.as_os_str()])
        .stdin(owner.stdout.take().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = eventually_some("the node has a pid", SOON, || async {
        noted_pid(&node, "node.pid")
    })
    .await;
    let epmd = noted_pid(&node, "epmd.pid").expect("started before the node");
    assert!(is_alive(pid) && is_alive(epmd));

    signal(pid, Signal::STOP);
    owner.kill().unwrap();
    owner.wait().unwrap();

    eventually("node and data are gone", 2 * SOON, || async {
        !is_alive(pid) && !node.exists()
    })
    .await;
    eventually("its epmd is gone", SOON, || async { !is_alive(epmd) }).await;
    hold.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_does_not_outlive_the_test_process() {
    // The owner reports one process that keeps running and one that has ended.
    let owner_does =
        "sleep 600 >/dev/null & echo +$!; echo $! >\"$0\"; echo +1; echo -1; exec sleep 600";
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("pid");
    let mut owner = Command::new("sh")
        .args(["-c".as_ref(), owner_does.as_ref(), file.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reaper = Command::new(script("reaper.sh"))
        .stdin(owner.stdout.take().unwrap())
        .spawn()
        .unwrap();
    let left_behind = eventually_some("the owner has started it", SOON, || async {
        std::fs::read_to_string(&file)
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    })
    .await;
    assert!(is_alive(left_behind));
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the process is gone", SOON, || async {
        !is_alive(left_behind)
    })
    .await;
    reaper.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_bridge_not_its_wrapper() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost)
        .under(&["strace", "-f", "-o", "trace", "-e", "trace=fsync,fdatasync"])
        .start()
        .await;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", bridge.pid())).unwrap();
    assert_eq!(name.trim(), "deskbridge");
    assert_eq!(bridge.post(array_of_new("traced", 1)).await.status, 202);
    let trace = std::fs::read_to_string(bridge.dir().join("trace")).unwrap();
    assert!(trace.contains("fsync("), "the wrapper sees the commit");
    assert!(bridge.terminate().await.status.success());
}

/// The delay is the same for all bytes; it does not add up.
#[tokio::test(flavor = "multi_thread")]
async fn proxy_delays_all_bytes_alike() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap()).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.delay(Duration::from_millis(150));
    let begin = Instant::now();
    for _ in 0..20 {
        client.write_all(&[7; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    timeout(SOON, client.read_exact(&mut vec![0; 20_000]))
        .await
        .unwrap()
        .unwrap();
    let took = begin.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    assert_eq!(proxy.bytes(Direction::Up), 20_000);
}
