//! Requests of an attacker who has seen genuine ones, but does not have the secret.

use super::support::*;
use crate::http::sources::Source;
use crate::webhook::signature::{Keys, sign};

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
async fn body_with_any_flipped_bit_is_401() {
    let bridge = Bridge::start().await;
    let mut client = bridge.connect().await;
    let mut flipped = 0;
    for number in 0..50 {
        let body = format!("[{}]", session(&number.to_string())).into_bytes();
        let signature = sign(SECRET.as_bytes(), &body);
        for bit in 0..body.len() * 8 {
            let mut body = body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                status(&mut client, &signature, &body).await,
                401,
                "bit {bit}"
            );
            flipped += 1;
        }
    }
    assert!(flipped > 10_000);
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn equivalent_but_different_body_is_401() {
    let bridge = Bridge::start().await;
    let mut client = bridge.connect().await;
    let body = r#"[{"id":"1","status":"created","n":1.0}]"#;
    let signature = sign(SECRET.as_bytes(), body.as_bytes());
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    for same in [
        serde_json::to_string_pretty(&value).unwrap(),
        body.replace("1.0", "1.00"),
        body.replace("id", "\\u0069d"),
        body.replace(',', ", "),
        format!("{body}\n"),
        format!(" {body}"),
        format!("\u{feff}{body}"),
        body[..body.len() - 1].to_owned(),
        body[1..].to_owned(),
        String::new(),
    ] {
        let answer = status(&mut client, &signature, same.as_bytes()).await;
        assert_eq!(answer, 401, "{same:?}");
    }
    assert_eq!(bridge.held(), 0);
    assert_eq!(status(&mut client, &signature, body.as_bytes()).await, 202);
}

#[tokio::test]
async fn signature_of_another_source_is_401() {
    let bridge = Bridge::start().await;
    let secrets: Vec<_> = (0..20)
        .map(|number| format!("the secret of source {number}"))
        .collect();
    let others = secrets.iter().enumerate().map(|(number, secret)| Source {
        name: format!("other-{number}").into(),
        awaits_secret: false,
        secret_names: Vec::new(),
        keys: Keys::new([secret]),
    });
    bridge.sources.replace(others.chain([acme(SECRET)]));
    let body = session("1");
    let mut client = bridge.connect().await;
    let near = ["", "\n", " "].map(|end| format!("{SECRET}{end}"));
    let [right, longer, padded] = near;
    let public = ["", "acme", "/webhooks/acme", NAME, &body].map(str::to_owned);
    let wrong = secrets
        .iter()
        .cloned()
        .chain(public)
        .chain([longer, padded]);
    for secret in wrong.chain([right.to_uppercase(), right[1..].to_owned()]) {
        let signature = sign(secret.as_bytes(), body.as_bytes());
        let answer = status(&mut client, &signature, body.as_bytes()).await;
        assert_eq!(answer, 401, "{secret:?}");
    }
    let of_nothing = sign(SECRET.as_bytes(), b"");
    assert_eq!(status(&mut client, &of_nothing, body.as_bytes()).await, 401);
    assert_eq!(bridge.held(), 0);
    let signature = sign(right.as_bytes(), body.as_bytes());
    assert_eq!(status(&mut client, &signature, body.as_bytes()).await, 202);
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
    let folded = signature.replace("sha256=", "sha256=\r\n ");
    let mut in_url = b"POST /webhooks/acme?x-dd-signature=".to_vec();
    in_url.extend(
        format!(
            "{signature} HTTP/1.1\r\nhost: b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .bytes(),
    );
    for (request, expected) in [
        (in_trailer, 401),
        (post("acme", &[(NAME, &folded)], &body), 400),
        (in_url, 401),
        (
            post(
                "acme",
                &[(NAME, &signature.replace("sha256", "sha512"))],
                &body,
            ),
            401,
        ),
        (
            post(
                "acme",
                &[(NAME, &format!("{signature},{signature}"))],
                &body,
            ),
            401,
        ),
    ] {
        assert_eq!(bridge.ask(&request).await.status, expected);
    }
    assert_eq!(bridge.held(), 0);
}
