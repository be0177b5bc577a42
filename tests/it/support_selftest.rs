//! Tests of the test support: a fault that does not take effect would prove nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::{Broker, noted_pid};
use crate::support::consumer::Consumer;
use crate::support::message::Message;
use crate::support::process::{is_alive, script, signal};
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{RawClient, array_of, array_of_new, session, signed_head};
use crate::support::vhost::connect;
use crate::support::wait::{SOON, eventually, eventually_some};

const A_MOMENT: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn subscriber_receives_only_its_vhost() {
    let broker = Broker::shared().await;
    let (ours, theirs) = (broker.vhost().await, broker.vhost().await);
    for vhost in [&ours, &theirs] {
        vhost.declare_exchange("letters", "topic", json!({})).await;
    }
    let mut here = Consumer::subscribed(&ours, "letters", "a.*").await;
    let mut there = Consumer::subscribed(&theirs, "letters", "#").await;

    assert!(ours.publish("letters", "a.b", b"hello").await);
    assert!(!ours.publish("letters", "b.a", b"nobody wants this").await);

    let message = here.receive().await;
    assert_eq!(message.exchange, "letters");
    assert_eq!(message.routing_key, "a.b");
    assert_eq!(message.text(), "hello");
    here.receives_nothing_for(A_MOMENT).await;
    there.receives_nothing_for(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vhost_is_deleted_after_its_test() {
    let broker = Broker::shared().await;
    let vhost = broker.vhost().await;
    let (gone, witness) = (vhost.name.clone(), broker.vhost().await);
    drop(vhost);
    eventually("the vhost is deleted", SOON, || async {
        let all = witness
            .management(hyper::Method::GET, "vhosts", &json!(null))
            .await
            .json();
        !all.as_array()
            .unwrap()
            .iter()
            .any(|vhost| vhost["name"] == gone.as_str())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_can_be_filled_counted_purged_and_deleted() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.declare_exchange("letters", "fanout", json!({})).await;
    let full_at_two = json!({"x-max-length": 2, "x-overflow": "reject-publish"});
    vhost.declare_queue("small", full_at_two).await;
    vhost.bind("small", "letters", "").await;

    assert!(vhost.publish("letters", "", b"1").await);
    assert!(vhost.publish("letters", "", b"2").await);
    assert!(
        !vhost.publish("letters", "", b"3").await,
        "the queue is full"
    );
    assert_eq!(vhost.message_count("small").await, Some(2));
    let bodies: Vec<_> = vhost
        .messages("small")
        .await
        .iter()
        .map(Message::text)
        .collect();
    assert_eq!(bodies, ["1", "2"]);

    vhost.unbind("small", "letters", "").await;
    assert!(
        !vhost.publish("letters", "", b"4").await,
        "the binding is gone"
    );
    assert_eq!(
        vhost.describe("queues", "small").await["arguments"]["x-max-length"],
        2
    );
    vhost.delete_queue("small").await;
    assert_eq!(vhost.message_count("small").await, None);
    assert!(vhost.has_exchange("letters").await);
    vhost.delete_exchange("letters").await;
    assert!(!vhost.has_exchange("letters").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_can_be_frozen_killed_and_restarted() {
    let broker = Broker::own_with("").await;
    let vhost = broker.vhost().await;
    vhost
        .declare_queue("kept", json!({"x-queue-type": "quorum"}))
        .await;
    let channel = confirming(&vhost.amqp_url).await;
    assert!(
        confirmed(&channel).await,
        "messages are confirmed before any fault"
    );

    broker.freeze();
    assert!(
        !confirmed(&channel).await,
        "a frozen broker confirms nothing"
    );
    broker.thaw();
    assert!(confirmed(&channel).await, "the broker confirms again");

    broker.raise_memory_alarm().await;
    assert!(
        !confirmed(&channel).await,
        "a broker with a memory alarm confirms nothing"
    );
    broker.clear_memory_alarm().await;
    let channel = confirming(&vhost.amqp_url).await;
    assert!(
        confirmed(&channel).await,
        "the broker accepts messages again"
    );

    let killed = broker.pid();
    broker.kill().await;
    assert!(
        TcpStream::connect(vhost.amqp_address()).await.is_err(),
        "no connection is accepted"
    );
    broker.start().await;
    assert_ne!(broker.pid(), killed);
    eventually("the queue is back", SOON, || async {
        vhost
            .message_count("kept")
            .await
            .is_some_and(|messages| messages >= 3)
    })
    .await;

    broker.stop().await;
    assert!(
        TcpStream::connect(vhost.amqp_address()).await.is_err(),
        "no connection is accepted"
    );
}

async fn confirming(amqp_url: &str) -> Channel {
    // The connection must live as long as its channel.
    let connection = Box::leak(Box::new(connect(amqp_url).await));
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    channel
}

/// Whether a message to the queue `kept` is confirmed promptly.
async fn confirmed(channel: &Channel) -> bool {
    let publish = async {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), "kept".into(), options, b"x", properties);
        matches!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None))
    };
    timeout(3 * A_MOMENT, publish).await.unwrap_or(false)
}

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

// --- the bridge ---

#[tokio::test(flavor = "multi_thread")]
async fn bridge_can_be_frozen_killed_and_restarted() {
    let (vhost, mut bridge) = on_shared_broker("rabbitmq.confirm_timeout = \"7s\"").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;

    let body = array_of(&[session("one", "created", json!({}))]);
    assert_eq!(bridge.post(&body).await.status, 202);
    assert_eq!(
        bridge
            .post_signed_with("another secret", &body)
            .await
            .status,
        401
    );
    assert_eq!(consumer.receive().await.header("session-id"), "one");
    bridge.backlog_is_empty().await;
    let metrics = bridge.metrics().await;
    assert_eq!(
        metrics.sum_where("sessions_accepted_total", &[("status", "created")]),
        1.0
    );
    assert!(bridge.journal_dir().join("journal.db").exists());
    assert!((1 << 20..1 << 30).contains(&bridge.rss_bytes()));

    bridge.freeze();
    assert!(
        timeout(A_MOMENT, bridge.ready()).await.is_err(),
        "a frozen bridge answers nothing"
    );
    bridge.thaw();
    assert!(bridge.ready().await);

    let first = bridge.pid();
    bridge.restart().await;
    assert!(!is_alive(first) && bridge.pid() != first);
    let exit = bridge.terminate().await;
    assert!(exit.status.success(), "{exit:?}\n{}", bridge.stderr());
    assert!(!bridge.is_running() && !bridge.ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_start_reports_its_reason() {
    let mut bridge = BridgeBuilder::at("amqp://127.0.0.1:1")
        .with("http.nonsense = 1")
        .build();
    let exit = bridge.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(2));
    assert!(bridge.stderr().contains("nonsense"), "{}", bridge.stderr());
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

#[tokio::test(flavor = "multi_thread")]
async fn raw_client_reads_consecutive_answers() {
    let bridge = BridgeBuilder::at("amqp://127.0.0.1:1").start().await;
    let mut client = RawClient::connect(bridge.address()).await;
    let body = array_of_new("raw", 2);
    let request = [signed_head(&body).as_bytes(), &body].concat();
    client
        .write([request.as_slice(), request.as_slice()].concat())
        .await;
    for _ in 0..2 {
        let answer = client.answer().await.expect("an answer each");
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &json!(2))
        );
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
    }
    client.write("nonsense\r\n\r\n").await;
    assert_eq!(client.answer().await.map(|answer| answer.status), Some(400));
    assert!(client.is_closed_within(SOON).await);
}

// --- the proxy, in front of an echo server ---

#[tokio::test(flavor = "multi_thread")]
async fn proxy_passes_and_counts() {
    let (proxy, mut client) = echoing().await;
    assert_eq!(echo(&mut client, b"hello").await, Echo::Came);
    assert_eq!((proxy.connections(), proxy.connections_open()), (1, 1));
    assert_eq!(
        (proxy.bytes(Direction::Up), proxy.bytes(Direction::Down)),
        (5, 5)
    );
    drop(client);
    eventually("the end of the connection is forwarded", SOON, || async {
        proxy.connections_open() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_resets_closes_and_refuses() {
    let (proxy, mut client) = echoing().await;
    proxy.cut();
    assert_eq!(echo(&mut client, b"x").await, Echo::Reset);

    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(echo(&mut client, b"x").await, Echo::Came);
    proxy.close();
    let read = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap(), 0, "closed, not reset");

    proxy.refuse();
    if let Ok(mut client) = TcpStream::connect(proxy.address()).await {
        assert_eq!(echo(&mut client, b"x").await, Echo::Reset);
    }
    proxy.pass();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(echo(&mut client, b"x").await, Echo::Came);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_drops_or_stalls_one_direction() {
    let (proxy, mut client) = echoing().await;
    proxy.stall(Direction::Down);
    assert_eq!(echo(&mut client, b"held").await, Echo::Nothing);
    proxy.pass();
    let mut held = [0; 4];
    timeout(SOON, client.read_exact(&mut held))
        .await
        .expect("the bytes arrive later")
        .unwrap();
    assert_eq!(&held, b"held");

    proxy.blackhole(Direction::Down);
    let (up, down) = (proxy.bytes(Direction::Up), proxy.bytes(Direction::Down));
    assert_eq!(echo(&mut client, b"lost").await, Echo::Nothing);
    assert_eq!(proxy.bytes(Direction::Up), up + 4, "the server has it");
    assert_eq!(proxy.bytes(Direction::Down), down, "the client has not");
    proxy.pass();
    assert_eq!(
        echo(&mut client, b"x").await,
        Echo::Reset,
        "a stream that has lost bytes is reset"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_cuts_once_after_exact_bytes() {
    let (proxy, mut client) = echoing().await;
    assert_eq!(echo(&mut client, b"12345").await, Echo::Came);
    proxy.cut_after_bytes(3, Direction::Down);
    client.write_all(b"abcdef").await.unwrap();
    let mut got = Vec::new();
    let end = timeout(SOON, client.read_to_end(&mut got)).await.unwrap();
    assert!(end.is_err(), "reset");
    assert_eq!(
        (got.as_slice(), proxy.bytes(Direction::Down)),
        (b"abc".as_slice(), 8)
    );
    assert_eq!(proxy.cuts(), 1);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(echo(&mut client, b"abcdef").await, Echo::Came, "only once");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_delays_and_throttles_independently() {
    let (proxy, mut client) = echoing().await;
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

    proxy.pass();
    proxy.throttle(10_000);
    let begin = Instant::now();
    client.write_all(&[7; 10_000]).await.unwrap();
    timeout(SOON, client.read_exact(&mut [0; 10_000]))
        .await
        .unwrap()
        .unwrap();
    let took = begin.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(6)).contains(&took),
        "{took:?}"
    );
}

#[derive(Debug, PartialEq)]
enum Echo {
    Came,
    Nothing,
    Reset,
}

async fn echo(client: &mut TcpStream, bytes: &[u8]) -> Echo {
    let mut back = vec![0; bytes.len()];
    let there_and_back = async {
        client.write_all(bytes).await?;
        client.read_exact(&mut back).await
    };
    match timeout(A_MOMENT, there_and_back).await {
        Ok(Ok(_)) => {
            assert_eq!(back, bytes);
            Echo::Came
        }
        Ok(Err(_)) => Echo::Reset,
        Err(_) => Echo::Nothing,
    }
}

async fn echoing() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let proxy = Proxy::to(server).await;
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    eventually("the connection is accepted", SOON, || async {
        proxy.connections_open() == 1
    })
    .await;
    (proxy, client)
}
