//! The first frame that a broker sends, before the login.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest part of the broker's first frame that is read.
const GREETING_BYTES_MAX: usize = 64 << 10;
/// Bytes of a frame header: type, channel and length.
const FRAME_HEAD_BYTES: usize = 7;

/// Sends the protocol header and reads `connection.start`, which contains the server properties.
pub(super) async fn read(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    stream.flush().await.ok()?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes(head[3..].try_into().ok()?);
    let length = usize::try_from(length).ok()?.min(GREETING_BYTES_MAX);
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame)
}
