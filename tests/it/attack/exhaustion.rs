//! Attackers that occupy resources: connections, memory for bodies, memory for heads. An attacker
//! reconnects when its connection is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::genuine_sender::{Genuine, alone};
use super::size;
use crate::support::sender::PATH;
use crate::support::wait::{SOON, eventually};

/// The documented limit of a release build; in a debug build some 20 MiB more of code are resident.
const MEMORY_BYTES_MAX: u64 = if cfg!(debug_assertions) {
    84 << 20
} else {
    64 << 20
};

/// Interval between genuine webhooks.
const GENUINE_PAUSE: Duration = Duration::from_millis(100);

/// How long an attacker waits before it reconnects.
const PAUSE: Duration = Duration::from_secs(1);

/// What an attacker sends on each of its connections.
#[derive(Debug, Clone, Copy)]
enum Attack {
    /// A head, and one byte of a body of 100 bytes.
    IdleBody,
    /// A body of 10 MB without its last byte.
    UnfinishedBody,
    /// A head of 30 KB, more than a head may have.
    LargeHead,
    /// The largest head that is allowed, and one byte of a body.
    LargestHead,
}

impl Attack {
    fn head(self) -> String {
        let forged = "0".repeat(64);
        let (fields, length, body) = match self {
            Self::IdleBody => (0, 0, 100),
            Self::UnfinishedBody => (0, 0, 10_000_000),
            Self::LargeHead => (60, 500, 100),
            Self::LargestHead => (95, 150, 100),
        };
        let value = "y".repeat(length);
        let fields = (0..fields).fold(String::new(), |text, number| {
            text + &format!("x-{number}: {value}\r\n")
        });
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: stranger\r\nx-dd-signature: sha256={forged}\r\n\
             {fields}content-length: {body}\r\n\r\n"
        )
    }

    fn body_bytes(self) -> usize {
        match self {
            Self::UnfinishedBody => 9_999_999,
            Self::IdleBody | Self::LargeHead | Self::LargestHead => 1,
        }
    }
}

/// Sends this, stays until the connection is closed, and reconnects.
async fn attack(bridge: SocketAddr, attack: Attack, connections: Arc<AtomicUsize>) {
    let head = attack.head();
    let piece = vec![b' '; 64 << 10];
    loop {
        if let Ok(mut stream) = TcpStream::connect(bridge).await {
            connections.fetch_add(1, Ordering::Relaxed);
            let mut is_open = stream.write_all(head.as_bytes()).await.is_ok();
            let mut left = attack.body_bytes();
            while is_open && left > 0 {
                let length = left.min(piece.len());
                is_open = stream.write_all(&piece[..length]).await.is_ok();
                left -= length;
            }
            let mut answer = [0; 512];
            while matches!(stream.read(&mut answer).await, Ok(read) if read > 0) {}
        }
        sleep(PAUSE).await;
    }
}

/// Sends genuine webhooks during these attacks, with the default configuration.
async fn check(name: &str, crowd: &[(Attack, usize)]) {
    let bridge = alone().start().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let mut attackers = JoinSet::new();
    for (kind, number) in crowd {
        for _ in 0..*number {
            attackers.spawn(attack(bridge.address(), *kind, Arc::clone(&connections)));
        }
    }
    let number = attackers.len();
    eventually("all attackers are connected", SOON, || async {
        connections.load(Ordering::Relaxed) >= number
    })
    .await;
    let genuine = Genuine::every(GENUINE_PAUSE, bridge.address());
    genuine.goes_on(25, Duration::from_mins(2)).await;
    let answers = genuine.stop().await;
    let during = bridge.rss_bytes();
    attackers.shutdown().await;
    sleep(size(Duration::ZERO, Duration::from_secs(5))).await;
    let (after, most) = (bridge.rss_bytes(), bridge.rss_bytes_max());
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "flood: {name}: {} attackers, {} connections; {} genuine webhooks, all 202; p99 {:.1?}, \
         the slowest {:.1?}; {} MiB during it, {} MiB at most, {} MiB afterwards",
        number,
        connections.load(Ordering::Relaxed),
        answers.count(),
        answers.p99(),
        answers.slowest(),
        mib(during),
        mib(most),
        mib(after)
    );
    assert!(answers.count() >= size(10, 500), "{}", answers.count());
    // Generous for a debug build that shares its CPUs with other tests.
    let p99_max = size(Duration::from_secs(2), Duration::from_millis(250));
    let slowest_max = size(Duration::from_secs(5), Duration::from_secs(1));
    assert!(answers.p99() <= p99_max, "p99 {:?}", answers.p99());
    assert!(answers.slowest() <= slowest_max, "{:?}", answers.slowest());
    assert!(most <= MEMORY_BYTES_MAX, "{} MiB", mib(most));
    let again = timeout(SOON, bridge.post("[]")).await;
    assert_eq!(again.expect("an answer").status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn occupied_resources_delay_no_webhook() {
    let single = [
        ("idle bodies", (Attack::IdleBody, 1100)),
        ("unfinished bodies", (Attack::UnfinishedBody, 4)),
        ("heads of 30 KB", (Attack::LargeHead, 1020)),
    ];
    check(
        "idle bodies, unfinished bodies and heads of 30 KB",
        &single.map(|(_, crowd)| crowd),
    )
    .await;
    check("heads of 16 KB", &[(Attack::LargestHead, 1020)]).await;
    for (name, crowd) in size(&single[..0], &single[..]) {
        check(name, &[*crowd]).await;
    }
}
