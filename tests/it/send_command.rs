//! `send` and `health` against a listener that records requests and sends a given answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use assert_cmd::Command;
use deskbridge::webhook::signature::sign;
use serde_json::Value;

const SECRET: &str = "0123456789abcdef";

/// Sessions that `send` posts: the events of many sessions, from created to completed.
pub fn simulated_sessions() -> Vec<Value> {
    let listener = Listener::answering("202 Accepted", "{}");
    let output = listener.deskbridge(
        "send --count 100 --array 3 --sessions 20 --seed 7 --connections 1",
        b"",
    );
    assert!(output.status.success(), "{output:?}");
    let bodies = listener.requests().into_iter();
    let webhooks = bodies.map(|request| serde_json::from_slice(&request.body).unwrap());
    webhooks.flat_map(|webhook: Vec<Value>| webhook).collect()
}

/// One received request.
#[derive(Clone)]
struct Request {
    connection: usize,
    line: String,
    signature: Option<String>,
    body: Vec<u8>,
}

/// Answers every request with the same status; ends with the process.
struct Listener {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Listener {
    fn answering(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let recorded = Arc::clone(&requests);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let recorded = Arc::clone(&recorded);
                thread::spawn(move || serve(connection, stream.unwrap(), &recorded, status, body));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn deskbridge(&self, line: &str, input: &[u8]) -> Output {
        let mut command = Command::cargo_bin("deskbridge").unwrap();
        command
            .args(line.split_whitespace())
            .env_clear()
            .env("DESKBRIDGE__HTTP__LISTEN", self.address.to_string())
            .env(
                "DESKBRIDGE__ADMIN__LISTEN",
                format!("0.0.0.0:{}", self.address.port()),
            )
            .env("DESKBRIDGE__SOURCES__DD__SECRETS", SECRET)
            .write_stdin(input)
            .output()
            .unwrap()
    }
}

fn serve(
    connection: usize,
    mut stream: TcpStream,
    recorded: &Mutex<Vec<Request>>,
    status: &str,
    body: &str,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(connection, &mut reader) {
        recorded.lock().unwrap().push(request);
        let length = body.len();
        // Written at once: a second small write would wait for the acknowledgement of the first
        // (Nagle's algorithm).
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

fn read(connection: usize, reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|bytes| *bytes > 0)?;
    let mut request = Request {
        connection,
        line: line.trim().to_owned(),
        signature: None,
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("x-dd-signature", value)) => request.signature = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn files_and_stdin_are_posted_unchanged_and_signed() {
    let listener = Listener::answering("202 Accepted", "{\"accepted\":1}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("webhook.json");
    std::fs::write(&file, "\u{feff}[ {\"id\": 1} ]\n").unwrap();
    let output = listener.deskbridge(&format!("send {} -", file.display()), b"not json\xff");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let requests = listener.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].line, "POST /webhooks/dd HTTP/1.1");
    assert_eq!(requests[0].body, "\u{feff}[ {\"id\": 1} ]\n".as_bytes());
    assert_eq!(requests[1].body, b"not json\xff");
    for request in requests {
        assert_eq!(
            request.signature,
            Some(sign(SECRET.as_bytes(), &request.body))
        );
    }
    assert!(text(&output.stdout).contains("webhook.json: 202 Accepted\n{\"accepted\":1}\n"));
}

#[test]
fn url_and_secret_replace_a_source() {
    let listener = Listener::answering("202 Accepted", "{}");
    let mut command = Command::cargo_bin("deskbridge").unwrap();
    let url = format!("http://{}/webhooks/other", listener.address);
    command
        .env_clear()
        .args(["send", "--secret", "any", "--url", &url])
        .write_stdin("[]");
    assert!(command.output().unwrap().status.success());
    let request = listener.requests().pop().unwrap();
    assert_eq!(request.line, "POST /webhooks/other HTTP/1.1");
    assert_eq!(request.signature, Some(sign(b"any", b"[]")));
}

#[test]
fn refusal_is_printed_with_exit_1() {
    let listener = Listener::answering("401 Unauthorized", "{\"detail\":\"no\"}");
    let output = listener.deskbridge("send --json -", b"[]");
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        line,
        serde_json::json!({ "file": "-", "status": 401, "answer": { "detail": "no" } })
    );
    let output = listener.deskbridge("send --count 3 --json", b"");
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["answers"], serde_json::json!({ "401": 3 }));
    assert_eq!(summary["sessions_accepted"], 0);
}

#[test]
fn simulation_posts_the_count_in_order() {
    let listener = Listener::answering("202 Accepted", "{}");
    let output = listener.deskbridge(
        "send --count 200 --array 3 --sessions 12 --connections 4 --seed 5 --json",
        b"",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["answers"], serde_json::json!({ "202": 200 }));
    assert_eq!(summary["sessions_accepted"], 600);
    let requests = listener.requests();
    assert_eq!(requests.len(), 200);
    let connections = requests
        .iter()
        .map(|request| request.connection)
        .max()
        .unwrap()
        + 1;
    assert!(
        connections <= 8,
        "{connections} connections for 200 requests"
    );
    let mut lives = std::collections::BTreeMap::<String, usize>::new();
    for request in &requests {
        assert_eq!(
            request.signature,
            Some(sign(SECRET.as_bytes(), &request.body))
        );
        let sessions: Vec<Value> = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sessions.len(), 3);
        for session in sessions {
            let steps = lives
                .entry(session["id"].as_str().unwrap().to_owned())
                .or_default();
            assert_eq!(
                session["pastStatus"].as_array().unwrap().len(),
                *steps,
                "{session}"
            );
            *steps += 1;
        }
    }
}

#[test]
fn seed_determines_the_posted_bytes() {
    let posted = |seed| {
        let listener = Listener::answering("202 Accepted", "{}");
        let line = format!(
            "send --count 90 --array 2 --sessions 9 --connections 3 --resend 20 --seed {seed}"
        );
        let output = listener.deskbridge(&line, b"");
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).contains("90 webhooks in "));
        let requests = listener.requests().into_iter();
        let mut posted: Vec<_> = requests
            .map(|request| (request.signature, request.body))
            .collect();
        posted.sort();
        posted
    };
    let first = posted(5);
    assert_eq!(first.len(), 90);
    assert_eq!(posted(5), first);
    assert_ne!(posted(6), first);
}

#[test]
fn new_and_changed_sessions_use_separate_secrets() {
    let listener = Listener::answering("202 Accepted", "{}");
    let secrets = ["secret-of-new-sessions", "secret-of-changes"];
    let command = |arguments: &[&str]| {
        let mut command = Command::cargo_bin("deskbridge").unwrap();
        command
            .env_clear()
            .args(["send", "--count", "60", "--array", "3", "--sessions", "6"])
            .args(arguments)
            .env("DESKBRIDGE__HTTP__LISTEN", listener.address.to_string())
            .env("DESKBRIDGE__SOURCES__DD__SECRETS", secrets.join(","))
            .output()
            .unwrap()
    };
    let url = format!("http://{}/webhooks/dd", listener.address);
    let given = [
        "--url", &url, "--secret", secrets[0], "--secret", secrets[1],
    ];
    for arguments in [&[][..], &given] {
        listener.requests.lock().unwrap().clear();
        assert!(command(arguments).status.success());
        let mut posts = [0, 0];
        for request in listener.requests() {
            let sessions: Vec<Value> = serde_json::from_slice(&request.body).unwrap();
            let is_new = sessions[0]["status"] == "created";
            assert!(
                sessions
                    .iter()
                    .all(|session| (session["status"] == "created") == is_new)
            );
            let secret = secrets[usize::from(!is_new)];
            assert_eq!(
                request.signature,
                Some(sign(secret.as_bytes(), &request.body))
            );
            posts[usize::from(!is_new)] += 1;
        }
        assert!(posts.iter().all(|count| *count > 5), "{posts:?}");
    }
}

#[test]
fn failed_delivery_pauses_its_webhook() {
    let listener = Listener::answering("503 Service Unavailable", "{}");
    let line = "send --count 40 --rate 40 --sessions 40 --connections 1 --pause-rule --json";
    let output = listener.deskbridge(line, b"");
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    // One failure of each webhook; then both are paused for half an hour.
    assert_eq!(summary["pauses"], 2, "{summary}");
    assert_eq!(summary["answers"], serde_json::json!({ "503": 2 }));
    assert_eq!(listener.requests().len(), 2);
    assert_eq!(
        summary["lost_in_pauses"],
        serde_json::json!({ "webhooks": 38, "sessions": 38 })
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("New Chat Session is paused for 30m: 503"),
        "{said}"
    );
    assert!(
        said.contains("Chat Session Status Changed is paused for 30m: 503"),
        "{said}"
    );

    // A short pause ends, and then the next delivery is attempted.
    let line = "send --count 40 --rate 40 --sessions 1 --connections 1 --pause-rule 100ms --json";
    let output = listener.deskbridge(line, b"");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pauses = summary["pauses"].as_u64().unwrap();
    assert!((3..=20).contains(&pauses), "{summary}");
    assert_eq!(summary["answers"]["503"], pauses);

    let output = listener.deskbridge("send --count 4 --pause-rule", b"");
    assert_eq!(output.status.code(), Some(2), "--pause-rule needs a rate");
}

#[test]
fn ramp_rises_over_the_whole_count() {
    let listener = Listener::answering("202 Accepted", "{}");
    let begin = std::time::Instant::now();
    let line = "send --count 60 --rate 10..110 --connections 4 --json";
    let output = listener.deskbridge(line, b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    // One second in all, at a mean rate of 60 per second; the last delivery is due a hundredth of a
    // second before the end.
    assert!(begin.elapsed().as_millis() >= 980, "{:?}", begin.elapsed());
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["answers"], serde_json::json!({ "202": 60 }));
    let latencies = &summary["latency_ms"];
    let within: Vec<_> = ["p50", "p90", "p99", "p99.9", "max"]
        .map(|share| latencies[share].as_f64().unwrap())
        .into();
    assert!(within.is_sorted(), "{latencies}");
    assert_eq!(
        listener.deskbridge("send --rate 5..x", b"").status.code(),
        Some(2)
    );
}

#[test]
fn health_prints_the_reasons_of_readyz() {
    let ready = Listener::answering("200 OK", "ready\n");
    assert_eq!(ready.deskbridge("health", b"").status.code(), Some(0));
    assert_eq!(ready.requests()[0].line, "GET /readyz HTTP/1.1");
    let not_ready = Listener::answering(
        "503 Service Unavailable",
        "{\"detail\":\"the journal is full\"}",
    );
    let output = not_ready.deskbridge("health", b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "not ready: the journal is full (503 Service Unavailable)\n"
    );
}
