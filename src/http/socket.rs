//! The socket under hyper: tells the connection's [`Progress`] what passes, gives the refusals
//! hyper makes itself a body that helps, and lets the last answer be read before it closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::problem;
use super::progress::{Phase, Progress};

/// Bytes discarded at once.
const DISCARD_BYTES: usize = 8 << 10;

/// One accepted connection.
pub(super) struct Socket {
    stream: TcpStream,
    progress: Arc<Progress>,
    refusal: Option<Bytes>,
    is_shut_down: bool,
    discard_bytes_left: u64,
}

impl Socket {
    /// Discards at most so many bytes after the last answer.
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>, discard_bytes_max: u64) -> Self {
        Self {
            stream,
            progress,
            refusal: None,
            is_shut_down: false,
            discard_bytes_left: discard_bytes_max,
        }
    }

    /// Whether hyper answers on its own: no request has begun.
    fn is_refusing(&self) -> bool {
        self.refusal.is_some() || matches!(self.progress.phase(), Phase::Idle | Phase::Head)
    }

    /// Writes our own refusal of the same status instead of hyper's, which has no body.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<()>> {
        if self.refusal.is_none() {
            self.progress.answer_began();
        }
        let refusal = self
            .refusal
            .get_or_insert_with(|| problem::instead_of(head));
        while refusal.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, refusal))?;
            refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on until the peer closes too: closing at once would destroy an answer that is still
    /// on its way to somebody who is still sending.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; DISCARD_BYTES];
        while self.discard_bytes_left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len() as u64;
            if read == 0 {
                break;
            }
            self.discard_bytes_left = self.discard_bytes_left.saturating_sub(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.progress.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

/// Not vectored: answers are small, and hyper then hands over each in one piece.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusing() {
            ready!(self.poll_refuse(cx, bytes))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut_down = true;
            self.progress.linger_began();
        }
        self.poll_discard(cx)
    }
}
