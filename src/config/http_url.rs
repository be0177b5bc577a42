//! HTTP URLs that may contain a secret: the management API, and the target of `send`.

use std::fmt;

use serde::{Serialize, Serializer};

use super::sources::Secret;
use super::url_text::{self, SPECIAL};

/// Paths with this prefix belong to the bridge and are shown; any other could be a secret.
const OWN_PATH: &str = "/webhooks/";

/// An `http` or `https` URL. Shown without credentials, parameters and unknown paths.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    url: url::Url,
    login: Option<(String, String)>,
}

/// Why a text is not a usable URL. Never quotes the text: it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// Not a URL, a scheme other than `http` and `https`, or no host.
    #[error("must be http://… or https://… with a host")]
    Form,
    /// A special character in user or password that is not percent-encoded.
    #[error("a special character is not encoded: {SPECIAL}")]
    Unencoded,
}

impl HttpUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// If the text is not an `http` or `https` URL with a host.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        let text = text.trim();
        let (scheme, _) = text.split_once("://").ok_or(HttpUrlError::Form)?;
        if !["http", "https"].contains(&&*scheme.to_ascii_lowercase()) {
            return Err(HttpUrlError::Form);
        }
        if !url_text::is_encoded(text) {
            return Err(HttpUrlError::Unencoded);
        }
        let url = url::Url::parse(text).map_err(|_| HttpUrlError::Form)?;
        if url_text::host(&url).is_none() || url.port() == Some(0) {
            return Err(HttpUrlError::Form);
        }
        let decoded = |part| url_text::decoded(part).ok_or(HttpUrlError::Unencoded);
        let (user, password) = (url.username(), url.password().unwrap_or_default());
        let login = (decoded(user)?, decoded(password)?);
        let login = url_text::has_login(&url).then_some(login);
        Ok(Self { url, login })
    }

    /// User and password, if the URL contains them. Must not be shown.
    #[must_use]
    pub fn login(&self) -> Option<(&str, &str)> {
        let login = self.login.as_ref();
        login.map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Whether the URL has a query (`?…`).
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.url.query().is_some()
    }

    /// The URL to request: complete, but without credentials. Must not be shown.
    #[must_use]
    pub fn request(&self) -> String {
        let mut url = self.url.clone();
        // Both fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.into()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.url;
        let start = url_text::start(url, url.host_str().unwrap_or_default());
        let path = match url.path() {
            path if path == "/" || path.starts_with(OWN_PATH) => path,
            _ => "/***",
        };
        let query = if self.has_query() { "?***" } else { "" };
        write!(formatter, "{start}{path}{query}")
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Serializes a URL as it may be shown, for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize<S: Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    match HttpUrl::parse(url.expose()) {
        Ok(url) => serializer.collect_str(&url),
        Err(_) => url.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_login_path_and_query() {
        let check = |url: &str, shown: &str, request: &str| {
            let url = HttpUrl::parse(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.request(), request);
        };
        check(
            "http://u:pw@rabbit:15672",
            "http://***@rabbit:15672/",
            "http://rabbit:15672/",
        );
        check(
            "HTTPS://rabbit/api/hunter2?token=hunter2",
            "https://rabbit/***?***",
            "https://rabbit/api/hunter2?token=hunter2",
        );
        check(
            "http://[::1]:8080/webhooks/dd",
            "http://[::1]:8080/webhooks/dd",
            "http://[::1]:8080/webhooks/dd",
        );
        let url = HttpUrl::parse("http://a%3Ab:c%20d@h").unwrap();
        assert_eq!(url.login(), Some(("a:b", "c d")));
    }

    #[test]
    fn other_urls_are_refused_without_quoting() {
        for (url, expected) in [
            ("hunter2", HttpUrlError::Form),
            ("ftp://u:hunter2@h", HttpUrlError::Form),
            ("http://u:hunter2", HttpUrlError::Form),
            ("http://", HttpUrlError::Form),
            ("http://u:12/hunter2@h", HttpUrlError::Unencoded),
            ("http://u:hunter2#@h", HttpUrlError::Unencoded),
            ("http://u:hunter2%@h", HttpUrlError::Unencoded),
        ] {
            assert_eq!(HttpUrl::parse(url), Err(expected), "{url}");
            assert!(!expected.to_string().contains("hunter2"));
        }
    }
}
