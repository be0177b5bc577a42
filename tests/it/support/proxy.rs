//! A faulty network: a TCP proxy that delays, throttles, drops and cuts on command.

mod pump;
mod rules;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use rules::Direction;
use rules::Shared;

/// A proxy in front of one server, on its own address; gone when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens and forwards everything to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// The address to connect to instead of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every open connection (RST to both sides). New connections are forwarded.
    pub fn cut(&self) {
        self.shared.end_all(true);
    }

    /// Closes every open connection (FIN to both sides).
    pub fn close(&self) {
        self.shared.end_all(false);
    }

    /// Resets open connections and every new connection, as if nobody listened.
    pub fn refuse(&self) {
        self.shared.change(|rules| rules.refuses = true);
        self.cut();
    }

    /// Reads and drops all bytes of this direction, as a dead link would: neither side is notified.
    pub fn blackhole(&self, direction: Direction) {
        self.shared
            .change(|rules| rules.way_mut(direction).swallows = true);
    }

    /// Holds back all bytes of this direction until [`Proxy::pass`]; none is lost.
    pub fn stall(&self, direction: Direction) {
        self.shared
            .change(|rules| rules.way_mut(direction).stalls = true);
    }

    /// Adds this delay in both directions without reducing the throughput.
    pub fn delay(&self, delay: Duration) {
        self.shared.change(|rules| {
            rules.up.delay = delay;
            rules.down.delay = delay;
        });
    }

    /// Limits each direction to this number of bytes per second.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.change(|rules| {
            rules.up.bytes_per_second = Some(bytes_per_second);
            rules.down.bytes_per_second = Some(bytes_per_second);
        });
    }

    /// Forwards each byte in a packet of its own.
    pub fn slice(&self) {
        self.shared.change(|rules| {
            rules.up.slices = true;
            rules.down.slices = true;
        });
    }

    /// Resets, once, the first connection that forwards exactly `n` more bytes in this direction
    /// (for a new connection: its first `n` bytes).
    pub fn cut_after_bytes(&self, n: u64, direction: Direction) {
        self.shared.cut_after(n, direction);
    }

    /// Ends all faults. Connections that have lost bytes are reset, because their streams are
    /// corrupt.
    pub fn pass(&self) {
        self.shared.heal();
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted()
    }

    /// Connections open now.
    pub fn connections_open(&self) -> usize {
        self.shared.open()
    }

    /// Bytes forwarded so far in this direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes(direction)
    }

    /// Bytes that [`Proxy::blackhole`] has dropped.
    #[allow(dead_code, reason = "the chaos campaign uses it")]
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed()
    }

    /// Packets that [`Proxy::slice`] has sent.
    #[allow(dead_code, reason = "the chaos campaign uses it")]
    pub fn slices(&self) -> u64 {
        self.shared.slices()
    }

    /// How many connections [`Proxy::cut_after_bytes`] has cut.
    pub fn cuts(&self) -> usize {
        self.shared.cuts()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let connection = shared.register();
        let is_refused = shared.refuses();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // The server accepts a connection when its first bytes can follow at once.
            let delay = shared.rules().borrow().up.delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match TcpStream::connect(server).await {
                Ok(server) if !is_refused => pump::run(client, server, &connection).await,
                _ => pump::reset(&client),
            }
            shared.forget(&connection);
        });
    }
}
