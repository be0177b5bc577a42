//! Bodies: chunked, announced, refused early, too much at once.

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
async fn a_chunked_body_is_the_same_body_however_it_is_cut() {
    let bridge = Bridge::start().await;
    let body = session("1");
    let mut request = chunked_head(&body);
    for byte in body.bytes() {
        request.extend([b"1;extension=x\r\n".as_slice(), &[byte], b"\r\n"].concat());
    }
    request.extend(b"0\r\nx-trailer: y\r\n\r\n");
    assert_eq!(bridge.ask(&request).await.status, 202);
    assert_eq!(
        bridge.shelf.webhooks.lock().unwrap()[0].events[0].body,
        body
    );
}

#[tokio::test]
async fn a_broken_chunk_and_an_early_end_are_400() {
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
async fn a_body_is_asked_for_when_its_sender_waits_for_that() {
    let bridge = Bridge::start().await;
    let body = session("1");
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let mut client = bridge.connect().await;
    let headers = [("x-dd-signature", &*signature), ("expect", "100-continue")];
    let mut head = head("acme", &headers);
    head.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    client.send(&head).await;
    assert_eq!(client.answer().await.status, 100);
    client.send(body.as_bytes()).await;
    assert_eq!(client.answer().await.status, 202);
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for() {
    let bridge = Bridge::start().await;
    let mut client = bridge.connect().await;
    let mut head = head("acme", &[("expect", "100-continue")]);
    head.extend(b"content-length: 10\r\n\r\n");
    client.send(&head).await;
    assert_eq!(client.answer().await.status, 401);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_early_refusal_is_readable_for_somebody_who_sends_everything_first() {
    let bridge = Bridge::start().await;
    let body = "x".repeat(5 << 20);
    for request in [
        post("acme", &[], &body),
        post("nobody", &[], &body),
        post("open", &[("content-encoding", "gzip")], &body),
        post("open", &[], &"x".repeat((10 << 20) + 1)),
    ] {
        let mut client = bridge.connect().await;
        // Not before all of it is sent does this client look for an answer.
        client.send(&request).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = client.answer().await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn no_more_is_discarded_than_a_body_may_have_and_a_megabyte() {
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
        // What the kernel buffers on both sides comes on top.
        assert!(sent < 32 << 20, "everything is read");
    }
    assert!(sent >= 1 << 20, "only {sent} bytes were taken");
}

#[tokio::test]
async fn bodies_share_a_budget_and_who_finds_none_is_503() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.buffered_bytes_max = 64 << 10;
        tuning.http.body_timeout = Duration::from_millis(400);
    })
    .await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let large = format!("[{}]", " ".repeat(60 << 10));
    let mut first = bridge.connect().await;
    first.send(&signed(&large)).await;
    let mut second = bridge.connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    second.send(&signed(&large)).await;
    let refused = second.answer().await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{refused:?}"
    );
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(first.answer().await.status, 202);
    assert_eq!(bridge.ask(&signed(&large)).await.status, 202);
}

#[tokio::test]
async fn memory_stays_reserved_while_the_journal_has_the_body_of_somebody_who_left() {
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
async fn idle_bodies_hold_little_of_the_budget() {
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
    tokio::time::sleep(Duration::from_millis(100)).await;
    let large = format!("[{}]", " ".repeat(300 << 10));
    assert_eq!(bridge.ask(&signed(&large)).await.status, 202);
}

/// Each has sent more than its share of the budget before any of them sends the rest: all hold a
/// part and none could finish from what is left.
#[tokio::test]
async fn large_bodies_that_hold_all_of_the_budget_together_do_not_wait_for_each_other() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_bytes_max = 1 << 20;
        tuning.http.buffered_bytes_max = 5 << 19;
        tuning.http.body_timeout = Duration::from_secs(8);
    })
    .await;
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

#[tokio::test]
async fn a_large_body_is_split_aside() {
    let bridge = Bridge::start().await;
    let sessions: Vec<_> = (0..9000)
        .map(|id| session(&format!("session-{id}")))
        .collect();
    let answer = bridge
        .ask(&signed(&format!("[{}]", sessions.join(","))))
        .await;
    assert_eq!(answer.json()["accepted"], 9000, "{answer:?}");
}

#[tokio::test]
async fn who_closes_his_half_gets_an_answer() {
    let bridge = Bridge::start().await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let mut client = bridge.connect().await;
    client.send(&signed(&session("1"))).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(client.answer().await.status, 202);
}

#[tokio::test]
async fn a_body_that_waited_for_memory_is_503_and_not_called_slow() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.buffered_bytes_max = 64 << 10;
        tuning.http.body_timeout = Duration::from_millis(600);
    })
    .await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let large = signed(&format!("[{}]", " ".repeat(60 << 10)));
    let mut first = bridge.connect().await;
    first.send(&large).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut second = bridge.connect().await;
    second.send(&large[..large.len() - 1]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
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
async fn the_events_of_short_bodies_share_bounded_memory_too() {
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
async fn below_the_least_pace_is_408() {
    let bridge = Bridge::tuned(|tuning| {
        tuning.http.body_rate_min = 100;
        tuning.body_rate_grace = Some(Duration::from_millis(200));
    })
    .await;
    let request = signed(&format!("[{}]", " ".repeat(1000)));
    let mut slow = bridge.connect().await;
    slow.send(&request[..request.len() - 990]).await;
    assert_eq!(slow.answer().await.status, 408);
    // What has come would take three seconds at the least pace.
    let mut fast = bridge.connect().await;
    fast.send(&request[..request.len() - 700]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    fast.send(&request[request.len() - 700..]).await;
    assert_eq!(fast.answer().await.status, 202);
}

#[tokio::test]
async fn a_body_that_waits_for_memory_is_not_slow() {
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
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut second = bridge.connect().await;
    second.send(&large).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(first.answer().await.status, 202);
    assert_eq!(second.answer().await.status, 202);
}

#[tokio::test]
async fn large_unfinished_bodies_keep_nobody_waiting() {
    let bridge = Bridge::start().await;
    let mut large = Vec::new();
    for _ in 0..4 {
        let mut client = bridge.connect().await;
        let request = unfinished(10_000_000, 9_999_999);
        let send = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &request);
        // The last ones find no memory, and are not read to their end.
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
async fn small_unfinished_bodies_keep_nobody_waiting() {
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
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = std::time::Instant::now();
    let body = format!("[{}{}]", session("1"), " ".repeat(50_000));
    assert_eq!(bridge.ask(&signed(&body)).await.status, 202);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(5), "waited for {elapsed:?}");
}

#[tokio::test]
async fn a_chunked_body_may_outgrow_the_small_ones() {
    let bridge = Bridge::start().await;
    let body = format!("[{}{}]", session("1"), " ".repeat(300_000));
    let mut request = chunked_head(&body);
    for chunk in body.as_bytes().chunks(10_000) {
        request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        request.extend([chunk, b"\r\n"].concat());
    }
    request.extend(b"0\r\n\r\n");
    for _ in 0..100 {
        assert_eq!(bridge.ask(&request).await.status, 202);
    }
}
