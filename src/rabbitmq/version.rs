//! Which version the broker is, as it says before the login; lapin keeps that for itself. Only asked
//! where it decides something, on a connection of its own.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Settings;
use super::connection;
use super::url::BrokerUrl;
use crate::config::rabbitmq::Tls;

/// For the whole question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the broker's greeting at most.
const GREETING_BYTES_MAX: usize = 64 << 10;
/// Frame type, channel and length.
const FRAME_HEAD_BYTES: usize = 7;

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Of a text such as `3.10.8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|sign: char| !sign.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

/// The version of the first broker that answers.
pub(super) async fn of_any(settings: &Settings) -> Option<Version> {
    for url in &settings.urls {
        if let Some(version) = of(url, &settings.tls).await {
            return Some(version);
        }
    }
    None
}

/// The version of one broker, if it tells.
pub(super) async fn of(url: &BrokerUrl, tls: &Tls) -> Option<Version> {
    read(&connection::greeting(url, tls, PATIENCE).await?)
}

/// `connection.start`, which begins with what the broker is.
pub(super) async fn greeting(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    stream.flush().await.ok()?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes(head[3..].try_into().ok()?);
    let length = usize::try_from(length).ok()?.min(GREETING_BYTES_MAX);
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

/// `version` is a long string: `S`, its length, its text.
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
    fn the_version_is_found_in_a_greeting() {
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
