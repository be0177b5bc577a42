//! URLs of the broker. One reading for everything: what is shown, what is checked and what is
//! connected to come from the same fields, and errors quote nothing of the text.

use std::fmt;
use std::time::Duration;

use serde::Serializer;
use serde::ser::SerializeSeq;

use super::sources::{MASK, Secret};
use super::url_text::{self, SPECIAL};

/// Logs in where a URL names nobody.
const GUEST: &str = "guest";
const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// One broker to connect to. Holds a password: it is shown without.
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

/// What a URL asks for behind its `?`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Instead of `rabbitmq.heartbeat`.
    pub heartbeat: Option<Duration>,
    /// Instead of `rabbitmq.connect_timeout`.
    pub connection_timeout: Option<Duration>,
    /// Largest frame in bytes.
    pub frame_max: Option<u32>,
    /// How to log in, in lower case.
    pub auth_mechanism: Option<&'static str>,
}

/// Why a URL is not one of a broker. Quotes nothing: the URL holds a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not `amqp` or `amqps`, or no URL at all.
    #[error("a broker URL must look like `amqp://user:password@host:5672/%2f` (or `amqps://…`)")]
    Form,
    /// The host is empty, no name, or an IPv6 address without brackets.
    #[error("a broker URL must name a host, an IPv6 address in brackets")]
    Host,
    /// A character that ends user, password or vhost too early.
    #[error("a special character stands for itself in user, password or vhost: {SPECIAL}")]
    Unencoded,
    /// A parameter that another key replaces, or whose value cannot be used.
    #[error("the parameter `{0}` {1}")]
    Parameter(&'static str, &'static str),
    /// A parameter that means nothing to the bridge.
    #[error(
        "a parameter behind `?` is not known; known are heartbeat, connection_timeout, frame_max, \
         auth_mechanism and verify"
    )]
    UnknownParameter,
    /// There is none.
    #[error("`rabbitmq.urls` names no broker")]
    None,
}

/// What other clients take in a URL and the bridge does not, with what to do instead.
const REFUSED: [(&str, &str); 9] = [
    ("cacertfile", "is not read; set `rabbitmq.tls.ca_file`"),
    ("certfile", "is not read; set `rabbitmq.tls.cert_file`"),
    ("keyfile", "is not read; set `rabbitmq.tls.key_file`"),
    (
        "password",
        "is not read; `rabbitmq.tls.key_file` holds a key without a password",
    ),
    (
        "server_name_indication",
        "is not read; the certificate must be for the host of the URL",
    ),
    (
        "fail_if_no_peer_cert",
        "is not read; it is a setting of the broker",
    ),
    ("depth", "is not read; leave it out"),
    (
        "channel_max",
        "is not read; the bridge opens the channels it needs",
    ),
    ("ssl_options", "is not read; set `[rabbitmq.tls]`"),
];

const MECHANISMS: [&str; 3] = ["plain", "amqplain", "external"];

impl BrokerUrl {
    /// Reads a URL. `amqp://host` and `amqp://host/` both mean the vhost `/`: no broker has one
    /// whose name is empty unless an operator makes it.
    ///
    /// # Errors
    /// If it is no `amqp` or `amqps` URL with a host, or asks for what the bridge does not do.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (scheme, _) = text.split_once("://").ok_or(UrlError::Form)?;
        if !["amqp", "amqps"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
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
        // A segment of dots is taken for a way up.
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
        let login = if url_text::has_login(&url) {
            "***@"
        } else {
            ""
        };
        let written_port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let masked = format!(
            "{}://{login}{}{written_port}{}",
            url.scheme(),
            url_text::in_brackets(&host),
            url.path()
        );
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

    /// The same with this heartbeat, unless the URL has one of its own.
    #[must_use]
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.parameters.heartbeat.get_or_insert(heartbeat);
        self
    }

    /// Name or address, an IPv6 one without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Virtual host, `/` being the default one.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether it is an `amqps` URL.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// User and password, for whoever logs in. Not to be shown.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }

    /// What it asks for behind its `?`.
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
        let wrong = |name, expected| Err(UrlError::Parameter(name, expected));
        match name {
            "heartbeat" => match value.parse::<u16>() {
                Ok(seconds @ 1..) => self.heartbeat = Some(Duration::from_secs(seconds.into())),
                _ => return wrong("heartbeat", "must be 1 to 65535 seconds"),
            },
            "connection_timeout" => match value.parse::<u32>() {
                Ok(millis @ 1..) => {
                    self.connection_timeout = Some(Duration::from_millis(millis.into()));
                }
                _ => {
                    return wrong(
                        "connection_timeout",
                        "must be a number of milliseconds above 0",
                    );
                }
            },
            "frame_max" => match value.parse() {
                Ok(bytes) => self.frame_max = Some(bytes),
                Err(_) => return wrong("frame_max", "must be a number of bytes"),
            },
            "auth_mechanism" => {
                let value = value.to_ascii_lowercase();
                match MECHANISMS.iter().find(|known| **known == value) {
                    Some(mechanism) => self.auth_mechanism = Some(mechanism),
                    None => return wrong("auth_mechanism", "must be plain, amqplain or external"),
                }
            }
            // Every certificate is verified anyway.
            "verify" if value == "verify_peer" => {}
            "verify" => {
                return wrong(
                    "verify",
                    "must be verify_peer: a certificate is always verified; trust its authority with `rabbitmq.tls.ca_file`",
                );
            }
            other => {
                let refused = REFUSED.iter().find(|(name, _)| *name == other);
                return Err(
                    refused.map_or(UrlError::UnknownParameter, |(name, advice)| {
                        UrlError::Parameter(name, advice)
                    }),
                );
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

/// As an operator wrote it, without login and parameters; three stars if it is no URL of a broker.
fn masked(url: &Secret) -> String {
    BrokerUrl::parse(url.expose()).map_or_else(|_| MASK.to_owned(), |url| url.masked)
}

/// Writes URLs for people, for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize<S: Serializer>(urls: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(urls.len()))?;
    for url in urls {
        list.serialize_element(&masked(url))?;
    }
    list.end()
}

#[cfg(test)]
mod tests;
