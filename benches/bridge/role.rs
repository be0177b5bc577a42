//! Everything that works during a measurement is a process of its own, so that its CPU time is
//! separate: this binary, started again with a role. It prepares, prints `ready`, and begins when
//! it is told to; its last line is its result.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::consumer::{self, Subscription};
use crate::forwarder::{self, Forwarding};
use crate::publisher::{self, Batch};
use crate::sender::{self, Load};
use crate::support::process::{end_with_us, has_ended};

const ARGUMENT: &str = "role";

#[derive(Serialize, Deserialize)]
pub enum Role {
    /// DeskDirector.
    Send(Load),
    /// The limit: a pipelined publisher.
    Publish(Batch),
    /// The alternative: a forwarder without a journal.
    Forward(Forwarding),
    /// A consumer.
    Consume(Subscription),
}

/// The role for which this process was started, if any.
pub fn of_this_process() -> Option<Role> {
    let mut arguments = std::env::args().skip(1);
    let is_role = arguments.next().is_some_and(|first| first == ARGUMENT);
    is_role.then(|| {
        let role = arguments.next().expect("a role");
        serde_json::from_str(&role).expect("a role as JSON")
    })
}

impl Role {
    /// Runs the role, in the process that was started for it.
    pub fn play(self) {
        match self {
            Self::Send(load) => sender::play(&load),
            Self::Publish(batch) => publisher::play(&batch),
            Self::Forward(forwarding) => forwarder::play(&forwarding),
            Self::Consume(subscription) => consumer::play(&subscription),
        }
    }
}

/// In the process of a role: reports that it is ready, and waits for the start.
pub fn wait_for_go() {
    say(&"ready");
    wait_for_line();
}

/// In the process of a role: waits for a line from the benchmark, or for its end.
pub fn wait_for_line() {
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

/// In the process of a role: sends a result to the benchmark.
pub fn say(result: &impl Serialize) {
    let line = serde_json::to_string(result).expect("JSON");
    println!("{line}");
}

/// A process that runs a role; killed when dropped.
pub struct Actor {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Actor {
    /// Starts the process and waits until it is ready.
    pub async fn start(role: &Role) -> Self {
        let binary = std::env::current_exe().expect("this binary has a path");
        let role = serde_json::to_string(role).expect("JSON");
        let mut child = Command::new(binary)
            .args([ARGUMENT, &role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts again");
        end_with_us(child.id());
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = child.stdout.take().map(BufReader::new);
        let mut actor = Self {
            child,
            stdin,
            stdout,
        };
        let ready: String = actor.result().await;
        assert_eq!(ready, "ready");
        actor
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells the process to begin.
    pub fn go(&mut self) {
        writeln!(self.stdin, "go").expect("it listens");
    }

    /// Tells a process without an end of its own to stop.
    pub fn stop(&mut self) {
        writeln!(self.stdin, "stop").expect("it listens");
    }

    /// The next result that the process sends.
    pub async fn result<T: DeserializeOwned>(&mut self) -> T {
        let mut stdout = self.stdout.take().expect("nobody else waits");
        let (stdout, line) = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a pipe");
            (stdout, line)
        })
        .await
        .expect("reading does not panic");
        self.stdout = Some(stdout);
        serde_json::from_str(&line).expect("a process of the benchmark has failed")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        has_ended(self.child.id());
    }
}
