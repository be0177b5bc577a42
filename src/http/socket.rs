//! The socket under hyper. Reports traffic to the state of the connection, and adds a helpful body
//! to refusals that hyper sends by itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use super::problem;
use super::progress::Phase;
use super::refused::Peer;

/// Size of the buffer for bytes that are discarded.
const DISCARD_BYTES: usize = 8 << 10;

/// One accepted connection.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    peer: Arc<Peer>,
    refusal: Option<Bytes>,
}

impl Socket {
    /// Wraps the stream of one connection.
    pub(super) fn new(stream: TcpStream, peer: Arc<Peer>) -> Self {
        Self {
            stream,
            peer,
            refusal: None,
        }
    }

    /// Whether hyper answers by itself, because no request has begun.
    fn is_refusing(&self) -> bool {
        self.refusal.is_some() || matches!(self.peer.progress.phase(), Phase::Idle | Phase::Head)
    }

    /// Writes a refusal of the same status instead of hyper's, which has no body.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<()>> {
        if self.refusal.is_none() {
            self.peer.progress.answer_began();
            let status = problem::status_of(head);
            self.peer.refused_by_parser(status.as_u16());
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
}

/// Reads until the peer closes, too, at most `bytes_max` bytes. If the socket were closed while the
/// peer is still sending, the reset could destroy the answer that is still on its way.
pub(super) async fn discard(stream: TcpStream, bytes_max: u64) {
    let mut left = bytes_max;
    while left > 0 && stream.readable().await.is_ok() {
        consume_budget().await;
        // The buffer is on the stack: a connection that waits takes no memory for it.
        left = match stream.try_read(&mut [0; DISCARD_BYTES]) {
            Ok(read) if read > 0 => left.saturating_sub(read as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => left,
            _ => return,
        };
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
        let arrived = buffer.filled().len() - before;
        if arrived > 0 {
            let phase = self.peer.progress.phase();
            if matches!(phase, Phase::Idle | Phase::Head) {
                let bytes = &buffer.filled()[before..];
                self.peer.head_arrived(bytes, phase == Phase::Idle);
            }
            self.peer.progress.bytes_arrived(arrived);
        }
        Poll::Ready(Ok(()))
    }
}

/// Without vectored writes: answers are small, and hyper then passes each in one piece.
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
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.peer.progress.bytes_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.peer.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.peer.progress.linger_began();
        Poll::Ready(Ok(()))
    }
}
