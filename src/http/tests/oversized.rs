//! Heads, chunks and encodings that would cost the bridge far more than their sender, and senders
//! that disconnect in the middle of a request.

use std::time::Duration;

use super::support::*;
use crate::webhook::signature::sign;

/// Sends as much as the bridge reads. Returns the first status; `None` if the bridge only closes.
async fn status_of_flood(
    bridge: &Bridge,
    start: &[u8],
    piece: &[u8],
    pieces: usize,
) -> Option<u16> {
    let mut client = bridge.connect().await;
    client.send(start).await;
    for _ in 0..pieces {
        let write = tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece);
        if write.await.is_err() {
            break;
        }
    }
    let answers = client.rest().await;
    answers.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test]
async fn oversized_heads_are_refused_early() {
    let bridge = Bridge::start().await;
    let start = head("open", &[]);
    for (start, piece, expected) in [
        (&*start, "x: y\r\n".repeat(1000), 431),
        (
            b"POST /webhooks/open HTTP/1.1\r\nx: ",
            "y".repeat(64 << 10),
            431,
        ),
        (
            b"POST /webhooks/open HTTP/1.1\r\n",
            "y".repeat(64 << 10),
            431,
        ),
        (b"POST /webhooks/", "y".repeat(64 << 10), 431),
        (b"", "y".repeat(64 << 10), 431),
    ] {
        let status = status_of_flood(&bridge, start, piece.as_bytes(), 16).await;
        let is_refused =
            status.is_none() || [Some(expected), Some(400), Some(414)].contains(&status);
        assert!(
            is_refused,
            "{status:?} to {:?}",
            String::from_utf8_lossy(start)
        );
    }
    assert_eq!(bridge.ask(&signed("[]")).await.status, 202);
}

#[tokio::test]
async fn large_chunk_extensions_and_trailers_are_refused() {
    let bridge = Bridge::start().await;
    let mut start = head("open", &[]);
    start.extend(b"transfer-encoding: chunked\r\n\r\n2;x=");
    let status = status_of_flood(&bridge, &start, &vec![b'y'; 64 << 10], 16).await;
    assert!(matches!(status, None | Some(400)), "{status:?}");
    let mut start = head("open", &[]);
    start.extend(b"transfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nx: ");
    let status = status_of_flood(&bridge, &start, &vec![b'y'; 64 << 10], 16).await;
    assert!(matches!(status, None | Some(400 | 431)), "{status:?}");
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn one_byte_chunks_are_a_valid_body() {
    let bridge = Bridge::start().await;
    let body = format!("[{}{}]", session("1"), " ".repeat(20_000));
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let mut request = head("acme", &[("x-dd-signature", &signature)]);
    request.extend(b"transfer-encoding: chunked\r\n\r\n");
    for byte in body.bytes() {
        request.extend([b"1\r\n", &[byte][..], b"\r\n"].concat());
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(bridge.ask(&request).await.status, 202);
    assert_eq!(bridge.held(), 1);
}

#[tokio::test]
async fn missing_body_after_100_continue_is_408() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.body_timeout = Duration::from_millis(200)).await;
    let mut client = bridge.connect().await;
    let mut head = head("open", &[("expect", "100-continue")]);
    head.extend(b"content-length: 2\r\n\r\n");
    client.send(&head).await;
    assert_eq!(client.answer().await.status, 100);
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn compressed_unsigned_bodies_are_415_before_reading() {
    let bridge = Bridge::start().await;
    for encoding in [
        "gzip",
        "x-gzip",
        "br",
        "zstd",
        "deflate",
        "compress",
        "GZIP",
        "identity, gzip",
        "gzip, gzip, gzip, gzip, gzip, gzip, gzip, gzip, gzip, gzip",
        "aes128gcm",
        "*",
        "x",
    ] {
        let mut client = bridge.connect().await;
        let mut head = head("open", &[("content-encoding", encoding)]);
        // Possibly ten gigabytes when unpacked; the bridge answers before the first byte.
        head.extend(b"content-length: 10000000\r\n\r\n");
        client.send(&head).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (415, Some("close")),
            "{encoding}"
        );
    }
    assert_eq!(bridge.held(), 0);
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
