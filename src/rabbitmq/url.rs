//! Converts a broker URL into lapin's type. Copies the parsed fields, so that no text is parsed a
//! second time.

use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};

pub use crate::config::broker_url::{BrokerUrl, UrlError};

/// Largest `frame_max` that is requested, and the default if the URL sets none.
const FRAME_BYTES_MAX: u32 = 131_072;
/// Smallest `frame_max` that is requested; RabbitMQ 4.1 refuses less.
const FRAME_BYTES_MIN: u32 = 8_192;

pub(super) fn uri(url: &BrokerUrl) -> AMQPUri {
    let (username, password) = url.credentials();
    let parameters = url.parameters();
    let frame_max = parameters.frame_max.unwrap_or(FRAME_BYTES_MAX);
    let heartbeat = parameters.heartbeat.map(|heartbeat| {
        u16::try_from(heartbeat.as_secs())
            .unwrap_or(u16::MAX)
            .max(1)
    });
    AMQPUri {
        scheme: if url.is_tls() {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: username.into(),
                password: password.into(),
            },
            host: url.host().into(),
            port: url.port(),
        },
        vhost: url.vhost().into(),
        query: AMQPQueryString {
            frame_max: Some(frame_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX)),
            heartbeat,
            auth_mechanism: parameters.auth_mechanism.map(mechanism),
            ..AMQPQueryString::default()
        },
    }
}

fn mechanism(name: &str) -> SASLMechanism {
    match name {
        "external" => SASLMechanism::External,
        "amqplain" => SASLMechanism::AMQPlain,
        _ => SASLMechanism::Plain,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(url: &str) -> AMQPUri {
        uri(&BrokerUrl::parse(url)
            .unwrap()
            .with_heartbeat(Duration::from_millis(10)))
    }

    #[test]
    fn every_field_is_passed_unchanged() {
        let uri = read("amqps://bridge:s%3A%2Fcret@[fe80::1]/v%2Fx?auth_mechanism=EXTERNAL");
        assert_eq!(uri.scheme, AMQPScheme::AMQPS);
        assert_eq!(uri.authority.userinfo.username, "bridge");
        assert_eq!(uri.authority.userinfo.password, "s:/cret");
        assert_eq!(
            (uri.authority.host.as_str(), uri.authority.port),
            ("fe80::1", 5671)
        );
        assert_eq!(uri.vhost, "v/x");
        assert_eq!(uri.query.auth_mechanism, Some(SASLMechanism::External));
        assert_eq!(read("amqp://h/").vhost, "/");
        assert_eq!(read("amqp://h").vhost, "/");
    }

    #[test]
    fn heartbeat_and_frame_size_are_requested() {
        let query = read("amqp://h?frame_max=4096").query;
        assert_eq!(query.heartbeat, Some(1));
        assert_eq!(query.frame_max, Some(FRAME_BYTES_MIN));
        let query = read("amqp://h?heartbeat=7").query;
        assert_eq!(query.heartbeat, Some(7));
        assert_eq!(query.frame_max, Some(FRAME_BYTES_MAX));
    }
}
