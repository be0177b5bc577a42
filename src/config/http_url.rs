//! URLs of HTTP that may hold a secret: that of the management API, and where `send` posts.

use std::fmt;

use serde::Serializer;

use super::sources::{MASK, Secret};
use super::url_text::{self, SPECIAL};

/// Paths that begin so are the bridge's own and no secret.
const OWN_PATH: &str = "/webhooks/";

/// An `http` or `https` URL. Shown without login, parameters and foreign paths.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    url: url::Url,
    login: Option<(String, String)>,
}

/// Why a text is not a usable URL. Quotes nothing: the URL may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// Not `http` or `https`, no host, or no URL at all.
    #[error("must be http://… or https://… with a host")]
    Form,
    /// A character that ends user or password too early.
    #[error("a special character stands for itself: {SPECIAL}")]
    Unencoded,
}

impl HttpUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is no `http` or `https` URL with a host.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        let text = text.trim();
        let (scheme, _) = text.split_once("://").ok_or(HttpUrlError::Form)?;
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
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
        let login = if url_text::has_login(&url) {
            Some((
                decoded(url.username())?,
                decoded(url.password().unwrap_or_default())?,
            ))
        } else {
            None
        };
        Ok(Self { url, login })
    }

    /// User and password, if it names them. Not to be shown.
    #[must_use]
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Whether there is something behind a `?`.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.url.query().is_some()
    }

    /// The whole URL but for the login, to be asked. Not to be shown.
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
        let login = if self.login.is_some() { "***@" } else { "" };
        let host = url.host_str().unwrap_or_default();
        write!(formatter, "{}://{login}{host}", url.scheme())?;
        if let Some(port) = url.port() {
            write!(formatter, ":{port}")?;
        }
        match url.path() {
            path if path == "/" || path.starts_with(OWN_PATH) => formatter.write_str(path)?,
            _ => formatter.write_str("/***")?,
        }
        formatter.write_str(if self.has_query() { "?***" } else { "" })
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Writes a URL for people, for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub(super) fn serialize<S: Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    if url.expose().is_empty() {
        return serializer.serialize_str("");
    }
    match HttpUrl::parse(url.expose()) {
        Ok(url) => serializer.collect_str(&url),
        Err(_) => serializer.serialize_str(MASK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_without_login_path_and_parameters() {
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
    fn anything_else_is_refused_without_quoting_it() {
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
