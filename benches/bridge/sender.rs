//! A sender that costs little: requests are signed and laid out in memory before the clock starts,
//! answers are only looked at for their status.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::sender::signed_head;

const STATUSES: [&str; 3] = ["created", "handled", "completed"];

/// So many sessions as DeskDirector describes them (about 1 KB each), no two of one id.
pub fn elements(count: usize) -> Vec<Vec<u8>> {
    let sample = include_str!("../../tests/data/completed.json");
    let sample: serde_json::Value = serde_json::from_str(sample).expect("the sample is JSON");
    let round = uuid::Uuid::new_v4().simple();
    (0..count)
        .map(|number| {
            let mut session = sample[0].clone();
            session["id"] = format!("{round}-{number}").into();
            session["status"] = STATUSES[number % STATUSES.len()].into();
            serde_json::to_vec(&session).expect("a session is JSON")
        })
        .collect()
}

/// The same sessions as complete, signed requests with `array` of them each.
pub fn requests(count: usize, array: usize) -> Vec<Vec<u8>> {
    let elements = elements(count);
    elements
        .chunks(array)
        .map(|chunk| {
            let body = [b"[", chunk.join(&b","[..]).as_slice(), b"]"].concat();
            [signed_head(&body).as_bytes(), &body].concat()
        })
        .collect()
}

/// Sends all over so many keep-alive connections; gives the time each answer took.
pub async fn send(server: SocketAddr, requests: Vec<Vec<u8>>, connections: usize) -> Vec<Duration> {
    let requests = Arc::new(Mutex::new(requests));
    let workers: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(work(server, Arc::clone(&requests))))
        .collect();
    let mut answers = Vec::new();
    for worker in workers {
        answers.extend(worker.await.expect("a sender ends well"));
    }
    answers
}

async fn work(server: SocketAddr, requests: Arc<Mutex<Vec<Vec<u8>>>>) -> Vec<Duration> {
    let mut stream = TcpStream::connect(server)
        .await
        .expect("the bridge listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut answers = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let next = requests.lock().expect("no sender panics").pop();
        let Some(request) = next else { return answers };
        let begin = Instant::now();
        stream.write_all(&request).await.expect("sent");
        read_answer(&mut stream, &mut buffer).await;
        answers.push(begin.elapsed());
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await.expect("an answer");
        assert!(read > 0, "the bridge closed the connection");
        length += read;
        // The body is one JSON object, without a brace in any string of a 202 without problems.
        if buffer[..length].ends_with(b"}") {
            break;
        }
    }
    assert!(
        buffer.starts_with(b"HTTP/1.1 202"),
        "{}",
        String::from_utf8_lossy(buffer)
    );
}
