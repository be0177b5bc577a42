//! A private RabbitMQ node and operations on it. `scripts/broker.sh hold` starts the node and ends
//! it when the pipe to this process closes, so no node outlives the tests, even if they are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;
use rustix::process::Signal;
use tokio::sync::OnceCell;

use super::http::Client;
use super::process::{is_alive, script, signal};
use super::vhost::{Vhost, guest_login};
use super::wait::{SOON, eventually};

/// Nodes that a test has had for itself and left in order, for the next such test.
static SPARE: Mutex<Vec<Broker>> = Mutex::new(Vec::new());

/// A private RabbitMQ node; ended when dropped.
pub struct Broker {
    dir: PathBuf,
    facts: BTreeMap<String, String>,
    hold: Child,
    was_killed: AtomicBool,
}

/// A node that one test has for itself; the next test gets it unless it was killed or the test has
/// failed.
pub struct OwnBroker(Option<Broker>);

impl Deref for OwnBroker {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        self.0.as_ref().expect("the node, until it is dropped")
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let is_in_order = !std::thread::panicking() && !self.was_killed.load(Ordering::Relaxed);
        let node = self.0.take();
        if let Some(node) = node.filter(|_| is_in_order) {
            SPARE.lock().unwrap().push(node);
        }
    }
}

impl Broker {
    /// The node that all tests of this process share, isolated from each other by
    /// [`Broker::vhost`]. No test may disturb it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::own_with("")).await
    }

    /// A node for one test that disturbs it: one that another test has given back, or a new one.
    pub async fn own() -> OwnBroker {
        loop {
            let spare = SPARE.lock().unwrap().pop();
            let Some(node) = spare else {
                return OwnBroker(Some(Self::own_with("").await));
            };
            if node.is_in_order().await {
                return OwnBroker(Some(node));
            }
        }
    }

    /// A new node for one test, with these lines in addition in `rabbitmq.conf` (`@TLS_PORT@`
    /// stands for a free port). Takes about five seconds to start.
    pub async fn own_with(extra_conf: &str) -> Self {
        Self::launch_as(("extra.conf", extra_conf.to_owned())).await
    }

    /// A node that joins the cluster of `seed`.
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
            .process_group(0) // Ctrl-C stops the tests, and they stop the node
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
        Self {
            dir,
            facts,
            hold,
            was_killed: AtomicBool::new(false),
        }
    }

    /// Whether the node answers, accepts AMQP connections and has no alarm.
    async fn is_in_order(&self) -> bool {
        let [amqp, management] = ["AMQP_PORT", "MANAGEMENT_PORT"].map(|name| self.port(name));
        let asked = async {
            let login = guest_login();
            let headers = [("authorization", &*login)];
            let path = "/api/health/checks/alarms";
            let mut client = Client::new(([127, 0, 0, 1], management).into());
            let answer = client.request(Method::GET, path, &headers, "").await;
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", amqp)).await;
            answer.is_ok_and(|answer| answer.status == 200) && connected.is_ok()
        };
        let answered = tokio::time::timeout(Duration::from_secs(5), asked).await;
        answered.unwrap_or(false)
    }

    /// Creates an empty vhost for one test.
    pub async fn vhost(&self) -> Vhost {
        Vhost::create(self).await
    }

    /// A port of the node: `AMQP_PORT`, `MANAGEMENT_PORT`, `TLS_PORT`, `PROMETHEUS_PORT`.
    pub fn port(&self, name: &str) -> u16 {
        self.facts[name].parse().unwrap()
    }

    /// The node's name in its cluster.
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

    /// Stops the node's process (SIGSTOP): connections stay open, nothing is answered.
    pub fn freeze(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Resumes a frozen node.
    pub fn thaw(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Ends the node as a power failure would (`kill -9`). Its data on disk stays.
    pub async fn kill(&self) {
        let pid = self.pid();
        self.was_killed.store(true, Ordering::Relaxed);
        signal(pid, Signal::KILL);
        eventually("the killed node is gone", SOON, || async { !is_alive(pid) }).await;
    }

    /// Shuts the node down gracefully. Its data on disk stays.
    pub async fn stop(&self) {
        self.run("down", &[]).await;
    }

    /// Starts a stopped or killed node again, with the same ports and data.
    pub async fn start(&self) {
        self.run("up", &[]).await;
    }

    /// Runs `rabbitmqctl` (about half a second) and returns its output; panics if it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.run("ctl", arguments).await
    }

    /// Runs a command line in a shell in which `rabbitmqctl` controls this node.
    pub fn type_in(&self, line: &str) {
        let (script, dir) = (script("broker.sh"), self.dir.display());
        let own = format!("rabbitmqctl() {{ {} ctl {dir} \"$@\"; }}", script.display());
        let output = Command::new("bash")
            .args(["-c", &format!("{own}\n{line}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    /// Raises a memory alarm: the broker blocks publishing connections from now on.
    pub async fn raise_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.0001"]).await;
    }

    /// Clears the memory alarm.
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

/// The process id that `broker.sh` has written to this file in a node's directory.
pub fn noted_pid(dir: &Path, file: &str) -> Option<u32> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
