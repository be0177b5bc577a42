//! The manager whom the example consumers notify: an HTTP listener that records notifications and
//! answers, refuses or stays silent, as the test chooses.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::wait::{SOON, eventually};

/// One notification that the manager received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    /// Whether it is an Adaptive Card, as Teams accepts it.
    pub is_card: bool,
    /// Header `Idempotency-Key`.
    pub key: String,
}

/// How the manager answers a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers 200.
    Takes,
    /// Answers 500.
    Refuses,
    /// Does not answer while the connection lasts.
    Silent,
}

/// Listens until the process ends.
pub struct Manager {
    pub url: String,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    all: Mutex<Vec<Told>>,
    moods: Mutex<Vec<(String, Mood)>>,
}

impl Manager {
    /// A manager that answers 200 to everything.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/tell", listener.local_addr().unwrap());
        let heard = Arc::<Heard>::default();
        let ear = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let ear = Arc::clone(&ear);
                thread::spawn(move || ear.serve(stream.unwrap()));
            }
        });
        Self { url, heard }
    }

    /// From now on handles notifications that contain `text` in this way.
    pub fn mood(&self, text: &str, mood: Mood) {
        self.heard.moods.lock().unwrap().push((text.into(), mood));
    }

    /// All received notifications that contain `text`, in order, repetitions included.
    pub fn told(&self, text: &str) -> Vec<Told> {
        let all = self.heard.all.lock().unwrap();
        let about = all.iter().filter(|told| told.text.contains(text));
        about.cloned().collect()
    }

    /// The distinct idempotency keys of the notifications that contain `text`.
    pub fn keys(&self, text: &str) -> BTreeSet<String> {
        self.told(text).into_iter().map(|told| told.key).collect()
    }

    /// Waits until notifications that contain `text` were received `times` times.
    pub async fn is_told(&self, text: &str, times: usize) {
        let what = format!("the manager is notified of `{text}` {times} times");
        eventually(&what, SOON * 2, || async { self.told(text).len() >= times }).await;
    }
}

impl Heard {
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(told) = read(&mut reader) {
            let moods = self.moods.lock().unwrap().clone();
            let mood = moods
                .iter()
                .rev()
                .find(|(text, _)| told.text.contains(text));
            let mood = mood.map_or(Mood::Takes, |(_, mood)| *mood);
            self.all.lock().unwrap().push(told);
            let status = match mood {
                Mood::Takes => "200 OK",
                Mood::Refuses => "500 Internal Server Error",
                Mood::Silent => continue,
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Reads one request; `None` if the connection has ended.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Told> {
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => value.trim().clone_into(&mut key),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let card = &body["attachments"][0];
    let is_card = body["type"] == "message"
        && card["contentType"] == "application/vnd.microsoft.card.adaptive"
        && card["content"]["type"] == "AdaptiveCard";
    let text = if is_card {
        &card["content"]["body"][0]["text"]
    } else {
        &body["text"]
    };
    let text = text.as_str()?.to_owned();
    Some(Told { text, is_card, key })
}
