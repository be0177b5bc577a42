//! A private RabbitMQ node, and what can be done to it. `scripts/broker.sh hold` starts it and
//! ends it when the pipe to this process closes: no node outlives the tests, even if they are
//! killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use super::process::{is_alive, script, signal};
use super::vhost::Vhost;
use super::wait::{SOON, eventually};

/// A node of our own, ended when this is dropped.
pub struct Broker {
    dir: PathBuf,
    facts: BTreeMap<String, String>,
    hold: Child,
}

impl Broker {
    /// The node that all tests of this process share, isolated by [`Broker::vhost`]. Never hurt it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED.get_or_init(Self::own).await
    }

    /// A node for a test that hurts it. Takes about five seconds.
    pub async fn own() -> Self {
        Self::own_with("").await
    }

    /// The same with lines added to `rabbitmq.conf` (`@TLS_PORT@` stands for a free port).
    pub async fn own_with(extra_conf: &str) -> Self {
        Self::launch_as(("extra.conf", extra_conf.to_owned())).await
    }

    /// A node that joins the cluster of another one.
    pub async fn joining(seed: &Self) -> Self {
        Self::launch_as(("seed", seed.dir.display().to_string())).await
    }

    async fn launch_as((file, text): (&'static str, String)) -> Self {
        tokio::task::spawn_blocking(move || Self::launch(file, &text))
            .await
            .unwrap()
    }

    fn launch(file: &str, text: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("deskbridge-broker-")
            .tempdir()
            .unwrap()
            .keep();
        std::fs::write(dir.join(file), text).unwrap();
        let log = dir.with_extension("log");
        let mut hold = Command::new(script("broker.sh"))
            .arg("hold")
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .process_group(0) // Ctrl-C ends the tests; the node ends with them
            .spawn()
            .expect("scripts/broker.sh starts");
        let mut line = String::new();
        BufReader::new(hold.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        assert_eq!(line, "ready\n", "no private RabbitMQ:\n{said}");
        let facts = read_facts(&dir);
        Self { dir, facts, hold }
    }

    /// An empty place of its own for one test.
    pub async fn vhost(&self) -> Vhost {
        Vhost::create(self).await
    }

    /// A port of the node: `AMQP_PORT`, `MANAGEMENT_PORT`, `TLS_PORT`, `PROMETHEUS_PORT`.
    pub fn port(&self, name: &str) -> u16 {
        self.facts[name].parse().unwrap()
    }

    /// The node's name among others of its cluster.
    pub fn node(&self) -> &str {
        &self.facts["NODE"]
    }

    /// The process id of the node.
    pub fn pid(&self) -> u32 {
        noted_pid(&self.dir, "node.pid").expect("the node was started")
    }

    /// The directory with the node's data, log and configuration.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops the node's clock: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Ends the node as a power cut would (`kill -9`). What it has on disk stays.
    pub async fn kill(&self) {
        let pid = self.pid();
        signal(pid, Signal::KILL);
        eventually("the killed node is gone", SOON, || async { !is_alive(pid) }).await;
    }

    /// Stops the node in good order. What it has on disk stays.
    pub async fn stop(&self) {
        self.run("down", &[]).await;
    }

    /// Starts a stopped or killed node again, with the same ports and data.
    pub async fn start(&self) {
        self.run("up", &[]).await;
    }

    /// Runs `rabbitmqctl` (about half a second) and gives its output; panics if it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.run("ctl", arguments).await
    }

    /// Types a command line into a shell whose `rabbitmqctl` is this node's.
    pub fn type_in(&self, line: &str) {
        let (script, dir) = (script("broker.sh"), self.dir.display());
        let own = format!("rabbitmqctl() {{ {} ctl {dir} \"$@\"; }}", script.display());
        let output = Command::new("bash")
            .args(["-c", &format!("{own}\n{line}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    /// Publishing connections are blocked from now on.
    pub async fn raise_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.0001"]).await;
    }

    /// They are not any more.
    pub async fn clear_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"])
            .await;
    }

    async fn run(&self, command: &str, arguments: &[&str]) -> String {
        let mut script = Command::new(script("broker.sh"));
        script
            .arg(command)
            .arg(&self.dir)
            .args(arguments)
            .stdin(Stdio::null());
        let what = format!("broker.sh {command} {arguments:?}");
        let output = tokio::task::spawn_blocking(move || script.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            output.status.success(),
            "{what} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.hold.stdin.take());
        let _ = self.hold.wait();
    }
}

fn read_facts(dir: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(dir.join("env")).expect("the node's env file");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The process id that `broker.sh` has noted in this file of a node's directory.
pub fn noted_pid(dir: &Path, file: &str) -> Option<u32> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
