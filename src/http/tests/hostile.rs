//! Bytes that are not a request, or more than one.

use super::support::*;

/// The statuses of all answers until the bridge closes the connection.
async fn answers_to(bridge: &Bridge, bytes: &[u8]) -> Vec<u16> {
    let mut client = bridge.connect().await;
    client.send(bytes).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    let rest = client.rest().await;
    let answers = rest.split("HTTP/1.").skip(1);
    answers
        .filter_map(|answer| answer.get(2..5)?.parse().ok())
        .collect()
}

#[tokio::test]
async fn non_http_is_400_or_closed() {
    let bridge = Bridge::start().await;
    let noise: Vec<u8> = (0..=255).cycle().step_by(37).take(4096).collect();
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03abcdefghijklmnopqrstuvwxyz",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"AMQP\0\0\x09\x01",
        b"GET /\r\n",
        b"\0\0\0\0\r\n\r\n",
        &noise,
    ] {
        let answers = answers_to(&bridge, bytes).await;
        assert!(
            answers.is_empty() || answers == [400],
            "{answers:?} to {bytes:?}"
        );
    }
    assert_eq!(bridge.ask(&signed("[]")).await.status, 202);
}

#[tokio::test]
async fn ambiguous_length_ends_the_connection() {
    let bridge = Bridge::start().await;
    let second = post("open", &[], &session("smuggled"));
    for framing in [
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "content-length: 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    ] {
        let mut request = head("open", &[]);
        request.extend(framing.as_bytes());
        request.extend(&second);
        let mut client = bridge.connect().await;
        client.send(&request).await;
        let answer = client.answer().await;
        if answer.status < 400 {
            assert_eq!(answer.header("connection"), Some("close"), "{framing:?}");
        }
        assert_eq!(client.rest().await, "", "{framing:?}");
    }
    assert_eq!(bridge.held(), 0, "a smuggled webhook was held");
}

#[tokio::test]
async fn one_request_is_never_split_into_two() {
    let bridge = Bridge::start().await;
    let second = post("open", &[], &session("smuggled"));
    for framing in [
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: \"chunked\"\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "content-length: +2\r\n\r\n[]",
        "content-length: -2\r\n\r\n[]",
        "content-length: 2,2\r\n\r\n[]",
        "content-length: 2, 3\r\n\r\n[]",
        "content-length: 2\r\ncontent-length: 3\r\n\r\n[]",
        "content-length: 0x2\r\n\r\n[]",
        "content-length: 2 2\r\n\r\n[]",
        "content-length: \r\n\r\n[]",
        "content-length: 99999999999999999999\r\n\r\n[]",
        "content-length : 2\r\n\r\n[]",
        " content-length: 2\r\n\r\n[]",
        "x: y\r\n folded: 1\r\ncontent-length: 2\r\n\r\n[]",
        "x: a\0b\r\ncontent-length: 2\r\n\r\n[]",
        "x\0y: a\r\ncontent-length: 2\r\n\r\n[]",
        ": a\r\ncontent-length: 2\r\n\r\n[]",
        "no colon\r\ncontent-length: 2\r\n\r\n[]",
    ] {
        let mut request = head("open", &[]);
        request.extend(framing.as_bytes());
        request.extend(&second);
        let answers = answers_to(&bridge, &request).await;
        assert!(
            answers.is_empty() || answers == [400],
            "{answers:?} to {framing:?}"
        );
    }
    assert_eq!(bridge.held(), 0, "a smuggled webhook was held");
}

#[tokio::test]
async fn http_1_0_client_is_answered_once_and_closed() {
    let bridge = Bridge::start().await;
    let request = |extra: &str| {
        format!("POST /webhooks/open HTTP/1.0\r\n{extra}content-length: 2\r\n\r\n[]").into_bytes()
    };
    assert_eq!(answers_to(&bridge, &request("")).await, [202]);
    let chunked = request("transfer-encoding: chunked\r\n");
    let answers = answers_to(&bridge, &chunked).await;
    assert!(answers.is_empty() || answers == [400], "{answers:?}");
}

#[tokio::test]
async fn disconnect_at_any_byte_affects_no_other() {
    let bridge = Bridge::start().await;
    let request = signed(&session("1"));
    for length in 0..request.len() {
        let mut client = bridge.connect().await;
        client.send(&request[..length]).await;
    }
    assert_eq!(bridge.ask(&request).await.status, 202);
    assert_eq!(bridge.held(), 1);
}
