//! Requests of an attacker who has seen genuine ones, but does not have the secret.

use super::support::*;
use crate::http::sources::Source;
use crate::webhook::signature::sign;

const NAME: &str = "x-dd-signature";

/// The status of one more request on this connection.
async fn status(client: &mut Client, signature: &str, body: &[u8]) -> u16 {
    let head = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: b\r\n{NAME}: {signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(&[head.as_bytes(), body].concat()).await;
    client.answer().await.status
}

#[tokio::test]
async fn signature_of_another_source_is_401() {
    let bridge = Bridge::start().await;
    let other = Source {
        name: "other".into(),
        ..acme("the-secret-of-another-source")
    };
    bridge.sources.replace([other, acme(SECRET)]);
    let body = session("1");
    let mut client = bridge.connect().await;
    for (secret, expected) in [
        ("the-secret-of-another-source", 401),
        ("acme", 401),
        (NAME, 401),
        (SECRET, 202),
    ] {
        let signature = sign(secret.as_bytes(), body.as_bytes());
        let answer = status(&mut client, &signature, body.as_bytes()).await;
        assert_eq!(answer, expected, "{secret:?}");
    }
    assert_eq!(bridge.held(), 1);
}

#[tokio::test]
async fn signature_outside_its_header_is_ignored() {
    let bridge = Bridge::start().await;
    let body = session("1");
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let chunked = format!(
        "transfer-encoding: chunked\r\ntrailer: {NAME}\r\n\r\n{:x}\r\n{body}\r\n0\r\n{NAME}: {signature}\r\n\r\n",
        body.len()
    );
    let mut in_trailer = head("acme", &[]);
    in_trailer.extend(chunked.bytes());
    let mut in_url = b"POST /webhooks/acme?x-dd-signature=".to_vec();
    in_url.extend(
        format!(
            "{signature} HTTP/1.1\r\nhost: b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .bytes(),
    );
    let with = |name: &str, value: &str| post("acme", &[(name, value)], &body);
    let folded = signature.replace("sha256=", "sha256=\r\n ");
    for (request, expected) in [
        (in_trailer, 401),
        (in_url, 401),
        (with(NAME, &folded), 400),
        (with(NAME, &signature.replace("sha256", "sha512")), 401),
        (with(NAME, &format!("{signature},{signature}")), 401),
        (with("x-hub-signature-256", &signature), 401),
    ] {
        assert_eq!(bridge.ask(&request).await.status, expected);
    }
    assert_eq!(bridge.held(), 0);
}
