//! Prints on a thread of its own. A reader that pauses blocks neither the connection to the broker
//! nor Ctrl-C, and a reader that has closed the output is noticed even if nothing is printed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use deskbridge::ops::counted;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{OutputClosed, print_as, say};

/// Limit of the bytes that wait for the reader.
const BUFFERED_BYTES_MAX: u32 = 16 << 20;
/// Overhead that is counted for each text, in bytes.
const TEXT_BYTES: usize = 64;

/// One text that waits to be printed.
struct Output {
    text: String,
    /// A line for standard error, printed before the text.
    notice: Option<String>,
    /// Its room in the queue, released when it has been printed.
    _room: OwnedSemaphorePermit,
}

/// State shared with the two threads.
#[derive(Default)]
struct Progress {
    /// Number of texts that wait to be printed.
    waiting: AtomicU64,
    error: OnceLock<anyhow::Error>,
    /// The reader has closed the output, or writing failed.
    unread: CancellationToken,
}

/// A bounded queue of texts and the thread that prints them.
pub struct Printer {
    texts: UnboundedSender<Output>,
    room: Arc<Semaphore>,
    progress: Arc<Progress>,
    missed: u64,
    /// Those of `missed` that no notice has reported yet.
    untold: u64,
}

impl Printer {
    /// Starts the thread that prints, as JSON or as text for people, and the one that notices when
    /// the reader closes the output.
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
            texts,
            room: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX as usize)),
            progress,
            missed: 0,
            untold: 0,
        })
    }

    /// Queues a text for printing; waits while 16 MiB are queued.
    ///
    /// # Errors
    /// If the reader has closed the output, or writing failed.
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

    /// Queues a text if there is room for it. Otherwise the text is dropped, returns false, and a
    /// notice before the next text reports the number of dropped ones.
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
            _room: room,
        };
        self.progress.waiting.fetch_add(1, Ordering::AcqRel);
        // If the printing thread has ended, `unread` reports it.
        let _ = self.texts.send(output);
    }

    /// Returns when the reader has closed the output, or writing failed.
    pub async fn unread(&self) {
        self.progress.unread.cancelled().await;
    }

    /// Waits until everything is printed. No text may be queued afterwards.
    ///
    /// # Errors
    /// If some of it could not be printed.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            _ = self.room.acquire_many(BUFFERED_BYTES_MAX) => {}
            () = self.unread() => {}
        }
        // Either branch may have won, whether the reader left before or after the last text was
        // printed. Only the count decides.
        if self.waiting() > 0 {
            return Err(self.error());
        }
        Ok(())
    }

    /// Reports on standard error how many texts were not printed.
    pub fn say_unshown(&self) {
        let unshown = self.missed + self.waiting();
        if unshown > 0 {
            say(not_shown(unshown));
        }
    }

    fn waiting(&self) -> u64 {
        self.progress.waiting.load(Ordering::Acquire)
    }

    /// Why printing ended.
    pub fn error(&self) -> anyhow::Error {
        match self.progress.error.get() {
            Some(error) if !error.is::<OutputClosed>() => anyhow::anyhow!("{error:#}"),
            _ => OutputClosed.into(),
        }
    }
}

impl Progress {
    fn print_all(&self, mut texts: UnboundedReceiver<Output>, is_json: bool) {
        while let Some(output) = texts.blocking_recv() {
            if let Some(notice) = &output.notice {
                say(notice);
            }
            if let Err(error) = print_as(is_json, &output.text) {
                let _ = self.error.set(error);
                self.unread.cancel();
                break;
            }
            self.waiting.fetch_sub(1, Ordering::Release);
        }
    }
}

fn weight(text: &str) -> u32 {
    let bytes = u32::try_from(text.len() + TEXT_BYTES);
    bytes.map_or(BUFFERED_BYTES_MAX, |bytes| bytes.min(BUFFERED_BYTES_MAX))
}

fn not_shown(count: u64) -> String {
    let messages = counted(count, "message");
    format!("{messages} received but not shown: the output is read too slowly, or not at all")
}

/// Blocks until the reader of standard output has gone. `poll` reports that of a pipe or terminal
/// without any requested event; of a file it never does.
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
