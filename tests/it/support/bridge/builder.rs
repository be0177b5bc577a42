//! The configuration of a bridge under test, written to a file.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use toml::{Table, Value};

use super::run::Bridge;
use crate::support::sender::SECRET;
use crate::support::vhost::Vhost;

/// Everything a bridge under test is started with. The source is `deskdirector` with
/// [`SECRET`]; journal and configuration lie in a temporary directory.
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

    /// A bridge that publishes to this URL, whether anybody answers there or not.
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

    /// Lays TOML over the configuration; tables are merged, everything else is replaced.
    #[track_caller]
    pub fn with(mut self, toml: &str) -> Self {
        let layer: Table = toml.parse().unwrap_or_else(|error| panic!("{error}"));
        merge(&mut self.config, layer);
        self
    }

    /// Starts it as the last arguments of another command: `under(&["strace", "-f"])`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Puts another command before the one it is started under.
    pub fn before(mut self, wrapper: &[&str]) -> Self {
        let outer = wrapper.iter().map(ToString::to_string);
        self.wrapper = outer.chain(self.wrapper).collect();
        self
    }

    /// Starts it as another user, who owns its directory. Only root can do so.
    pub fn for_user(self, user: u32) -> Self {
        // By descriptor, since that user may not be allowed to walk the path.
        let become_them = format!(
            "exec 9<\"$1\"; shift; exec setpriv --reuid {user} --regid {user} \
             --clear-groups /proc/self/fd/9 \"$@\""
        );
        std::os::unix::fs::chown(self.dir(), Some(user), Some(user)).unwrap();
        self.under(&["sh", "-c", &become_them, "sh"])
    }

    /// Sets a variable of its environment, which is otherwise almost empty.
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

    /// Starts it and waits until it accepts webhooks; panics with its log if it does not.
    pub async fn start(self) -> Bridge {
        let mut bridge = self.build();
        bridge.start().await;
        bridge
    }

    /// Everything but starting it.
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

/// Lays one table over another.
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

/// A loopback address that nobody listens on, below the ports that the kernel gives to outgoing
/// connections, and another one at each call.
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

/// Where the configuration of a bridge in `dir` lies.
pub(super) fn config_file(dir: &Path) -> PathBuf {
    dir.join("deskbridge.toml")
}
