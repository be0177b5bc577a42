//! A bad network: a TCP proxy that delays, slows, swallows and cuts on command.

mod pump;
mod rules;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use rules::Direction;
use rules::Shared;

/// A proxy in front of one server, on an address of its own; gone when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens and passes everything on to `server`.
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

    /// Where to connect instead of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every open connection (RST to both sides). New ones are passed on.
    pub fn cut(&self) {
        self.shared.end_all(true);
    }

    /// Closes every open connection (FIN to both sides).
    pub fn close(&self) {
        self.shared.end_all(false);
    }

    /// Resets open connections and every new one, as if nobody listened.
    pub fn refuse(&self) {
        self.shared.change(|rules| rules.refuses = true);
        self.cut();
    }

    /// Reads and drops what comes in this direction, as a dead link would: nobody is told.
    pub fn blackhole(&self, direction: Direction) {
        self.shared
            .change(|rules| rules.way_mut(direction).swallows = true);
    }

    /// Holds what comes in this direction back until [`Proxy::pass`]; nothing gets lost.
    pub fn stall(&self, direction: Direction) {
        self.shared
            .change(|rules| rules.way_mut(direction).stalls = true);
    }

    /// Delays everything in both directions by this much, without making it narrower.
    pub fn delay(&self, delay: Duration) {
        self.shared.change(|rules| {
            rules.up.delay = delay;
            rules.down.delay = delay;
        });
    }

    /// Passes at most this many bytes a second in each direction.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.change(|rules| {
            rules.up.bytes_per_second = Some(bytes_per_second);
            rules.down.bytes_per_second = Some(bytes_per_second);
        });
    }

    /// Passes every byte in a packet of its own.
    pub fn slice(&self) {
        self.shared.change(|rules| {
            rules.up.slices = true;
            rules.down.slices = true;
        });
    }

    /// Resets the first connection that has passed exactly `n` bytes more in this direction than
    /// it has now (a new connection: `n` bytes in all). Once.
    pub fn cut_after_bytes(&self, n: u64, direction: Direction) {
        self.shared.cut_after(n, direction);
    }

    /// Ends every fault. Connections that have lost bytes are reset: they could only say garbage.
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

    /// Bytes passed on so far in this direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes(direction)
    }

    /// Bytes that [`Proxy::blackhole`] has swallowed.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed()
    }

    /// Packets that [`Proxy::slice`] has made.
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
            match TcpStream::connect(server).await {
                Ok(server) if !is_refused => pump::run(client, server, &connection).await,
                _ => pump::reset(&client),
            }
            shared.forget(&connection);
        });
    }
}
