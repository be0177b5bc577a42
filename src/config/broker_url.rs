//! Broker URLs. A URL is parsed once: display, validation and the connection use the same fields.
//! Errors never quote the text, because it contains a password.

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use serde::Serializer;

use super::sources::{MASK, Secret};
use super::url_text::{self, SPECIAL};

/// User and password of a URL without credentials.
const GUEST: &str = "guest";
const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// One broker to connect to. Contains a password; `Display` and `Debug` omit the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    is_tls: bool,
    user: String,
    password: String,
    host: String,
    port: u16,
    vhost: String,
    masked: String,
    parameters: Parameters,
}

/// Query parameters of a broker URL (the part after `?`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Overrides `rabbitmq.heartbeat`.
    pub heartbeat: Option<Duration>,
    /// Overrides `rabbitmq.connect_timeout`.
    pub connection_timeout: Option<Duration>,
    /// Maximum AMQP frame size in bytes.
    pub frame_max: Option<u32>,
    /// SASL mechanism in lower case: `plain`, `amqplain` or `external`.
    pub auth_mechanism: Option<&'static str>,
}

/// Why a text is not a usable broker URL. Never quotes the text: it contains a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL, or a scheme other than `amqp` and `amqps`.
    #[error("a broker URL must look like `amqp://user:password@host:5672/%2f` (or `amqps://…`)")]
    Form,
    /// The host is empty, not a valid name, or an IPv6 address without brackets.
    #[error("a broker URL must name a host, an IPv6 address in brackets")]
    Host,
    /// A special character in user, password or vhost that is not percent-encoded.
    #[error("a special character in user, password or vhost is not encoded: {SPECIAL}")]
    Unencoded,
    /// A parameter with an invalid value.
    #[error("the parameter `{0}` must be {1}")]
    Parameter(&'static str, &'static str),
    /// An unsupported parameter with a known alternative.
    #[error("the parameter `{0}` is not supported; {1}")]
    Refused(&'static str, &'static str),
    /// An unknown or repeated parameter.
    #[error(
        "unknown parameter after `?`; supported are heartbeat, connection_timeout, frame_max, \
         auth_mechanism and verify"
    )]
    UnknownParameter,
    /// The list of URLs is empty.
    #[error("`rabbitmq.urls` names no broker")]
    None,
}

/// Parameters that other clients support and the bridge does not, with what to do instead.
const REFUSED: [(&str, &str); 9] = [
    ("cacertfile", "set `rabbitmq.tls.ca_file`"),
    ("certfile", "set `rabbitmq.tls.cert_file`"),
    ("keyfile", "set `rabbitmq.tls.key_file`"),
    (
        "password",
        "`rabbitmq.tls.key_file` must be a key without a password",
    ),
    (
        "server_name_indication",
        "the certificate must match the host of the URL",
    ),
    ("fail_if_no_peer_cert", "it is a setting of the broker"),
    ("depth", "remove it"),
    ("channel_max", "the bridge opens the channels that it needs"),
    ("ssl_options", "set `[rabbitmq.tls]`"),
];

const MECHANISMS: [&str; 3] = ["plain", "amqplain", "external"];

impl BrokerUrl {
    /// Parses a URL. `amqp://host` and `amqp://host/` both mean the vhost `/`: a broker has a vhost
    /// with an empty name only if an operator created one.
    ///
    /// # Errors
    /// If the text is not an `amqp` or `amqps` URL with a host, or has an unsupported parameter.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (scheme, _) = text.split_once("://").ok_or(UrlError::Form)?;
        if !["amqp", "amqps"].contains(&&*scheme.to_ascii_lowercase()) {
            return Err(UrlError::Form);
        }
        if !url_text::is_encoded(text) {
            return Err(UrlError::Unencoded);
        }
        let url = url::Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost | url::ParseError::InvalidIpv6Address => UrlError::Host,
            _ => UrlError::Form,
        })?;
        let host = url_text::host(&url).ok_or(UrlError::Host)?;
        let is_tls = url.scheme() == "amqps";
        let port = url.port().unwrap_or(if is_tls { TLS_PORT } else { PORT });
        let path = url_text::path(text);
        // `Url` resolves `.` and `..` segments: a vhost of that name would be lost.
        if port == 0 || (path != "/" && url.path() == "/") {
            return Err(UrlError::Form);
        }
        let vhost = match path.strip_prefix('/') {
            None | Some("") => "/".to_owned(),
            Some(vhost) if vhost.contains('/') => return Err(UrlError::Unencoded),
            Some(vhost) => decoded(vhost)?,
        };
        let (user, password) = match (url.username(), url.password()) {
            ("", None) => (GUEST.to_owned(), GUEST.to_owned()),
            (user, password) => (decoded(user)?, decoded(password.unwrap_or_default())?),
        };
        let masked = url_text::start(&url, &url_text::in_brackets(&host)) + url.path();
        Ok(Self {
            is_tls,
            user,
            password,
            host,
            port,
            vhost,
            masked,
            parameters: Parameters::read(&url)?,
        })
    }

    /// Sets the heartbeat unless the URL specifies one.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.parameters.heartbeat.get_or_insert(heartbeat);
        self
    }

    /// Host name or IP address; an IPv6 address has no brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port: that of the URL, or 5672 (`amqp`) or 5671 (`amqps`).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Virtual host, decoded; `/` if the URL names none.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether the scheme is `amqps`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// User and password for the login, decoded. Must not be shown.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }

    /// Query parameters (the part after `?`).
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

impl Parameters {
    fn read(url: &url::Url) -> Result<Self, UrlError> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        for (name, value) in url.query_pairs() {
            if seen.contains(&name) {
                return Err(UrlError::UnknownParameter);
            }
            read.set(&name, &value)?;
            seen.push(name);
        }
        Ok(read)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), UrlError> {
        let wrong = UrlError::Parameter;
        match name {
            "heartbeat" => {
                let seconds = value.parse::<NonZero<u16>>();
                let seconds = seconds.map_err(|_| wrong("heartbeat", "1 to 65535 seconds"))?;
                self.heartbeat = Some(Duration::from_secs(seconds.get().into()));
            }
            "connection_timeout" => {
                let expected = "a number of milliseconds above 0";
                let millis = value.parse::<NonZero<u32>>();
                let millis = millis.map_err(|_| wrong("connection_timeout", expected))?;
                self.connection_timeout = Some(Duration::from_millis(millis.get().into()));
            }
            "frame_max" => {
                let bytes = value.parse();
                self.frame_max = Some(bytes.map_err(|_| wrong("frame_max", "a number of bytes"))?);
            }
            "auth_mechanism" => {
                let mut known = MECHANISMS.into_iter();
                let mechanism = known.find(|known| known.eq_ignore_ascii_case(value));
                let expected = "plain, amqplain or external";
                self.auth_mechanism = Some(mechanism.ok_or(wrong("auth_mechanism", expected))?);
            }
            // No effect: the bridge verifies every certificate.
            "verify" if value == "verify_peer" => {}
            "verify" => {
                let expected = "verify_peer: a certificate is always verified; trust its authority \
                                with `rabbitmq.tls.ca_file`";
                return Err(wrong("verify", expected));
            }
            other => {
                let refused = REFUSED.into_iter().find(|(name, _)| *name == other);
                let known = refused.map(|(name, advice)| UrlError::Refused(name, advice));
                return Err(known.unwrap_or(UrlError::UnknownParameter));
            }
        }
        Ok(())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "amqps" } else { "amqp" };
        let (host, port) = (url_text::in_brackets(&self.host), self.port);
        let vhost = url_text::encoded(&self.vhost).replace("%2F", "%2f");
        write!(formatter, "{scheme}://{host}:{port}/{vhost}")
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

fn decoded(text: &str) -> Result<String, UrlError> {
    url_text::decoded(text).ok_or(UrlError::Unencoded)
}

/// The URL as written, without credentials and parameters; `***` if it is not a broker URL.
fn masked(url: &Secret) -> String {
    BrokerUrl::parse(url.expose()).map_or_else(|_| MASK.to_owned(), |url| url.masked)
}

/// Serializes URLs with masked credentials, for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize<S: Serializer>(urls: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(urls.iter().map(masked))
}

#[cfg(test)]
mod tests;
