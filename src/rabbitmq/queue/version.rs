//! Which version the broker is, as it says before the login; lapin keeps that for itself. Only asked
//! where it decides whether a look costs anything, and not over TLS: then it is not known.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rabbitmq::Settings;
use crate::rabbitmq::url::BrokerUrl;

/// For the whole question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the broker's greeting at most.
const GREETING_BYTES_MAX: usize = 64 << 10;
/// Frame type, channel and length.
const FRAME_HEAD_BYTES: usize = 7;

/// The first number of the version of the first broker that answers.
pub(super) async fn major(settings: &Settings) -> Option<u32> {
    for url in settings.urls.iter().filter(|url| !url.is_tls()) {
        if let Ok(Some(greeting)) = timeout(PATIENCE, greeting(url)).await {
            return read(&greeting);
        }
    }
    None
}

/// `connection.start`, which begins with what the broker is.
async fn greeting(url: &BrokerUrl) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((url.host(), url.port())).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes(head[3..].try_into().ok()?);
    let length = usize::try_from(length).ok()?.min(GREETING_BYTES_MAX);
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

/// `version` is a long string: `S`, its length, its text.
fn read(greeting: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"\x07versionS";
    let at = memchr::memmem::find(greeting, NAME)?;
    let text = greeting.get(at + NAME.len() + 4..)?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_greeting() {
        let greeting = b"\x00\x0a\x00\x0a\x00\x09....\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        assert_eq!(read(greeting), Some(3));
        assert_eq!(read(b"\x07versionS\x00\x00\x00\x054.0.5"), Some(4));
        assert_eq!(read(b"\x07versionS\x00\x00"), None);
        assert_eq!(read(b"nothing"), None);
    }
}
