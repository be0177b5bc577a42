//! Lets lapin read messages with large headers. `RabbitMQ` sends the headers of a message in one
//! frame even if they exceed the negotiated `frame_max`: the `x-death` that it adds can make them
//! larger than any client could publish. lapin closes a connection that receives such a frame.
//! Therefore the stream passes through a relay in this process. The relay announces a larger
//! `frame_max` to lapin, and answers the broker with the `frame_max` that the broker offered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::TcpListener;

/// `frame_max` that is announced to lapin: twice `RabbitMQ`'s default, which leaves room for
/// 128 KiB of death history. lapin keeps buffers of 32 such frames.
pub(super) const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Bytes of a frame header: type, channel and length.
const HEAD_BYTES: usize = 7;
/// Bytes of the protocol header that the client sends before its first frame.
const GREETING_BYTES: usize = 8;
/// Handshake frames are small; a larger frame does not belong to the handshake.
const HANDSHAKE_BYTES_MAX: usize = 128 << 10;
/// Class and method of `connection.tune` and `connection.tune-ok`.
const TUNE: [u8; 4] = [0, 10, 0, 30];
const TUNE_OK: [u8; 4] = [0, 10, 0, 31];
/// Offset of `frame_max` in both methods: after class, method and `channel_max`.
const FRAME_MAX_AT: usize = 6;
/// Frame type of a method frame.
const METHOD: u8 = 1;

/// Listens on a loopback port, returns its address, and relays the first connection to `broker`.
/// The relay ends when either side closes.
pub(super) async fn start(
    broker: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        // Another local process that connects before lapin gains nothing but the broker's greeting:
        // the client sends the credentials.
        if let Ok((client, _)) = listener.accept().await {
            drop(listener);
            // Both sides see the connection end; the error adds nothing.
            let _ = client.set_nodelay(true);
            let _ = relay(broker, client).await;
        }
    });
    Ok(address)
}

async fn relay(
    broker: impl AsyncRead + AsyncWrite,
    client: impl AsyncRead + AsyncWrite,
) -> io::Result<()> {
    let offered = AtomicU32::new(0);
    let (mut from_broker, mut to_broker) = split(broker);
    let (mut from_client, mut to_client) = split(client);
    let down = async {
        let replaced = |frame_max| {
            offered.store(frame_max, Ordering::Relaxed);
            FRAME_BYTES_MAX
        };
        pass_until(&mut from_broker, &mut to_client, TUNE, replaced).await?;
        copy(&mut from_broker, &mut to_client).await
    };
    let up = async {
        let mut greeting = [0; GREETING_BYTES];
        from_client.read_exact(&mut greeting).await?;
        to_broker.write_all(&greeting).await?;
        to_broker.flush().await?;
        let replaced = |_| offered.load(Ordering::Relaxed);
        pass_until(&mut from_client, &mut to_broker, TUNE_OK, replaced).await?;
        copy(&mut from_client, &mut to_broker).await
    };
    tokio::select! {
        ended = down => ended.map(drop),
        ended = up => ended.map(drop),
    }
}

/// Forwards frames up to and including the first one of `method`, in which it replaces `frame_max`.
/// Stops earlier at a frame that does not look like part of a handshake.
async fn pass_until(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    method: [u8; 4],
    replaced: impl Fn(u32) -> u32,
) -> io::Result<()> {
    loop {
        let mut frame = vec![0; HEAD_BYTES];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes(frame[3..].try_into().expect("four bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut is_last = true;
        if frame[0] == METHOD && length < HANDSHAKE_BYTES_MAX {
            // The length does not include the frame-end octet.
            frame.resize(HEAD_BYTES + length + 1, 0);
            from.read_exact(&mut frame[HEAD_BYTES..]).await?;
            let payload = &mut frame[HEAD_BYTES..];
            is_last = payload.starts_with(&method);
            if is_last && let Some(value) = payload.get_mut(FRAME_MAX_AT..FRAME_MAX_AT + 4) {
                let old = u32::from_be_bytes((&*value).try_into().expect("four bytes"));
                value.copy_from_slice(&replaced(old).to_be_bytes());
            }
        }
        to.write_all(&frame).await?;
        to.flush().await?;
        if is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[METHOD, 0, 0][..], &length, payload, &[0xce]].concat()
    }

    fn tune(method: [u8; 4], frame_max: u32) -> Vec<u8> {
        frame(&[&method[..], &[7, 255], &frame_max.to_be_bytes(), &[0, 60]].concat())
    }

    #[tokio::test]
    async fn frame_limits_are_reported_to_each_side() {
        let (broker, mut broker_end) = tokio::io::duplex(1 << 20);
        let (client, mut client_end) = tokio::io::duplex(1 << 20);
        let relay = tokio::spawn(relay(broker, client));
        let start = frame(&[0, 10, 0, 10, 1, 2, 3]);
        client_end.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        let said = [start.clone(), tune(TUNE, 131_072), b"rest".to_vec()].concat();
        broker_end.write_all(&said).await.unwrap();
        let mut seen = vec![0; said.len()];
        client_end.read_exact(&mut seen).await.unwrap();
        let expected = [start, tune(TUNE, FRAME_BYTES_MAX), b"rest".to_vec()].concat();
        assert_eq!(seen, expected);
        let said = [tune(TUNE_OK, FRAME_BYTES_MAX), b"more".to_vec()].concat();
        client_end.write_all(&said).await.unwrap();
        let mut seen = vec![0; GREETING_BYTES + said.len()];
        broker_end.read_exact(&mut seen).await.unwrap();
        let expected = [tune(TUNE_OK, 131_072), b"more".to_vec()].concat();
        assert_eq!(seen[GREETING_BYTES..], expected);
        drop(client_end);
        relay.await.unwrap().unwrap();
    }
}
