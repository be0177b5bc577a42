//! The part of DeskDirector: bodies, signatures, and a raw socket for requests that a client
//! library would refuse to send.

use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The secret of the source `deskdirector` in every test's configuration.
pub const SECRET: &str = "a-secret-for-tests-only";

/// The path that the source posts to.
pub const PATH: &str = "/webhooks/deskdirector";

/// The header value `sha256=<hex>` for a body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!(
        "sha256={}",
        HEXLOWER.encode(hmac::sign(&key, body).as_ref())
    )
}

/// One chat session with the fields DeskDirector sends, overridden by `extra`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "`json!` reads better without a reference at every call"
)]
pub fn session(id: &str, status: &str, extra: Value) -> Value {
    let mut session = json!({
        "id": id,
        "type": "request",
        "name": "A printer that does not print",
        "status": status,
        "pastStatus": ["created"],
        "createdDateTime": "2026-02-03T04:05:06.1234567Z",
        "creator": {"userId": "nzlancomdev~c~11220", "company": {"identifier": "ACME"}},
    });
    for (name, value) in extra.as_object().into_iter().flatten() {
        session[name] = value.clone();
    }
    session
}

/// The body of a webhook with these sessions.
pub fn array_of(sessions: &[Value]) -> Vec<u8> {
    serde_json::to_vec(sessions).unwrap()
}

/// The body of a webhook with `n` created sessions, `<prefix>-0` and so on.
pub fn array_of_new(prefix: &str, n: usize) -> Vec<u8> {
    let sessions: Vec<_> = (0..n)
        .map(|index| {
            session(
                &format!("{prefix}-{index}"),
                "created",
                json!({"pastStatus": []}),
            )
        })
        .collect();
    array_of(&sessions)
}

/// The head of a signed request for this body, including the empty line at its end.
pub fn signed_head(body: &[u8]) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: bridge\r\nContent-Type: application/json\r\n\
         x-dd-signature: {}\r\nContent-Length: {}\r\n\r\n",
        sign(SECRET, body),
        body.len()
    )
}

/// A socket that sends exactly the given bytes.
pub struct RawClient {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as it was on the wire.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The value of a header; the case of its name does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON; panics if it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl RawClient {
    pub async fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server)
            .await
            .expect("the bridge listens");
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes these bytes; ignores an error (the other side closed), since the answer shows the
    /// result.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Closes the sending direction.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads the next response (an interim 1xx counts as a response), or `None` if the connection
    /// closed before one was complete. Panics after 40 s.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        loop {
            if let Some(answer) = self.take_answer() {
                return Some(answer);
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Whether the other side closes within `deadline`; received bytes are dropped.
    pub async fn is_closed_within(&mut self, deadline: Duration) -> bool {
        let until_closed = async { while self.read_more().await {} };
        tokio::time::timeout(deadline, until_closed).await.is_ok()
    }

    /// Reads until the other side closes; returns all unread bytes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.unread)
    }

    async fn read_more(&mut self) -> bool {
        let mut chunk = vec![0; 16 << 10];
        let read = tokio::time::timeout(Duration::from_secs(40), self.stream.read(&mut chunk))
            .await
            .expect("the bridge answers or closes within 40 s");
        let length = read.unwrap_or(0);
        self.unread.extend_from_slice(&chunk[..length]);
        length > 0
    }

    fn take_answer(&mut self) -> Option<RawAnswer> {
        let head_length = self
            .unread
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?
            + 4;
        let head = String::from_utf8_lossy(&self.unread[..head_length]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = RawAnswer {
            status,
            head,
            body: Vec::new(),
        };
        let body_length: usize = answer
            .header("content-length")
            .map_or(0, |value| value.parse().unwrap());
        if self.unread.len() < head_length + body_length {
            return None;
        }
        answer.body = self.unread[head_length..head_length + body_length].to_vec();
        self.unread.drain(..head_length + body_length);
        Some(answer)
    }
}
