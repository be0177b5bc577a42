//! Heads and chunks that would cost the bridge far more than their sender, and senders that
//! disconnect in the middle of a request.

use tokio::io::AsyncWriteExt;

use super::support::*;

#[tokio::test]
async fn endless_heads_chunks_and_trailers_are_refused() {
    let bridge = Bridge::start().await;
    let open = String::from_utf8(head("open", &[])).unwrap();
    let chunked = format!("{open}transfer-encoding: chunked\r\n\r\n");
    let piece = vec![b'y'; 64 << 10];
    for start in [
        String::new(),
        "POST /webhooks/".to_owned(),
        format!("{open}x"),
        format!("{open}x: "),
        format!("{chunked}2;x="),
        format!("{chunked}2\r\n[]\r\n0\r\nx: "),
    ] {
        let mut client = bridge.connect().await;
        client.send(start.as_bytes()).await;
        // As much as the bridge reads.
        for _ in 0..16 {
            let write = client.stream.write_all(&piece);
            if write.await.is_err() {
                break;
            }
        }
        // The bridge may have closed already.
        _ = client.stream.shutdown().await;
        let answer = client.rest().await;
        let status = answer.get(9..12).unwrap_or_default();
        let is_refused = ["", "400", "414", "431"].contains(&status);
        assert!(is_refused, "{answer:?} to {start:?}");
    }
    assert_eq!(bridge.held(), 0);
    assert_eq!(bridge.ask(&signed("[]")).await.status, 202);
}

/// A sender that disconnects before the last byte has sent nothing; after it, everything.
#[tokio::test]
async fn disconnect_stores_a_whole_webhook_or_none() {
    let bridge = Bridge::start().await;
    let array = format!("[{},{},{}]", session("1"), session("2"), session("3"));
    let request = signed(&array);
    for length in (0..request.len()).rev() {
        let mut client = bridge.connect().await;
        client.send(&request[..length]).await;
        if length % 2 == 0 {
            client.stream.set_zero_linger().unwrap();
        }
    }
    assert_eq!(bridge.ask(&signed("[]")).await.status, 202);
    assert_eq!(bridge.held(), 0, "a part of a webhook was held");
    for number in 1..=20 {
        let mut client = bridge.connect().await;
        client.send(&request).await;
        drop(client);
        eventually(|| bridge.held() == 3 * number).await;
    }
}
