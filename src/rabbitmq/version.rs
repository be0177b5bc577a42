//! Reads the broker's version, which it sends before the login. lapin does not expose it. Queried
//! over a separate connection.

use std::fmt;
use std::time::Duration;

use super::ConnectConfig;
use super::connection;
use super::url::BrokerUrl;
use crate::config::rabbitmq::Tls;

/// Limit for one query, including the connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first version that is supported; docs/installing.md names it, too.
const FIRST_SUPPORTED: Version = Version(3, 10);

/// Major and minor version of RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Parses a text such as `3.10.8` or `4.3.6-beta.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|sign: char| !sign.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The finding about a version that is not supported.
pub(super) fn finding(version: Version) -> Option<String> {
    (version < FIRST_SUPPORTED).then(|| {
        format!(
            "the broker has version {version}; RabbitMQ {FIRST_SUPPORTED} and newer are supported"
        )
    })
}

/// The version of the first broker that answers.
pub(super) async fn of_any(settings: &ConnectConfig) -> Option<Version> {
    for url in &settings.urls {
        if let Some(version) = of(url, &settings.tls).await {
            return Some(version);
        }
    }
    None
}

/// The version of one broker; `None` if it cannot be reached or does not send one.
pub(super) async fn of(url: &BrokerUrl, tls: &Tls) -> Option<Version> {
    read(&connection::greeting(url, tls, PATIENCE).await?)
}

/// Finds the server property `version`, a long string: `S`, length, text.
fn read(greeting: &[u8]) -> Option<Version> {
    const NAME: &[u8] = b"\x07versionS";
    let at = memchr::memmem::find(greeting, NAME)?;
    let (length, text) = greeting.get(at + NAME.len()..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Version::parse(std::str::from_utf8(text.get(..length)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unsupported_version_is_a_finding() {
        for version in [Version(3, 10), Version(3, 13), Version(4, 0)] {
            assert_eq!(finding(version), None, "{version}");
        }
        assert_eq!(
            finding(Version(3, 8)).unwrap(),
            "the broker has version 3.8; RabbitMQ 3.10 and newer are supported"
        );
        assert!(finding(Version(2, 11)).is_some());
    }

    #[test]
    fn version_is_found_in_a_greeting() {
        let greeting = b"\x00\x0a\x00\x0a\x00\x09....\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        assert_eq!(read(greeting), Some(Version(3, 10)));
        assert_eq!(
            read(b"\x07versionS\x00\x00\x00\x054.0.5"),
            Some(Version(4, 0))
        );
        assert_eq!(
            read(b"\x07versionS\x00\x00\x00\x0c4.3.6-beta.1"),
            Some(Version(4, 3))
        );
        assert_eq!(read(b"\x07versionS\x00\x00"), None);
        assert_eq!(read(b"nothing"), None);
    }
}
