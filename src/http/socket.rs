//! The socket under hyper: tells the connection's [`Progress`] what passes, gives the refusals
//! hyper makes itself a body that helps, and hands the stream back after the last answer instead of
//! closing it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::problem;
use super::progress::{Phase, Progress};
use super::refused::Peer;

/// Bytes discarded at once.
const DISCARD_BYTES: usize = 8 << 10;

/// One accepted connection.
pub(super) struct Socket {
    /// Until it is shut down.
    stream: Option<TcpStream>,
    shut_down: Option<oneshot::Sender<TcpStream>>,
    progress: Arc<Progress>,
    peer: Arc<Peer>,
    refusal: Option<Bytes>,
}

impl Socket {
    /// Sends the stream back once it is shut down for writing.
    pub(super) fn new(
        stream: TcpStream,
        shut_down: oneshot::Sender<TcpStream>,
        progress: Arc<Progress>,
        peer: Arc<Peer>,
    ) -> Self {
        Self {
            stream: Some(stream),
            shut_down: Some(shut_down),
            progress,
            peer,
            refusal: None,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Whether hyper answers on its own: no request has begun.
    fn is_refusing(&self) -> bool {
        self.refusal.is_some() || matches!(self.progress.phase(), Phase::Idle | Phase::Head)
    }

    /// Writes our own refusal of the same status instead of hyper's, which has no body.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<()>> {
        if self.refusal.is_none() {
            self.progress.answer_began();
            let status = problem::status_of(head);
            self.peer.refused_by_parser(status.as_u16());
        }
        let refusal = self
            .refusal
            .get_or_insert_with(|| problem::instead_of(head));
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        while refusal.has_remaining() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, refusal))?;
            refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads on until the peer closes too, at most so many bytes: closing at once would destroy an
/// answer that is still on its way to somebody who is still sending.
pub(super) async fn discard(mut stream: TcpStream, bytes_max: u64) {
    let mut left = bytes_max;
    std::future::poll_fn(|cx| {
        let mut bytes = [0; DISCARD_BYTES];
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer));
            let read = read.map_or(0, |()| buffer.filled().len() as u64);
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        Poll::Ready(())
    })
    .await;
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream()?.poll_read(cx, buffer))?;
        let arrived = buffer.filled().len() - before;
        if arrived > 0 {
            let phase = self.progress.phase();
            if matches!(phase, Phase::Idle | Phase::Head) {
                let bytes = &buffer.filled()[before..];
                self.peer.head_arrived(bytes, phase == Phase::Idle);
            }
            self.progress.bytes_arrived(arrived);
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
        let written = ready!(self.stream()?.poll_write(cx, bytes))?;
        self.progress.bytes_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_flush(cx))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_some() {
            ready!(self.stream()?.poll_shutdown(cx))?;
            self.progress.linger_began();
            if let (Some(stream), Some(shut_down)) = (self.stream.take(), self.shut_down.take()) {
                _ = shut_down.send(stream);
            }
        }
        Poll::Ready(Ok(()))
    }
}
