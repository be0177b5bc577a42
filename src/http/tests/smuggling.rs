//! One request that an intermediary could take for two, or two for one. Each is followed by a
//! second, signed request, which must count as a request of its own or not at all.

use super::support::*;
use crate::webhook::signature::sign;

/// Headers with an ambiguous length. The head is followed by `CHUNKS`: twelve bytes that are the
/// chunks of `[]`, or a body of twelve bytes.
const AMBIGUOUS: &[&str] = &[
    // Content-Length and Transfer-Encoding together. These alone may be accepted.
    "content-length: 12\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: 12",
    "content-length: 0\r\ntransfer-encoding: chunked",
    "content-length: 2\r\ntransfer-encoding: chunked",
    "Content-Length: 2\r\nTRANSFER-ENCODING: CHUNKED",
    "transfer-encoding: chunked\r\ncontent-length: 0",
    "transfer-encoding: chunked\r\ncontent-length: 2\r\ncontent-length: 3",
    "transfer-encoding: chunked\r\ncontent-length: x",
    "content-length: 12\r\ntransfer-encoding: identity",
    "content-length: 12\r\ntransfer-encoding: xchunked",
    "content-length: 12\r\ntransfer-encoding:",
    "content-length: 12\r\ntransfer-encoding: \tchunked",
    // Transfer-Encoding that is not just `chunked`.
    "transfer-encoding: xchunked",
    "transfer-encoding: chunkedx",
    "transfer-encoding: identity",
    "transfer-encoding: gzip",
    "transfer-encoding:",
    "transfer-encoding: ,",
    "transfer-encoding: chunked, identity",
    "transfer-encoding: chunked, gzip",
    "transfer-encoding: chunked;q=1",
    "transfer-encoding: \"chunked\"",
    "transfer-encoding: 'chunked'",
    "transfer-encoding: chunk ed",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    "transfer-encoding: chunked\r\ntransfer-encoding: x",
    "transfer-encoding : chunked",
    "transfer-encoding\t: chunked",
    " transfer-encoding: chunked",
    "transfer-encoding\x0b: chunked",
    "transfer-encoding:\x0bchunked",
    "transfer-encoding: chunked\x00",
    "transfer-encoding: \u{212a}chunked",
    "transfer-encoding chunked",
    "transfer\r\n-encoding: chunked",
    "transfer-encoding:\r\n chunked",
    "x: y\r\n transfer-encoding: chunked",
    "x: y\ntransfer-encoding : chunked",
    // Content-Length that is not a number, or occurs several times.
    "content-length: +12",
    "content-length: -12",
    "content-length: 0x0c",
    "content-length: 1_2",
    "content-length: 1 2",
    "content-length: 12,",
    "content-length: 12,12",
    "content-length: 12, 13",
    "content-length: 12 , 0",
    "content-length: 12;",
    "content-length: 12.0",
    "content-length: 1e1",
    "content-length: \"12\"",
    "content-length: twelve",
    "content-length:",
    "content-length: \u{0661}\u{0662}",
    "content-length: 18446744073709551616",
    "content-length: 18446744073709551628",
    "content-length: 99999999999999999999999999",
    "content-length: 12\r\ncontent-length: 13",
    "content-length: 13\r\nContent-Length: 12",
    "content-length: 12\r\ncontent-length: +12",
    "content-length : 12",
    "content-length\t: 12",
    " content-length: 12",
    "content-length: 12\x00",
    "content-length\x00: 12",
    "x: y\r\n content-length: 12",
    "x: y\r\n\tfolded: 1\r\ncontent-length: 12",
    // Invalid heads.
    "x: a\x00b\r\ncontent-length: 12",
    "x: a\rb\r\ncontent-length: 12",
    "x\x7f: a\r\ncontent-length: 12",
    "x\x00y: a\r\ncontent-length: 12",
    ": a\r\ncontent-length: 12",
    "no colon\r\ncontent-length: 12",
    "(x): a\r\ncontent-length: 12",
];

/// `[]` in chunks: twelve bytes.
const CHUNKS: &str = "2\r\n[]\r\n0\r\n\r\n";

fn second() -> Vec<u8> {
    signed(&session("the second"))
}

#[tokio::test]
async fn doubtful_length_never_hides_a_second_request() {
    const { assert!(AMBIGUOUS.len() >= 60) };
    let bridge = Bridge::start().await;
    for signature in [
        sign(SECRET.as_bytes(), b"[]"),
        sign(SECRET.as_bytes(), CHUNKS.as_bytes()),
    ] {
        for framing in AMBIGUOUS {
            let mut request = head("acme", &[("x-dd-signature", &signature)]);
            request.extend(format!("{framing}\r\n\r\n{CHUNKS}").bytes());
            request.extend(second());
            let answers = bridge.statuses(&request).await;
            let lower = framing.to_lowercase();
            let has_both = ["content-length", "transfer-encoding"].map(|name| lower.contains(name));
            let is_refused = answers.is_empty() || answers == [400];
            let is_the_last = has_both == [true; 2] && answers.len() == 1;
            assert!(is_refused || is_the_last, "{answers:?} to {framing:?}");
        }
    }
    assert_eq!(bridge.held(), 0, "the second one was held");
    assert_eq!(bridge.statuses(&second()).await, [202]);
}

/// Unusual, but not ambiguous: both requests count, each with the content that was signed.
#[tokio::test]
async fn unusual_requests_keep_their_boundaries() {
    let bridge = Bridge::start().await;
    let signature = sign(SECRET.as_bytes(), b"[]");
    for (framing, body) in [
        ("content-length: 2\r\ncontent-length: 2", "[]"),
        ("content-length: 02", "[]"),
        ("content-length:2", "[]"),
        ("content-length:\t 2 ", "[]"),
        ("transfer-encoding: Chunked", CHUNKS),
        ("transfer-encoding: chunked", "2;x=\"y\"\r\n[]\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", "002\r\n[]\r\n000\r\n\r\n"),
        (
            "transfer-encoding: chunked",
            "1\r\n[\r\n1\r\n]\r\n0\r\ncontent-length: 9\r\n\r\n",
        ),
        ("x: y\ncontent-length: 2", "[]"),
    ] {
        let mut request = head("acme", &[("x-dd-signature", &signature)]);
        request.extend(format!("{framing}\r\n\r\n{body}").bytes());
        request.extend(second());
        let before = bridge.held();
        let answers = bridge.statuses(&request).await;
        let is_refused = answers == [400] && bridge.held() == before;
        let is_taken = answers == [202, 202] && bridge.held() == before + 1;
        assert!(
            is_refused || is_taken,
            "{answers:?} to {framing:?} {body:?}"
        );
    }
}

#[tokio::test]
async fn broken_chunks_end_the_connection_unstored() {
    let bridge = Bridge::start().await;
    let signature = sign(SECRET.as_bytes(), b"[]");
    for chunks in [
        "2\r\n[]0\r\n\r\n",
        "2\r\n[]\r\n\r\n",
        "3\r\n[]\r\n0\r\n\r\n",
        "1\r\n[]\r\n0\r\n\r\n",
        "-2\r\n[]\r\n0\r\n\r\n",
        "+2\r\n[]\r\n0\r\n\r\n",
        "0x2\r\n[]\r\n0\r\n\r\n",
        "2 2\r\n[]\r\n0\r\n\r\n",
        "\r\n[]\r\n0\r\n\r\n",
        "g\r\n[]\r\n0\r\n\r\n",
        "10000000000000002\r\n[]\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n[]\r\n0\r\n\r\n",
        "2\x00\r\n[]\r\n0\r\n\r\n",
        "2\r[]\r\n0\r\n\r\n",
        "2\r\n[]\r\n0\r\nno colon\r\n",
    ] {
        let mut request = head("acme", &[("x-dd-signature", &signature)]);
        request.extend(format!("transfer-encoding: chunked\r\n\r\n{chunks}").bytes());
        request.extend(second());
        let answers = bridge.statuses(&request).await;
        assert!(
            answers.is_empty() || answers == [400],
            "{answers:?} to {chunks:?}"
        );
    }
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn invalid_request_line_is_400_and_closes() {
    let bridge = Bridge::start().await;
    let signature = sign(SECRET.as_bytes(), b"[]");
    for line in [
        "POST /webhooks/acme HTTP/1.0\r\ntransfer-encoding: chunked",
        "POST /webhooks/acme HTTP/2.0",
        "POST /webhooks/acme HTTP/0.9",
        "POST /webhooks/acme HTTP/1.2",
        "POST /webhooks/acme http/1.1",
        "POST /webhooks/acme HTTP/1.1 x",
        "POST /webhooks/acme",
        "POST  /webhooks/acme HTTP/1.1",
        "POST\t/webhooks/acme\tHTTP/1.1",
        "POST /webhooks/acme\x00 HTTP/1.1",
        "P\x00ST /webhooks/acme HTTP/1.1",
        "POST HTTP/1.1",
        "\x00POST /webhooks/acme HTTP/1.1",
    ] {
        let request = format!(
            "{line}\r\nhost: bridge\r\nx-dd-signature: {signature}\r\ncontent-length: 2\r\n\r\n[]"
        );
        let request = [request.into_bytes(), second()].concat();
        let answers = bridge.statuses(&request).await;
        assert!(
            answers.is_empty() || answers == [400],
            "{answers:?} to {line:?}"
        );
    }
    assert_eq!(bridge.held(), 0);
}
