//! Refuses requests for a host name that is not one of this listener's. Otherwise a web page in an
//! operator's browser could resolve its own name to this address and read the answers (DNS
//! rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode};

use crate::http::problem::Problem;
use crate::http::refused::{Peer, RefusalReason};

/// Passes a request on if every host that it names is an IP address, `localhost` or one of
/// `hosts`.
pub(super) async fn check(
    State(hosts): State<Arc<[String]>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let Some(unknown) = unknown_host(&request, &hosts) else {
        return next.run(request).await;
    };
    let hint = "use an IP address, or add the name to `admin.hosts`";
    Peer::of(&request).refused(RefusalReason::UnknownHost, &unknown, Some(hint));
    let detail = "Address this listener by its IP address or as localhost, or add the name in the \
                  URL to admin.hosts of the bridge: other names are refused, so that no web page \
                  can read the answers of this listener (DNS rebinding).";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
}

/// The first host that is refused. A request that names none is accepted: browsers always name
/// one.
fn unknown_host(request: &Request<Body>, hosts: &[String]) -> Option<String> {
    let in_url = request
        .uri()
        .authority()
        .map(|host| host.as_str().as_bytes());
    let in_head = request.headers().get_all(HOST).iter();
    let named = in_url.into_iter().chain(in_head.map(HeaderValue::as_bytes));
    let mut refused = named.filter(|host| !is_ours(host, hosts));
    refused
        .next()
        .map(|host| String::from_utf8_lossy(host).into_owned())
}

fn is_ours(host: &[u8], hosts: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = without_port(host.trim());
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .map_or(name, |name| name.split('%').next().unwrap_or_default());
    if address.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_listed = |known: &String| name.eq_ignore_ascii_case(known.trim_end_matches('.'));
    name.eq_ignore_ascii_case("localhost") || hosts.iter().any(is_listed)
}

fn without_port(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_match() {
        let hosts = ["bridge".to_owned(), "deskbridge.example.net".to_owned()];
        let check = |host: &str, expected: bool| {
            assert_eq!(is_ours(host.as_bytes(), &hosts), expected, "{host}");
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9180",
            "192.0.2.7:80",
            "[::1]:9180",
            "[fe80::1%25eth0]:9180",
            "[2001:db8::1]",
            "localhost",
            "LocalHost:9180",
            "localhost.",
            "bridge:9180",
            "Bridge",
            "deskbridge.example.net.:9180",
        ] {
            check(ours, true);
        }
        for other in [
            "",
            ":9180",
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.example#localhost",
            "localhost@evil.example",
            "2130706433",
            "0x7f.1",
            "bridge.evil.example",
            "xbridge",
            "[bridge]",
            "bridge:9180:9180",
        ] {
            check(other, false);
        }
        assert!(!is_ours(b"\xff", &hosts));
    }
}
