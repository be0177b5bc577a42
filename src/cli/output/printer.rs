//! Prints on a thread of its own: a reader that pauses stops neither the connection to the broker nor
//! Ctrl-C, and one that leaves is noticed although nothing is printed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Unread, print, print_json, say};

/// Text that waits for the reader.
const BUFFERED_BYTES_MAX: usize = 16 << 20;
/// What a text takes beside its bytes.
const TEXT_BYTES: usize = 64;

/// One text on its way.
struct Output {
    text: String,
    /// Said on standard error before it.
    notice: Option<String>,
    permit: OwnedSemaphorePermit,
}

/// What the printing thread knows.
#[derive(Default)]
struct Progress {
    printed: AtomicU64,
    error: OnceLock<anyhow::Error>,
    /// It prints nothing more.
    ended: CancellationToken,
    /// Nobody reads any more, or writing failed.
    unread: CancellationToken,
}

/// A printer of texts.
pub struct Printer {
    texts: Option<UnboundedSender<Output>>,
    room: Arc<Semaphore>,
    progress: Arc<Progress>,
    taken: u64,
    missed: u64,
    /// Of these, since the last text that was taken.
    untold: u64,
}

impl Printer {
    /// Starts printing, JSON or text for people, and watching whether somebody reads it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(is_json: bool) -> io::Result<Self> {
        let (texts, waiting) = unbounded_channel();
        let progress = Arc::<Progress>::default();
        let of_thread = Arc::clone(&progress);
        thread::Builder::new()
            .name("print".into())
            .spawn(move || of_thread.print_all(waiting, is_json))?;
        let unread = progress.unread.clone();
        thread::Builder::new()
            .name("reader".into())
            .spawn(move || {
                if await_hangup().is_ok() {
                    unread.cancel();
                }
            })?;
        Ok(Self {
            texts: Some(texts),
            room: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            progress,
            taken: 0,
            missed: 0,
            untold: 0,
        })
    }

    /// Prints a text when its turn comes; waits while too much is waiting.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn send(&mut self, text: String) -> anyhow::Result<()> {
        let room = Arc::clone(&self.room);
        tokio::select! {
            biased;
            () = self.unread() => Err(self.error()),
            room = room.acquire_many_owned(weight(&text)) => {
                self.enqueue(text, room.map_err(io::Error::other)?);
                Ok(())
            }
        }
    }

    /// Takes a text if there is room for it; else it is missed, and the next one says so.
    pub fn offer(&mut self, text: String) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(&text));
        if let Ok(room) = room {
            self.enqueue(text, room);
            return true;
        }
        self.missed += 1;
        self.untold += 1;
        false
    }

    fn enqueue(&mut self, text: String, room: OwnedSemaphorePermit) {
        let missed = std::mem::take(&mut self.untold);
        let output = Output {
            text,
            notice: (missed > 0).then(|| not_shown(missed)),
            permit: room,
        };
        self.taken += 1;
        // Where the thread has ended, `unread` says so.
        let _ = self.texts.as_ref().map(|texts| texts.send(output));
    }

    /// Returns when nobody reads any more.
    pub async fn unread(&self) {
        self.progress.unread.cancelled().await;
    }

    /// Whether nobody does.
    pub fn is_unread(&self) -> bool {
        self.progress.unread.is_cancelled()
    }

    /// Waits until everything is printed; takes nothing more.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        self.texts = None;
        tokio::select! {
            () = self.progress.ended.cancelled() => {}
            () = self.unread() => {}
        }
        // Both, if the reader left after the last text or before it.
        if self.waiting() > 0 {
            return Err(self.error());
        }
        Ok(())
    }

    /// Says on standard error how much came in vain.
    pub fn say_unshown(&self) {
        let unshown = self.missed + self.waiting();
        if unshown > 0 {
            say(not_shown(unshown));
        }
    }

    fn waiting(&self) -> u64 {
        self.taken - self.progress.printed.load(Ordering::Acquire)
    }

    /// Why nothing more is printed.
    pub fn error(&self) -> anyhow::Error {
        match self.progress.error.get() {
            Some(error) if !error.is::<Unread>() => anyhow::anyhow!("{error:#}"),
            _ => Unread.into(),
        }
    }
}

impl Progress {
    fn print_all(&self, mut texts: UnboundedReceiver<Output>, is_json: bool) {
        while let Some(Output {
            text,
            notice,
            permit: _permit,
        }) = texts.blocking_recv()
        {
            if let Some(notice) = notice {
                say(notice);
            }
            let printed = if is_json {
                print_json(&text)
            } else {
                print(&text)
            };
            if let Err(error) = printed {
                let _ = self.error.set(error);
                self.unread.cancel();
                break;
            }
            self.printed.fetch_add(1, Ordering::Release);
        }
        self.ended.cancel();
    }
}

fn weight(text: &str) -> u32 {
    let bytes = (text.len() + TEXT_BYTES).min(BUFFERED_BYTES_MAX);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn not_shown(count: u64) -> String {
    let messages = if count == 1 { "message" } else { "messages" };
    format!(
        "{count} {messages} received but not shown: the output is read too slowly, or not at all"
    )
}

/// Blocks until standard output has no reader any more: a pipe or a terminal says so without being
/// asked, a file never does.
fn await_hangup() -> io::Result<()> {
    let output = io::stdout();
    let mut polled = [PollFd::new(&output, PollFlags::empty())];
    loop {
        match poll(&mut polled, None) {
            Ok(_)
                if polled[0]
                    .revents()
                    .intersects(PollFlags::ERR | PollFlags::HUP) =>
            {
                return Ok(());
            }
            Ok(_) => return Err(io::ErrorKind::Unsupported.into()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
