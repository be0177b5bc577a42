//! The manager whom the examples of consumers tell: an HTTP listener that remembers what it is
//! told, and answers, refuses or stays silent as the test says.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::wait::{SOON, eventually};

/// One thing the manager was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    /// Header `Idempotency-Key`.
    pub key: String,
}

/// How the manager takes what contains a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers 200.
    Takes,
    /// Answers 500.
    Refuses,
    /// Says nothing, for as long as the connection lasts.
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
    /// Takes everything.
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

    /// From now on takes what contains `text` in this mood.
    pub fn mood(&self, text: &str, mood: Mood) {
        self.heard.moods.lock().unwrap().push((text.into(), mood));
    }

    /// Everything told that contains `text`, in order, each time it was told.
    pub fn told(&self, text: &str) -> Vec<Told> {
        let all = self.heard.all.lock().unwrap();
        let about = all.iter().filter(|told| told.text.contains(text));
        about.cloned().collect()
    }

    /// The different keys of what was told and contains `text`.
    pub fn keys(&self, text: &str) -> BTreeSet<String> {
        self.told(text).into_iter().map(|told| told.key).collect()
    }

    /// Waits until what contains `text` was told so many times.
    pub async fn is_told(&self, text: &str, times: usize) {
        let what = format!("the manager is told `{text}` {times} times");
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

/// One request, or `None` when the connection has ended.
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
    let text = body["text"].as_str()?.to_owned();
    Some(Told { text, key })
}
