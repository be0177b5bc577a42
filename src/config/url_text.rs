//! Shared by broker URLs and HTTP URLs: detecting special characters that are not percent-encoded
//! (they would split a password), and decoding and showing parts.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

/// How to encode special characters, for error messages.
pub(super) const SPECIAL: &str =
    "write `/` as %2F, `@` as %40, `#` as %23, `%` as %25, `?` as %3F, a space as %20";

const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'\\')
    .add(b'`');

/// Whether all special characters are encoded, so that no part of a password can be parsed as host,
/// path, parameters or fragment.
pub(super) fn is_encoded(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return true;
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let behind = &rest[end..];
    let is_escaped = rest.split('%').skip(1).all(|behind| {
        let hex = behind.as_bytes().get(..2);
        hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    // The URL Standard removes tabs and line breaks silently.
    is_escaped
        && !behind.contains(['@', '#', '\\'])
        && !rest.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// Host name, or IP address without brackets; `None` if the name has other characters.
pub(super) fn host(url: &Url) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match url.host()? {
        Host::Domain("") => None,
        Host::Domain(name) => name.chars().all(is_plain).then(|| name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

/// The host as written in a URL: an IPv6 address gets brackets.
pub(super) fn in_brackets(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The path as written, before the `url` crate normalizes it.
pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // The query may begin before any `/`, as in `amqp://host?heartbeat=3`.
    let before_query = rest.split('?').next().unwrap_or(rest);
    let start = before_query.find('/');
    start.map_or("", |start| &before_query[start..])
}

/// Whether the URL contains a user or a password.
pub(super) fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Scheme, masked login, host and port, as written.
pub(super) fn start(url: &Url, host: &str) -> String {
    let login = if has_login(url) { "***@" } else { "" };
    let port = url.port().map(|port| format!(":{port}"));
    format!(
        "{}://{login}{host}{}",
        url.scheme(),
        port.unwrap_or_default()
    )
}

/// Percent-decodes a part of a URL; `None` if it is not UTF-8 or contains control characters.
pub(super) fn decoded(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

/// Percent-encodes a text as one path segment.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}
