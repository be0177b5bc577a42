//! Bodies: chunked, with a length, refused early, too many at once.

use std::time::Duration;

use super::support::*;
use crate::webhook::signature::sign;

fn chunked_head(body: &str) -> Vec<u8> {
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let headers = [
        ("x-dd-signature", &*signature),
        ("transfer-encoding", "chunked"),
    ];
    let mut head = head("acme", &headers);
    head.extend(b"\r\n");
    head
}

#[tokio::test]
async fn chunk_boundaries_do_not_change_the_body() {
    let bridge = Bridge::start().await;
    let long = format!(r#"{{"id":"1","status":"created"{}}}"#, " ".repeat(20_000));
    for (extension, body) in [(";extension=x", session("1")), ("", long)] {
        let mut request = chunked_head(&body);
        for byte in body.bytes() {
            request.extend(format!("1{extension}\r\n").bytes().chain([byte]));
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\nx-trailer: y\r\n\r\n");
        assert_eq!(bridge.ask(&request).await.status, 202);
        let webhooks = bridge.shelf.webhooks.lock().unwrap();
        assert_eq!(webhooks.last().unwrap().events[0].body, body);
    }
}

#[tokio::test]
async fn broken_chunk_and_early_end_are_400() {
    let bridge = Bridge::start().await;
    for broken in ["zz\r\n", "5\r\nabcdefg", "ffffffffffffffffff\r\n"] {
        let mut request = chunked_head("[]");
        request.extend(broken.as_bytes());
        assert_eq!(bridge.ask(&request).await.status, 400, "{broken}");
    }
    let mut client = bridge.connect().await;
    let request = signed(&session("1"));
    client.send(&request[..request.len() - 1]).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn expect_continue_is_answered_100_unless_refused() {
    let bridge = Bridge::tuned(|tuning| tuning.http.body_timeout = Duration::from_secs(1)).await;
    let body = session("1");
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let begin = async |name: &str| {
        let mut client = bridge.connect().await;
        let mut head = head("acme", &[(name, &*signature), ("expect", "100-continue")]);
        head.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
        client.send(&head).await;
        let status = client.answer().await.status;
        (client, status)
    };
    let (mut client, status) = begin("x-dd-signature").await;
    assert_eq!(status, 100);
    client.send(body.as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
    // The body is not sent.
    let (mut silent, status) = begin("x-dd-signature").await;
    assert_eq!((status, silent.answer().await.status), (100, 408));
    // After a refusal, the body is awaited for at most five seconds.
    let (mut unsigned, status) = begin("x-another").await;
    let started = std::time::Instant::now();
    for client in [&mut silent, &mut unsigned] {
        assert_eq!(client.rest().await, "");
    }
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(8), "closed after {elapsed:?}");
    assert_eq!(status, 401);
}

#[tokio::test]
async fn early_refusal_is_readable_after_the_whole_body() {
    let bridge = Bridge::start().await;
    let body = "x".repeat(5 << 20);
    for request in [
        post("acme", &[], &body),
        post("nobody", &[], &body),
        post("open", &[("content-encoding", "gzip")], &body),
        post("open", &[], &"x".repeat((10 << 20) + 1)),
    ] {
        let mut client = bridge.connect().await;
        // This client reads the answer only after it has sent everything.
        client.send(&request).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = client.answer().await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn discarded_bytes_are_bounded() {
    let bridge = Bridge::tuned(|tuning| tuning.http.body_bytes_max = 1000).await;
    let mut client = bridge.connect().await;
    let mut head = head("nobody", &[]);
    head.extend(b"content-length: 1000000000\r\n\r\n");
    client.send(&head).await;
    assert_eq!(client.answer().await.status, 404);
    let block = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while tokio::io::AsyncWriteExt::write_all(&mut client.stream, &block)
        .await
        .is_ok()
    {
        sent += block.len();
        // This includes what the kernel buffers on both sides.
        assert!(sent < 32 << 20, "everything is read");
    }
    assert!(sent >= 1 << 20, "only {sent} bytes were taken");
}

#[tokio::test]
async fn memory_is_reserved_until_the_journal_is_done() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.buffered_bytes_max = 64 << 10;
        tuning.http.body_timeout = Duration::from_millis(300);
        tuning.append_timeout = Duration::from_millis(50);
    })
    .await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let large = format!("[{}]", " ".repeat(60 << 10));
    assert_eq!(
        bridge.ask(&signed(&large)).await.header("retry-after"),
        Some("10")
    );
    let refused = bridge.ask(&signed(&large)).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{refused:?}"
    );
    bridge.shelf.disk.send_replace(Disk::Writes);
    eventually(|| bridge.shelf.webhooks.lock().unwrap().len() == 1).await;
    assert_eq!(bridge.ask(&signed(&large)).await.status, 202);
}

#[tokio::test]
async fn idle_bodies_hold_little_memory() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_bytes_max = 500_000;
        tuning.http.buffered_bytes_max = 1 << 20;
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut client = bridge.connect().await;
        let mut head = head("open", &[]);
        head.extend(b"content-length: 500000\r\n\r\n[");
        client.send(&head).await;
        idle.push(client);
    }
    eventually(|| bridge.bodies.entered_large() == 50).await;
    let large = format!("[{}]", " ".repeat(300 << 10));
    assert_eq!(bridge.ask(&signed(&large)).await.status, 202);
}

/// Each client has sent more than its share of the budget before any of them sends the rest: all
/// bodies hold memory, and none could be completed with what is left.
#[tokio::test]
async fn large_bodies_do_not_deadlock_on_memory() {
    let bridge = Bridge::tuned(large_bodies).await;
    for announced in [true, false] {
        let before = bridge.held();
        let bodies = (0..6).map(|number| {
            let body = format!(
                "[{}{}]",
                session(&number.to_string()),
                " ".repeat(1_000_000)
            );
            let signature = sign(SECRET.as_bytes(), body.as_bytes());
            let mut request = head("acme", &[("x-dd-signature", &signature)]);
            let framing = if announced {
                format!("content-length: {}\r\n\r\n{body}", body.len())
            } else {
                let length = body.len();
                format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
            };
            request.extend(framing.as_bytes());
            request
        });
        let mut clients = Vec::new();
        for request in bodies {
            let mut client = bridge.connect().await;
            client.send(&request[..400_000]).await;
            clients.push((client, request));
        }
        let answers = clients.into_iter().map(async |(mut client, request)| {
            client.send(&request[400_000..]).await;
            client.answer().await.status
        });
        let answers = futures_util::future::join_all(answers).await;
        assert_eq!(answers, [202; 6]);
        assert_eq!(bridge.held() - before, 6);
    }
}

/// The disk, not a sender, keeps the other bodies waiting: a sender that pauses meanwhile is not
/// to blame.
#[tokio::test]
async fn no_body_is_closed_while_a_large_one_is_stored() {
    let bridge = Bridge::tuned(large_bodies).await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let request = signed(&format!("[{}]", " ".repeat(1_000_000)));
    let mut first = bridge.connect().await;
    first.send(&request).await;
    bridge.shelf.has_begun(1).await;
    let mut paused = bridge.connect().await;
    paused.send(&request[..70_000]).await;
    eventually(|| bridge.bodies.entered_large() == 2).await;
    let mut waiting = bridge.connect().await;
    waiting.send(&request).await;
    eventually(|| bridge.bodies.is_any_waiting()).await;
    assert!(paused.is_quiet_for(Duration::from_millis(900)).await);
    bridge.shelf.disk.send_replace(Disk::Writes);
    paused.send(&request[70_000..]).await;
    for client in [&mut first, &mut paused, &mut waiting] {
        assert_eq!(client.answer().await.status, 202);
    }
}

/// A body of the maximum length takes longer than another one waits before a slow body is closed.
#[tokio::test]
async fn fast_body_is_not_closed_for_a_waiting_one() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_bytes_max = 10 << 20;
        tuning.http.buffered_bytes_max = 12 << 20;
    })
    .await;
    let request = signed(&format!("[{}]", " ".repeat(10_000_000)));
    let mut fast = bridge.connect().await;
    let mut waiting = bridge.connect().await;
    let (begin, rest) = request.split_at(4_000_000);
    fast.send(begin).await;
    let send = tokio::io::AsyncWriteExt::write_all(&mut waiting.stream, &request);
    _ = tokio::time::timeout(Duration::from_millis(100), send).await;
    eventually(|| bridge.bodies.is_any_waiting()).await;
    for part in rest.chunks(600_000) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        fast.send(part).await;
    }
    assert_eq!(fast.answer().await.status, 202);
}

/// Memory for one large body at a time, and for parts of others.
fn large_bodies(tuning: &mut Tuning) {
    tuning.http.body_bytes_max = 1 << 20;
    tuning.http.buffered_bytes_max = 5 << 19;
}

#[tokio::test]
async fn half_closed_client_gets_its_answer() {
    let bridge = Bridge::start().await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let mut client = bridge.connect().await;
    client.send(&signed(&session("1"))).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    bridge.shelf.has_begun(1).await;
    // Longer than the bridge takes to notice that the client has closed its write half.
    tokio::time::sleep(Duration::from_millis(100)).await;
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(client.answer().await.status, 202);
}

#[tokio::test]
async fn body_that_waited_for_memory_is_503_not_408() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.buffered_bytes_max = 64 << 10;
        tuning.http.body_timeout = Duration::from_millis(600);
    })
    .await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let large = signed(&format!("[{}]", " ".repeat(60 << 10)));
    let mut first = bridge.connect().await;
    first.send(&large).await;
    bridge.shelf.has_begun(1).await;
    let mut second = bridge.connect().await;
    second.send(&large[..large.len() - 1]).await;
    eventually(|| bridge.bodies.is_any_waiting()).await;
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(first.answer().await.status, 202);
    let refused = second.answer().await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn events_of_short_bodies_share_bounded_memory() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.body_timeout = Duration::from_millis(300)).await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let many = signed(&format!("[{}1]", "1,".repeat(9999)));
    let mut waiting = [bridge.connect().await, bridge.connect().await];
    for client in &mut waiting {
        client.send(&many).await;
        assert!(client.is_quiet_for(Duration::from_millis(50)).await);
    }
    let refused = bridge.ask(&many).await;
    assert_eq!(refused.status, 503);
    bridge.shelf.disk.send_replace(Disk::Writes);
    for client in &mut waiting {
        assert_eq!(client.answer().await.status, 202);
    }
    assert_eq!(bridge.ask(&many).await.status, 202, "it is free again");
}

/// The head of a request for `acme` with a wrong signature, and the first `sent` bytes of a body.
fn unfinished(announced: usize, sent: usize) -> Vec<u8> {
    let signature = sign(b"not the secret of anybody", b"");
    let mut request = head("acme", &[("x-dd-signature", &signature)]);
    request.extend(format!("content-length: {announced}\r\n\r\n").into_bytes());
    request.resize(request.len() + sent, b' ');
    request
}

#[tokio::test]
async fn body_below_the_minimum_rate_is_408() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_rate_min = 100;
        tuning.body_rate_grace = Some(Duration::from_millis(200));
    })
    .await;
    let request = signed(&format!("[{}]", " ".repeat(1000)));
    let mut slow = bridge.connect().await;
    slow.send(&request[..request.len() - 990]).await;
    assert_eq!(slow.answer().await.status, 408);
    // At the minimum rate, what has arrived would take three seconds.
    let mut fast = bridge.connect().await;
    fast.send(&request[..request.len() - 700]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    fast.send(&request[request.len() - 700..]).await;
    assert_eq!(fast.answer().await.status, 202);
}

#[tokio::test]
async fn waiting_for_memory_does_not_count_as_slow() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_bytes_max = 64 << 10;
        tuning.http.buffered_bytes_max = 64 << 10;
        tuning.http.body_rate_min = 1 << 20;
        tuning.body_rate_grace = Some(Duration::from_millis(300));
    })
    .await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let large = signed(&format!("[{}]", " ".repeat(60 << 10)));
    let mut first = bridge.connect().await;
    first.send(&large).await;
    bridge.shelf.has_begun(1).await;
    let mut second = bridge.connect().await;
    second.send(&large).await;
    eventually(|| bridge.bodies.is_any_waiting()).await;
    // Longer than the time in which the rate is not checked.
    tokio::time::sleep(Duration::from_millis(500)).await;
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(first.answer().await.status, 202);
    assert_eq!(second.answer().await.status, 202);
}

#[tokio::test]
async fn large_unfinished_bodies_delay_no_webhook() {
    let bridge = Bridge::start().await;
    let mut large = Vec::new();
    for _ in 0..4 {
        let mut client = bridge.connect().await;
        let request = unfinished(10_000_000, 9_999_999);
        let send = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &request);
        // For the last ones there is no memory, so they are not read to their end.
        _ = tokio::time::timeout(Duration::from_millis(200), send).await;
        large.push(client);
    }
    let started = std::time::Instant::now();
    assert_eq!(bridge.ask(&signed(&session("small"))).await.status, 202);
    let larger = format!("[{}{}]", session("larger"), " ".repeat(300_000));
    assert_eq!(bridge.ask(&signed(&larger)).await.status, 202);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(5), "waited for {elapsed:?}");
    let refused = large[0].answer().await;
    assert_eq!(refused.status, 503, "the first of them gave way");
}

#[tokio::test]
async fn small_bodies_have_reserved_memory() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.body_timeout = Duration::from_millis(300)).await;
    let taken = bridge.bodies.take_all_large();
    let of_bytes = |bytes: usize| {
        let session = session("1");
        format!("[{session}{}]", " ".repeat(bytes - session.len() - 2))
    };
    let (small, large) = (of_bytes(64 << 10), of_bytes((64 << 10) + 1));
    let mut unannounced = chunked_head(&small);
    unannounced.extend(format!("{:x}\r\n{small}\r\n0\r\n\r\n", small.len()).as_bytes());
    for request in [signed(&small), unannounced] {
        assert_eq!(bridge.ask(&request).await.status, 202);
    }
    assert_eq!(bridge.ask(&signed(&large)).await.status, 503);
    drop(taken);
    assert_eq!(bridge.ask(&signed(&large)).await.status, 202);
}

#[tokio::test]
async fn small_unfinished_bodies_delay_no_webhook() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_bytes_max = 256 << 10;
        tuning.http.buffered_bytes_max = 512 << 10;
    })
    .await;
    let mut small = Vec::new();
    for _ in 0..30 {
        let mut client = bridge.connect().await;
        client.send(&unfinished(64_000, 63_999)).await;
        small.push(client);
    }
    let has_come = || bridge.bodies.entered_small() == 30 && bridge.bodies.is_any_waiting();
    eventually(has_come).await;
    let started = std::time::Instant::now();
    let body = format!("[{}{}]", session("1"), " ".repeat(50_000));
    assert_eq!(bridge.ask(&signed(&body)).await.status, 202);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(5), "waited for {elapsed:?}");
}

/// Together they send less than 1 MB a second, but they hold all memory that larger bodies share.
#[tokio::test]
async fn slow_large_bodies_delay_no_webhook() {
    let bridge = Bridge::start().await;
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let mut client = bridge.connect().await;
        client.send(&unfinished(10_000_000, 33_000)).await;
        strangers.spawn(async move {
            let piece = [b' '; 3300];
            while tokio::io::AsyncWriteExt::write_all(&mut client.stream, &piece)
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    eventually(|| bridge.bodies.is_any_waiting()).await;
    for length in [100_000, 400_000] {
        let request = signed(&format!("[{}]", " ".repeat(length)));
        let started = std::time::Instant::now();
        assert_eq!(bridge.ask(&request).await.status, 202);
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(1), "waited for {elapsed:?}");
    }
}
