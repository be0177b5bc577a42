//! Many forged webhooks: none is accepted, and no byte of them is on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::Method;
use serde_json::json;

use super::genuine_sender::{Genuine, alone, calm};
use super::size;
use crate::support::http::Client;
use crate::support::sender::{PATH, SECRET, array_of, session, sign};

const FORGERS: usize = 16;
const MARKER: &str = "forged-marker";

/// The signature header of a forger who has seen a genuine webhook; `None`: no header.
fn signature(number: usize, body: &[u8]) -> Option<String> {
    let right = sign(SECRET, body);
    Some(match number % 10 {
        0 => return None,
        1 => sign("a guess that is not the secret", body),
        2 => sign("", body),
        3 => sign(SECRET, b"[]"),
        4 => right[..right.len() - 1].to_owned(),
        5 => format!("{right}0"),
        6 => right.replace("sha256", "sha1"),
        7 => right["sha256=".len()..].to_owned(),
        8 => format!("{right},{right}"),
        // The right signature with one bit flipped.
        _ => {
            let mut bytes = right.into_bytes();
            let at = 7 + number / 10 % 64;
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            String::from_utf8(bytes).unwrap()
        }
    })
}

fn is_on_disk(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_webhooks_are_not_accepted_or_stored() {
    let bridge = alone().start().await;
    let before = calm(&bridge).await;
    let genuine = Genuine::start(bridge.address());
    let forged = size(3_000, 100_000);
    let next = Arc::new(AtomicUsize::new(0));
    let address = bridge.address();
    let forgers: Vec<_> = (0..FORGERS)
        .map(|_| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut client = Client::new(address);
                let mut refused = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= forged {
                        return refused;
                    }
                    let id = format!("{MARKER}-{number}");
                    let body = array_of(&[session(&id, "created", json!({}))]);
                    let signature = signature(number, &body);
                    let headers: Vec<_> = signature
                        .iter()
                        .map(|signature| ("x-dd-signature", &**signature))
                        .collect();
                    let answer = client.request(Method::POST, PATH, &headers, body).await;
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.status, 401, "{headers:?}");
                    refused += 1;
                }
            })
        })
        .collect();
    let mut refused = 0;
    for forger in forgers {
        refused += forger.await.unwrap();
    }
    let answers = genuine.stop().await;
    answers.report(&format!("{refused} forged webhooks, 0 accepted"), &before);
    assert_eq!(refused, forged);
    let accepted = bridge.status().await["counters"]["accepted"].clone();
    assert_eq!(accepted, before.count() + answers.count());
    let dir = bridge.journal_dir();
    assert!(
        is_on_disk(&dir, "genuine-1"),
        "the search finds a marker that is present"
    );
    assert!(
        !is_on_disk(&dir, MARKER),
        "a marker of a forged webhook is on disk"
    );
    assert!(
        !bridge.stderr().contains(MARKER),
        "a marker of a forged webhook is in the log"
    );
}
