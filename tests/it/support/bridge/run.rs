//! A bridge under test: starting and stopping it, sending it webhooks and signals, querying it.
//! Processes are ended by their pid only.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use toml::Table;

use super::builder::{config_file, merge};
use crate::support::http::{Answer, Client, Failure, get};
use crate::support::metrics::Metrics;
use crate::support::process::{child_of, end_with_us, has_ended, is_alive, processor_time, signal};
use crate::support::sender::{PATH, SECRET, sign};
use crate::support::wait::{SOON, eventually, eventually_some};

/// How a bridge process ended.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    /// Time from the signal (or the start) to the end.
    pub took: Duration,
}

/// A bridge and its directory; killed (`kill -9`) and deleted when dropped.
pub struct Bridge {
    config: Table,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    dir: TempDir,
}

impl Bridge {
    pub(super) fn new(
        dir: TempDir,
        config: Table,
        wrapper: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let bridge = Self {
            config,
            wrapper,
            environment,
            child: None,
            dir,
        };
        bridge.write_config();
        bridge
    }

    // --- starting and ending ---

    /// Starts the bridge and waits until it accepts webhooks; panics with its log if it does not.
    pub async fn start(&mut self) {
        self.spawn();
        let begin = Instant::now();
        while !self.ready().await {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the bridge ended ({ended:?}):\n{}",
                self.stderr()
            );
            assert!(
                begin.elapsed() < SOON,
                "the bridge is not ready:\n{}",
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the bridge without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the bridge runs already");
        let mut command = self.command("serve", &[]);
        let child = command
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        end_with_us(child.id());
        self.child = Some(child);
    }

    /// Starts the bridge and waits until it ends by itself.
    pub async fn run_to_exit(&mut self) -> Exit {
        self.spawn();
        self.exit().await
    }

    /// Runs another subcommand of the binary with this bridge's configuration.
    pub async fn run(&self, subcommand: &str, arguments: &[&str]) -> std::process::Output {
        let mut command = self.command(subcommand, arguments);
        command.stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap()
    }

    /// As [`Bridge::run`], but returns the command for the test to start.
    pub fn command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_deskbridge").to_owned();
        let is_wrapped = subcommand == "serve" && !self.wrapper.is_empty();
        let line = if is_wrapped {
            self.wrapper.clone()
        } else {
            Vec::new()
        };
        let line: Vec<_> = line.into_iter().chain([binary]).collect();
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .arg("--config")
            .arg(config_file(self.dir.path()))
            .arg(subcommand)
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned());
        command
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> Exit {
        self.signal(Signal::TERM);
        self.exit().await
    }

    /// Sends `kill -9` and waits until the process is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Kills the bridge and starts it again with the same journal.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Waits until the process ends; panics after 60 s.
    pub async fn exit(&mut self) -> Exit {
        let begin = Instant::now();
        // Taken only when it has ended, so that a test that fails here kills the process.
        let child = self.child.as_mut().expect("the bridge was started");
        let status = eventually_some("the bridge ends", Duration::from_mins(1), || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await;
        has_ended(child.id());
        self.child = None;
        Exit {
            status,
            took: begin.elapsed(),
        }
    }

    /// Sends SIGHUP, which reloads the configuration.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops the process (SIGSTOP); returns when all of its threads are stopped.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let begin = Instant::now();
        while !is_stopped(self.pid()) {
            assert!(begin.elapsed() < SOON, "the bridge does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resumes a frozen process (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal to the bridge itself, not to its wrapper command.
    pub fn signal(&self, number: Signal) {
        signal(self.pid(), number);
    }

    /// Whether the process is running.
    pub fn is_running(&self) -> bool {
        self.child
            .as_ref()
            .is_some_and(|child| is_alive(child.id()))
    }

    /// The process id of the bridge itself, also if it runs under a wrapper.
    pub fn pid(&self) -> u32 {
        let child = self.child.as_ref().expect("the bridge runs").id();
        if self.wrapper.is_empty() {
            child
        } else {
            child_of(child).unwrap_or(child)
        }
    }

    // --- webhooks ---

    /// Posts a signed body; panics if there is no answer.
    pub async fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        let answer = self.try_post(body).await;
        answer.unwrap_or_else(|error| panic!("no answer ({error}):\n{}", self.stderr()))
    }

    /// As [`Bridge::post`], signed with another secret.
    pub async fn post_signed_with(&self, secret: &str, body: impl AsRef<[u8]>) -> Answer {
        let signature = sign(secret, body.as_ref());
        self.post_with(&[("x-dd-signature", &signature)], body)
            .await
            .expect("an answer")
    }

    /// Posts a signed body on a new connection.
    pub async fn try_post(&self, body: impl AsRef<[u8]>) -> Result<Answer, Failure> {
        let signature = sign(SECRET, body.as_ref());
        self.post_with(&[("x-dd-signature", &signature)], body)
            .await
    }

    /// Posts a body with exactly these headers.
    pub async fn post_with(
        &self,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Result<Answer, Failure> {
        let body = body.as_ref().to_vec();
        Client::new(self.address())
            .request(Method::POST, PATH, headers, body)
            .await
    }

    // --- queries ---

    /// The address that receives webhooks.
    pub fn address(&self) -> SocketAddr {
        self.listen("http")
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.listen("admin")
    }

    /// Whether `/readyz` answers 200.
    pub async fn ready(&self) -> bool {
        get(self.admin_address(), "/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    /// Sends `GET` to the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        get(self.admin_address(), path)
            .await
            .expect("the admin listener answers")
    }

    /// `/status` as JSON.
    pub async fn status(&self) -> Value {
        self.admin("/status").await.json()
    }

    /// `/metrics`, parsed.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").await.text())
    }

    /// Waits until `broker.state` in `/status` is `state`.
    pub async fn broker_is(&self, state: &str) {
        let what = format!("the broker is {state}");
        eventually(&what, Duration::from_mins(1), || async {
            self.status().await["broker"]["state"] == state
        })
        .await;
    }

    /// Waits until no event is pending.
    pub async fn backlog_is_empty(&self) {
        eventually("the backlog is empty", Duration::from_mins(3), || async {
            self.status().await["backlog"]["events"] == 0
        })
        .await;
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Peak resident memory in bytes.
    pub fn rss_bytes_max(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// CPU time used so far.
    pub fn processor_time(&self) -> Duration {
        processor_time(self.pid())
    }

    /// The journal's directory.
    pub fn journal_dir(&self) -> PathBuf {
        self.dir
            .path()
            .join(self.config["journal"]["dir"].as_str().unwrap())
    }

    /// The directory of configuration, journal and log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything logged so far, by all starts together.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a log line that contains these words and returns it. A line is written a moment
    /// after what it reports.
    pub async fn says(&self, words: &str) -> String {
        let what = format!("the log says `{words}`");
        eventually_some(&what, SOON, || async {
            let log = self.stderr();
            let line = log.lines().find(|line| line.contains(words));
            line.map(ToOwned::to_owned)
        })
        .await
    }

    /// Merges TOML into the configuration file, for the next start or SIGHUP.
    #[track_caller]
    pub fn reconfigure(&mut self, toml: &str) {
        let layer: Table = toml.parse().unwrap_or_else(|error| panic!("{error}"));
        merge(&mut self.config, layer);
        self.write_config();
    }

    /// Sets or removes an environment variable for the next start.
    pub fn set_environment(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        let set = value.map(|value| (name.to_owned(), value.to_owned()));
        self.environment.extend(set);
    }

    /// The path of the configuration file.
    pub fn config_file(&self) -> PathBuf {
        config_file(self.dir.path())
    }

    fn write_config(&self) {
        std::fs::write(self.config_file(), self.config.to_string()).unwrap();
    }

    fn listen(&self, section: &str) -> SocketAddr {
        self.config[section]["listen"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    fn log(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let wrapped = child_of(child.id()).filter(|_| !self.wrapper.is_empty());
            for pid in wrapped.into_iter().chain([child.id()]) {
                signal(pid, Signal::KILL);
            }
            let _ = child.wait();
            has_ended(child.id());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the bridge ---\n{}", self.stderr());
        }
    }
}

/// Whether all threads of a process are stopped; a signal stops them one by one.
fn is_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}
