//! The configuration of a bridge under test, written to a file.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use toml::{Table, Value};

use super::run::Bridge;
use crate::support::broker::Broker;
use crate::support::sender::SECRET;
use crate::support::vhost::Vhost;

/// The configuration and environment of a bridge under test. Its source is `deskdirector` with
/// [`SECRET`]; journal and configuration file are in a temporary directory.
pub struct BridgeBuilder {
    config: Table,
    dir: TempDir,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
}

impl BridgeBuilder {
    /// A bridge that publishes to this vhost.
    pub fn new(vhost: &Vhost) -> Self {
        Self::at(&vhost.amqp_url)
    }

    /// A bridge that publishes to this URL, whether or not a broker listens there.
    pub fn at(amqp_url: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("deskbridge-test-")
            .tempdir()
            .unwrap();
        let config = toml::toml! {
            [telemetry]
            log_level = "debug"
            [journal]
            disk_free_min = "1MiB"
        };
        Self {
            config,
            dir,
            wrapper: Vec::new(),
            environment: Vec::new(),
        }
        .with(&format!("rabbitmq.urls = [{amqp_url:?}]"))
        .with(&format!("sources.deskdirector.secrets = [{SECRET:?}]"))
    }

    /// A bridge at whose broker URL nobody listens.
    pub fn without_broker() -> Self {
        Self::at(&format!("amqp://guest:guest@{}/", free_address()))
    }

    /// Merges TOML into the configuration: tables are merged, all other values are replaced.
    #[track_caller]
    pub fn with(mut self, toml: &str) -> Self {
        let layer: Table = toml.parse().unwrap_or_else(|error| panic!("{error}"));
        merge(&mut self.config, layer);
        self
    }

    /// Starts the bridge through a wrapper command, which gets the bridge's command line as its
    /// last arguments: `under(&["strace", "-f"])`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Adds an outer wrapper command around the present one.
    pub fn before(mut self, wrapper: &[&str]) -> Self {
        let outer = wrapper.iter().map(ToString::to_string);
        self.wrapper = outer.chain(self.wrapper).collect();
        self
    }

    /// Starts the bridge as another user, who becomes the owner of its directory. Needs root.
    pub fn for_user(self, user: u32) -> Self {
        // The binary is opened as a descriptor: that user may not be allowed to traverse its path.
        let become_them = format!(
            "exec 9<\"$1\"; shift; exec setpriv --reuid {user} --regid {user} \
             --clear-groups /proc/self/fd/9 \"$@\""
        );
        std::os::unix::fs::chown(self.dir(), Some(user), Some(user)).unwrap();
        self.under(&["sh", "-c", &become_them, "sh"])
    }

    /// Sets an environment variable of the bridge. Its environment is otherwise almost empty.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Uses this directory for the journal.
    pub fn journal_in(self, dir: &Path) -> Self {
        self.with(&format!("journal.dir = {:?}", dir.display().to_string()))
    }

    /// The directory of configuration, journal and log; deleted with the bridge.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the bridge and waits until it accepts webhooks; panics with its log if it does not.
    pub async fn start(self) -> Bridge {
        let mut bridge = self.build();
        bridge.start().await;
        bridge
    }

    /// As [`BridgeBuilder::start`], and waits until the topology is declared.
    pub async fn connected(self) -> Bridge {
        let bridge = self.start().await;
        bridge.broker_is("connected").await;
        bridge
    }

    /// Writes the configuration without starting the bridge.
    pub fn build(mut self) -> Bridge {
        let journal_dir = self.dir.path().join("journal");
        self.default("http", "listen", &free_address().to_string());
        self.default("admin", "listen", &free_address().to_string());
        self.default("journal", "dir", &journal_dir.display().to_string());
        Bridge::new(self.dir, self.config, self.wrapper, self.environment)
    }

    fn default(&mut self, section: &str, key: &str, value: &str) {
        let section = self
            .config
            .entry(section)
            .or_insert_with(|| Table::new().into());
        let section = section.as_table_mut().expect("a section");
        section.entry(key).or_insert_with(|| value.into());
    }
}

/// A vhost of the shared broker, and a bridge with this configuration that is connected to it.
pub async fn on_shared_broker(toml: &str) -> (Vhost, Bridge) {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).with(toml).connected().await;
    (vhost, bridge)
}

/// Merges `over` into `under`, as [`BridgeBuilder::with`] does.
pub(super) fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(layer)) => merge(inner, layer),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Returns a loopback address that nobody listens on, a different one at each call. Its port is
/// below the range that the kernel uses for outgoing connections.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 100) as u16 * 97;
    for _ in 0..9_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + offset.wrapping_add(step) % 9_900;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between 10000 and 19900");
}

/// The path of the configuration file of a bridge in `dir`.
pub(super) fn config_file(dir: &Path) -> PathBuf {
    dir.join("deskbridge.toml")
}
