//! A configuration is either valid, or its findings say why not, one line each. A valid one has
//! routes, and is the same after it is written and read again. No finding and no output contains a
//! secret.

use std::fs;
use std::sync::LazyLock;

use deskbridge::config::layers::Layers;
use deskbridge::config::{Config, Loaded};
use deskbridge::settings;
use tempfile::TempDir;

const SECRET: &str = "the-secret-that-nobody-may-see";

static DIR: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));

/// Checks an input: the text of a file, then after each NUL one `key=value`. It is an environment
/// variable if the key begins with a capital letter, otherwise a flag.
///
/// # Panics
/// If the input violates a property of this module.
pub fn check(input: &[u8]) {
    // The input could contain the secret in a name; names are shown.
    if input
        .windows(SECRET.len())
        .any(|part| part == SECRET.as_bytes())
    {
        return;
    }
    let mut parts = input.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let file = DIR
        .path()
        .join(format!("{:?}.toml", std::thread::current().id()));
    fs::write(&file, text).expect("a temporary file");
    let mut layers = Layers {
        files: vec![file],
        environment: vec![("DESKBRIDGE__SOURCES__FUZZ__SECRETS".into(), SECRET.into())],
        settings: Vec::new(),
    };
    for part in parts.filter_map(|part| std::str::from_utf8(part).ok()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key.starts_with(|first: char| first.is_ascii_uppercase()) {
            let name = format!("DESKBRIDGE__{key}");
            layers.environment.push((name.into(), value.into()));
        } else {
            layers.settings.push((key.into(), value.into()));
        }
    }
    match settings::load(&layers) {
        Ok(loaded) => check_sound(loaded),
        Err(error) => {
            assert!(!error.findings.is_empty());
            for finding in &error.findings {
                let line = finding.to_string();
                assert!(!line.contains(['\n', '\r']), "{line:?}");
                assert!(!line.contains(SECRET), "{line:?}");
            }
        }
    }
    if let Ok(peeked) = Config::peek(&layers) {
        assert!(!format!("{peeked:?}").contains(SECRET));
    }
}

fn check_sound(loaded: Loaded) {
    let Loaded { mut config, .. } = loaded;
    assert_eq!(config.findings(), []);
    let routing = settings::routing(&config);
    assert!(routing.is_ok(), "{routing:?}");
    assert!(!format!("{config:?}").contains(SECRET));
    // Secrets are masked in the output, so only the other values must be read back.
    config.sources.clear();
    config.rabbitmq.urls.clear();
    config.rabbitmq.management_url = Config::default().rabbitmq.management_url;
    // File names are masked if their directory does not exist.
    config.rabbitmq.tls = Config::default().rabbitmq.tls;
    config.rabbitmq.url_file = None;
    config.rabbitmq.management_url_file = None;
    // A relative directory would be resolved against the directory of the file.
    config.journal.dir = std::path::Path::new("/").join(&config.journal.dir);
    let text = toml::to_string(&config).expect("a configuration is TOML");
    assert!(!text.contains(SECRET));
    let file = DIR
        .path()
        .join(format!("{:?}.again.toml", std::thread::current().id()));
    fs::write(&file, text).expect("a temporary file");
    let layers = Layers {
        files: vec![file],
        ..Layers::default()
    };
    let again = Config::peek(&layers).expect("what was written can be read");
    assert_eq!(again, config);
}
