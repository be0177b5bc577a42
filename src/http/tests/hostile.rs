//! Bytes that are not a request of HTTP/1.1.

use super::support::*;

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
        let answers = bridge.statuses(bytes).await;
        assert!(
            answers.is_empty() || answers == [400],
            "{answers:?} to {bytes:?}"
        );
    }
    assert_eq!(bridge.ask(&signed("[]")).await.status, 202);
}

#[tokio::test]
async fn http_1_0_client_is_answered_once_and_closed() {
    let bridge = Bridge::start().await;
    let request = |extra: &str| {
        format!("POST /webhooks/open HTTP/1.0\r\n{extra}content-length: 2\r\n\r\n[]").into_bytes()
    };
    assert_eq!(bridge.statuses(&request("")).await, [202]);
    let chunked = request("transfer-encoding: chunked\r\n");
    let answers = bridge.statuses(&chunked).await;
    assert!(answers.is_empty() || answers == [400], "{answers:?}");
}
