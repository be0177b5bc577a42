//! A consumer of `examples/consumers` as a process.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::manager::Manager;
use super::process::{end_with_us, has_ended, signal};
use super::vhost::Vhost;
use super::wait::{SOON, eventually, eventually_some};

/// The language of the example.
#[derive(Debug, Clone, Copy)]
pub enum Language {
    Python,
    TypeScript,
}

/// The queue that the examples consume.
pub const QUEUE: &str = "example";

/// An example with its state; killed when dropped.
pub struct Example {
    language: Language,
    variables: Vec<(&'static str, String)>,
    dir: TempDir,
    child: Option<Child>,
}

impl Example {
    /// An example that consumes from this vhost and notifies this manager. It reminds after an
    /// hour, unless the test sets `REMIND_AFTER`.
    pub fn new(language: Language, vhost: &Vhost, manager: &Manager) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("deskbridge-example-")
            .tempdir()
            .unwrap();
        let variables = vec![
            ("AMQP_URL", vhost.amqp_url.clone()),
            ("NOTIFY_URL", manager.url.clone()),
            ("STATE", dir.path().join("state").display().to_string()),
            ("QUEUE", QUEUE.to_owned()),
            ("RETRY_PAUSE", "0.1".to_owned()),
            ("REMIND_AFTER", "3600".to_owned()),
        ];
        Self {
            language,
            variables,
            dir,
            child: None,
        }
    }

    /// Sets an environment variable for the next start.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    /// Starts the example and waits until it consumes.
    pub async fn start(&mut self) {
        let before = self.log().matches("consuming").count();
        let mut command = command(self.language);
        let child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.variables.iter().cloned())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(self.log_file())
            .stderr(self.log_file())
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{command:?}: {error}; scripts/test-packages.sh installs what it needs")
        });
        end_with_us(child.id());
        self.child = Some(child);
        eventually("the example consumes", SOON * 2, || async {
            self.log().matches("consuming").count() > before
        })
        .await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::TERM).await
    }

    /// Sends a signal without waiting.
    pub fn signal(&self, number: Signal) {
        signal(self.child.as_ref().expect("it runs").id(), number);
    }

    /// Waits until the process ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = eventually_some("the example ends", Duration::from_mins(1), || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await;
        has_ended(child.id());
        status
    }

    async fn end(&mut self, number: Signal) -> ExitStatus {
        self.signal(number);
        self.exit().await
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> File {
        let path = self.dir.path().join("log");
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.unwrap()
    }
}

fn command(language: Language) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = root.join("examples/consumers");
    let (program, script): (PathBuf, _) = match language {
        Language::Python => (root.join(".dev/python/bin/python"), "python/chats.py"),
        Language::TypeScript => ("node".into(), "typescript/dist/chats.js"),
    };
    let mut command = Command::new(program);
    command.arg(examples.join(script));
    command
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::KILL);
            let _ = child.wait();
            has_ended(child.id());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the example ---\n{}", self.log());
        }
    }
}
