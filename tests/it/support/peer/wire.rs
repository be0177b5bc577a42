//! Reads and writes frames on a socket and resets it at an exact byte. Knows nothing of their
//! meaning.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Shared, Way};

/// Length of the protocol header (`AMQP` and the version), and of a frame header (type, channel,
/// length).
const HELLO_BYTES: usize = 8;
const FRAME_HEAD_BYTES: usize = 7;

/// The connection has ended, whichever side ended it.
pub(super) struct Ended;

/// The socket of one connection.
pub(super) struct Wire {
    socket: TcpStream,
    unread: Vec<u8>,
    shared: Arc<Shared>,
    is_first: bool,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, shared: Arc<Shared>, is_first: bool) -> Self {
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            unread: Vec::new(),
            shared,
            is_first,
        }
    }

    /// Reads the next complete frame.
    pub(super) async fn read(&mut self) -> Result<AMQPFrame, Ended> {
        loop {
            if let Some(length) = frame_length(&self.unread) {
                let bytes: Vec<_> = self.unread.drain(..length).collect();
                let (_, frame) =
                    parse_frame(bytes.as_slice()).expect("the client's frames are good");
                return Ok(frame);
            }
            let mut chunk = [0; 4096];
            let room = self.room(Way::In).min(chunk.len());
            // Complete frames count as received: they are answered before the connection is cut.
            if room == 0 {
                return Err(self.cut());
            }
            let read = self.socket.read(&mut chunk[..room]).await;
            let length = read.ok().filter(|&read| read > 0).ok_or(Ended)?;
            self.unread.extend_from_slice(&chunk[..length]);
            self.passed(Way::In, length);
        }
    }

    pub(super) async fn write(&mut self, frame: &AMQPFrame) -> Result<(), Ended> {
        let written = gen_frame::<Vec<u8>>(frame)(WriteContext::from(Vec::new())).unwrap();
        self.write_bytes(&written.into_inner().0).await
    }

    pub(super) async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let passes = &bytes[..bytes.len().min(self.room(Way::Out))];
        self.socket.write_all(passes).await.map_err(|_| Ended)?;
        self.passed(Way::Out, passes.len());
        if self.room(Way::Out) == 0 {
            return Err(self.cut());
        }
        Ok(())
    }

    /// Makes the next close of the socket send an RST.
    pub(super) fn reset(&self) -> Ended {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        Ended
    }

    fn cut(&self) -> Ended {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.reset()
    }

    /// Number of bytes that may still pass in this direction.
    fn room(&self, way: Way) -> usize {
        match self.shared.cut {
            Some((cut, at)) if self.is_first && cut == way => {
                usize::try_from(at.saturating_sub(self.shared.bytes(way).load(Ordering::SeqCst)))
                    .unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    fn passed(&self, way: Way, bytes: usize) {
        if self.is_first {
            self.shared
                .bytes(way)
                .fetch_add(bytes as u64, Ordering::SeqCst);
        }
    }
}

/// The length of the first frame, if it is complete.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = if *bytes.first()? == b'A' {
        HELLO_BYTES
    } else {
        let size = bytes.get(3..FRAME_HEAD_BYTES)?;
        FRAME_HEAD_BYTES + u32::from_be_bytes(size.try_into().unwrap()) as usize + 1
    };
    (bytes.len() >= length).then_some(length)
}
