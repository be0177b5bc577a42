//! What URLs of the broker and of HTTP have in common: where a special character that stands for
//! itself would cut a password in two, and how parts are shown.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

/// What to do about a special character.
pub(super) const SPECIAL: &str =
    "write `/` as %2F, `@` as %40, `#` as %23, `%` as %25, `?` as %3F, a blank as %20";

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

/// Whether every special character of a URL can only mean what it stands for: none of a password
/// is taken for the host, the path, the parameters or a fragment.
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
    // The URL standard drops tabs and line breaks silently.
    is_escaped
        && !behind.contains(['@', '#', '\\'])
        && !rest.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// Name or address without brackets, if it is one.
pub(super) fn host(url: &Url) -> Option<String> {
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        !name.is_empty() && name.chars().all(is_plain)
    };
    match url.host()? {
        Host::Domain(name) => is_name(name).then(|| name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

/// An IPv6 address as it stands in a URL.
pub(super) fn in_brackets(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The path as it was written.
pub(super) fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |start| &rest[start..]);
    let before = rest.len() - path.len();
    // The first `?` may come before any `/`.
    match rest.find('?') {
        Some(end) if end <= before => "",
        Some(end) => &path[..end - before],
        None => path,
    }
}

/// Whether it names a user or a password.
pub(super) fn has_login(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The text that a part of a URL stands for; `None` if it is none, or holds control characters.
pub(super) fn decoded(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

/// A text as one part of a path.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}
