//! One connection of the proxy: two directions, each with a short read-ahead queue, so that a delay
//! does not reduce the throughput.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::rules::{Connection, Direction, End, Rules, Way};

const CHUNK_BYTES: usize = 16 << 10;
const CHUNKS_AHEAD: usize = 64;
const SLICES_PER_SECOND: u64 = 50;

/// Forwards bytes both ways until one side closes or the test ends the connection.
pub(super) async fn run(mut client: TcpStream, mut server: TcpStream, connection: &Connection) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut end = connection.end.subscribe();
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pass(from_client, to_server, Direction::Up, connection);
        let down = pass(from_server, to_client, Direction::Down, connection);
        tokio::select! {
            _ = async { tokio::join!(up, down) } => {}
            _ = end.wait_for(|end| *end != End::NotYet) => {}
        }
    }
    if *end.borrow() == End::Reset {
        reset(&client);
        reset(&server);
    }
}

/// Makes the next close of this socket send an RST.
pub(super) fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn pass(
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    connection: &Connection,
) {
    let (queue, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // The connection to the server was delayed; what was sent with it is not delayed again.
    let mut accepted_at = (direction == Direction::Up).then_some(connection.accepted_at);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let arrived = accepted_at.take().unwrap_or_else(Instant::now);
            if queue
                .send((arrived, buffer[..length].to_vec()))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::join!(reading, write(chunks, to, direction, connection));
}

async fn write(
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    connection: &Connection,
) {
    let mut rules = connection.shared.rules();
    while let Some((arrived, chunk)) = chunks.recv().await {
        let way = when_open(&mut rules, direction).await;
        if way.swallows {
            connection.swallow(chunk.len() as u64);
            continue;
        }
        sleep_until(arrived + way.delay).await;
        let allowed = usize::try_from(connection.allowance(direction)).unwrap_or(usize::MAX);
        let passes = &chunk[..chunk.len().min(allowed)];
        connection.count(direction, passes.len() as u64);
        let written = if way.slices {
            write_in_slices(&mut to, passes, connection).await
        } else {
            write_slowly(&mut to, passes, way.bytes_per_second).await
        };
        if written.is_err() {
            return;
        }
        if connection.allowance(direction) == 0 {
            connection.cut_here();
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits while this direction is stalled.
async fn when_open(rules: &mut watch::Receiver<Rules>, direction: Direction) -> Way {
    match rules.wait_for(|rules| !rules.way(direction).stalls).await {
        Ok(rules) => rules.way(direction).clone(),
        Err(_) => Way::default(),
    }
}

/// Sends one packet per byte, as far as the kernel allows.
async fn write_in_slices(
    to: &mut WriteHalf<'_>,
    bytes: &[u8],
    connection: &Connection,
) -> std::io::Result<()> {
    for byte in bytes.chunks(1) {
        to.write_all(byte).await?;
        connection.shared.count_slice();
    }
    Ok(())
}

async fn write_slowly(
    to: &mut WriteHalf<'_>,
    bytes: &[u8],
    bytes_per_second: Option<u64>,
) -> std::io::Result<()> {
    let Some(rate) = bytes_per_second else {
        return to.write_all(bytes).await;
    };
    let slice_bytes = usize::try_from(rate / SLICES_PER_SECOND)
        .unwrap_or(usize::MAX)
        .max(1);
    for slice in bytes.chunks(slice_bytes) {
        to.write_all(slice).await?;
        let divisor = u32::try_from(rate).unwrap_or(u32::MAX).max(1);
        sleep(Duration::from_secs(slice.len() as u64) / divisor).await;
    }
    Ok(())
}
