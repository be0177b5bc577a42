//! A broker's URL as an operator writes it, read strictly enough to connect to what is meant. Holds
//! a password: it is shown without, and its errors quote nothing of it.

use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};

/// Largest frame we ask for, and what is asked for unless the URL wants less.
const FRAME_BYTES_MAX: u32 = 131_072;
/// `RabbitMQ` 4.1 refuses less.
const FRAME_BYTES_MIN: u32 = 8_192;
/// Stands for an IPv6 address while lapin's parser looks at the URL: it would read `localhost`.
const IPV6_STAND_IN: &str = "ipv6-literal";

/// One broker to connect to.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    uri: AMQPUri,
}

/// Why a URL is not one of a broker. Quotes nothing: the URL holds a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not `amqp` or `amqps`, or no URL at all.
    #[error("a broker URL must look like `amqp://user:password@host:5672/%2f` (or `amqps://…`)")]
    Form,
    /// The host is empty or its IPv6 address has no end.
    #[error("a broker URL must name a host, an IPv6 address in brackets")]
    Host,
    /// There is none.
    #[error("`rabbitmq.urls` names no broker")]
    None,
}

impl BrokerUrl {
    /// Reads a URL. The empty vhost (`amqp://host/`) is taken for the default one, as no broker
    /// has one of that name.
    ///
    /// # Errors
    /// If it is no `amqp` or `amqps` URL with a host.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (rewritten, ipv6) = stand_in(url.trim())?;
        let mut uri = rewritten.parse::<AMQPUri>().map_err(|_| UrlError::Form)?;
        if let Some(address) = ipv6 {
            uri.authority.host = address;
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        let frame_max = uri.query.frame_max.unwrap_or(FRAME_BYTES_MAX);
        uri.query.frame_max = Some(frame_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX));
        Ok(Self { uri })
    }

    /// The same with this heartbeat (1 s to 18 h).
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        let seconds = u16::try_from(heartbeat.as_secs())
            .unwrap_or(u16::MAX)
            .max(1);
        self.uri.query.heartbeat = Some(seconds);
        self
    }

    /// Name or address, an IPv6 one without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.uri.authority.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.uri.authority.port
    }

    /// Virtual host, `/` being the default one.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Whether it is an `amqps` URL.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// User and password, for whoever logs in. Not to be shown.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        let login = &self.uri.authority.userinfo;
        (&login.username, &login.password)
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vhost = self.uri.vhost.replace('/', "%2f");
        let (scheme, host, port) = (&self.uri.scheme, self.host(), self.port());
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}/{vhost}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}/{vhost}")
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The URL with a name in place of an IPv6 address, and that address.
fn stand_in(url: &str) -> Result<(String, Option<String>), UrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlError::Form)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(user, host)| (user, host));
    let at = if user.is_empty() { "" } else { "@" };
    let Some(bracketed) = host.strip_prefix('[') else {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        return if name.is_empty() {
            Err(UrlError::Host)
        } else {
            Ok((url.to_owned(), None))
        };
    };
    let (address, port) = bracketed.split_once(']').ok_or(UrlError::Host)?;
    let address = address
        .parse::<std::net::Ipv6Addr>()
        .map_err(|_| UrlError::Host)?;
    Ok((
        format!("{scheme}://{user}{at}{IPV6_STAND_IN}{port}{path}"),
        Some(address.to_string()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, host: &str, port: u16, vhost: &str, shown: &str) {
        let read = BrokerUrl::parse(url).unwrap();
        assert_eq!(
            (read.host(), read.port(), read.uri.vhost.as_str()),
            (host, port, vhost)
        );
        assert_eq!(read.to_string(), shown);
        assert_eq!(format!("{read:?}"), shown);
    }

    #[test]
    fn a_url_is_read_as_the_operator_means_it_and_shown_without_credentials() {
        check(
            "amqp://rabbit",
            "rabbit",
            5672,
            "/",
            "amqp://rabbit:5672/%2f",
        );
        check(
            "amqp://rabbit/",
            "rabbit",
            5672,
            "/",
            "amqp://rabbit:5672/%2f",
        );
        check(
            "amqp://u:p@rabbit:1/%2f",
            "rabbit",
            1,
            "/",
            "amqp://rabbit:1/%2f",
        );
        check(
            "amqps://u:p%40ss@r/chat",
            "r",
            5671,
            "chat",
            "amqps://r:5671/chat",
        );
        check(
            "amqp://u:p@[::1]:7/v?heartbeat=3",
            "::1",
            7,
            "v",
            "amqp://[::1]:7/v",
        );
        check(
            " amqp://127.0.0.1:5673 ",
            "127.0.0.1",
            5673,
            "/",
            "amqp://127.0.0.1:5673/%2f",
        );
    }

    #[test]
    fn credentials_stay_whole_beside_an_ipv6_address() {
        let uri = BrokerUrl::parse("amqp://bridge:s%3Acret@[fe80::1]/v")
            .unwrap()
            .uri();
        assert_eq!(uri.authority.userinfo.username, "bridge");
        assert_eq!(uri.authority.userinfo.password, "s:cret");
        assert_eq!(uri.authority.host, "fe80::1");
    }

    #[test]
    fn what_is_no_broker_url_is_refused_without_quoting_it() {
        for url in [
            "",
            "rabbit:5672",
            "http://u:secret@h",
            "amqp:u:secret@h",
            "amqp://u:secret@",
        ] {
            let error = BrokerUrl::parse(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(BrokerUrl::parse("amqp://[::1"), Err(UrlError::Host));
        assert_eq!(BrokerUrl::parse("amqp://[localhost]"), Err(UrlError::Host));
    }

    #[test]
    fn heartbeat_and_frame_size_are_asked_for() {
        let uri = BrokerUrl::parse("amqp://h?frame_max=4096").unwrap();
        let uri = uri.with_heartbeat(Duration::from_millis(10)).uri();
        assert_eq!(uri.query.heartbeat, Some(1));
        assert_eq!(uri.query.frame_max, Some(FRAME_BYTES_MIN));
        let uri = BrokerUrl::parse("amqp://h").unwrap().uri();
        assert_eq!(uri.query.frame_max, Some(FRAME_BYTES_MAX));
    }
}
