//! Faults of consumers and senders.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Evidence;
use crate::event::{Event, INCOMPLETE};
use crate::ledger::Outcome;
use crate::schedule::{Kind, Planned};
use crate::stage::Stage;
use crate::support::sender::{PATH, sign};

const EVENTS: u32 = 3;

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    match planned.kind {
        Kind::ConsumerKilled => stage.consumers.kill(planned.dice).await,
        _ => leave(stage, planned).await,
    }
}

/// Sends a signed request up to some byte and closes the connection without waiting for the answer.
async fn leave(stage: &Stage, planned: &Planned) -> Evidence {
    let is_whole = planned.dice.is_multiple_of(3);
    let session = stage.desk.new_session() + if is_whole { 0 } else { INCOMPLETE };
    let events: Vec<_> = (1..=EVENTS).map(|seq| Event { session, seq }).collect();
    let body = stage.desk.body(&events);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: bridge\r\nx-dd-signature: {}\r\nContent-Length: {}\r\n\r\n",
        sign(&stage.desk.secret(), &body),
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let length = if is_whole {
        request.len()
    } else {
        usize::try_from(planned.dice >> 8).expect("64 bits") % (request.len() - 1) + 1
    };
    let stream = TcpStream::connect(stage.desk.server()).await;
    let Ok(mut stream) = stream else {
        return Err("nobody listened".into());
    };
    let begin = stage.ledger.now();
    let number = is_whole.then(|| stage.ledger.request(events));
    let sent = stream.write_all(&request[..length]).await;
    if planned.dice.is_multiple_of(2) {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    drop(stream);
    if let Some(number) = number {
        stage.ledger.attempted(number, begin, Outcome::Info);
    }
    sent.map(|()| format!("gone after byte {length} of {}", request.len()))
        .map_err(|error| error.to_string())
}
