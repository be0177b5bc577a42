//! Is a body really from its source? HMAC-SHA256 over the raw bytes, keyed with any of the
//! source's secrets. Knows header values, not HTTP.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use bytes::Bytes;
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

/// The header that carries the signature, in lower case.
pub const HEADER: &str = "x-dd-signature";

const PREFIX: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// Bytes whose signature was right, or whose source needs none. Only these can be split.
#[derive(Debug, Clone)]
pub struct Verified<T>(T, Option<usize>);

impl<T> Verified<T> {
    /// Position of the secret that signed them; `None` if none was needed.
    #[must_use]
    pub fn secret(&self) -> Option<usize> {
        self.1
    }

    /// Takes the bytes out.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Verified<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Why a body is not authentic. Operators may know; a sender is not told which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSignature {
    /// The header is not there.
    Missing,
    /// The header is there more than once.
    Repeated,
    /// The header holds no digest.
    Unreadable,
    /// The digest is not that of this body with any secret of the source.
    Mismatch {
        /// How many secrets were tried.
        secrets: usize,
    },
}

impl fmt::Display for BadSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing => "no signature header",
            Self::Repeated => "more than one signature header",
            Self::Unreadable => {
                "the signature header is not `sha256=` with 32 bytes in hex or base64"
            }
            Self::Mismatch { secrets: 0 } => "the source has no secret yet",
            Self::Mismatch { secrets: 1 } => {
                "the secret of the source does not match the signature"
            }
            Self::Mismatch { secrets } => {
                return write!(
                    formatter,
                    "none of the {secrets} secrets matches the signature"
                );
            }
        };
        formatter.write_str(text)
    }
}

impl std::error::Error for BadSignature {}

/// What a request claims, not yet compared with its body.
#[derive(Debug, Clone)]
pub struct Signature(Option<[u8; DIGEST_BYTES]>);

impl Signature {
    /// Reads the values of all signature headers of a request: exactly one, `sha256=` in any
    /// case, then the digest in hex of either case or in base64, padded or not.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse<V: AsRef<[u8]>>(
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, BadSignature> {
        let mut values = values.into_iter();
        let value = values.next().ok_or(BadSignature::Missing)?;
        if values.next().is_some() {
            return Err(BadSignature::Repeated);
        }
        let (prefix, digest) = value
            .as_ref()
            .split_at_checked(PREFIX.len())
            .ok_or(BadSignature::Unreadable)?;
        if !prefix.eq_ignore_ascii_case(PREFIX.as_bytes()) {
            return Err(BadSignature::Unreadable);
        }
        decode(digest).map(|digest| Self(Some(digest)))
    }
}

/// What the bodies of one source are checked with.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Anybody may post: `signature = "none"`.
    Unsigned,
    /// One of these must have signed. None at all: nothing is authentic.
    AnyOf(Vec<Key>),
}

impl Keys {
    /// Keys of a source that requires signatures. An empty secret verifies nothing, because
    /// everybody knows it.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let is_secret = |secret: &S| !secret.as_ref().is_empty();
        let key = |secret: S| Key::new(HMAC_SHA256, secret.as_ref());
        Self::AnyOf(secrets.into_iter().filter(is_secret).map(key).collect())
    }

    /// Reads the signature as far as this source needs one, so that a request without a
    /// readable one can be refused before its body is read.
    ///
    /// # Errors
    /// As [`Signature::parse`]; never for an unsigned source.
    pub fn read<V: AsRef<[u8]>>(
        &self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Signature, BadSignature> {
        match self {
            Self::Unsigned => Ok(Signature(None)),
            Self::AnyOf(_) => Signature::parse(values),
        }
    }

    /// Compares a signature with the raw body, in constant time and with every key.
    ///
    /// # Errors
    /// No key of this source has signed this body.
    pub fn verify(
        &self,
        signature: &Signature,
        body: Bytes,
    ) -> Result<Verified<Bytes>, BadSignature> {
        let keys = match self {
            Self::Unsigned => return Ok(Verified(body, None)),
            Self::AnyOf(keys) => keys,
        };
        let digest = signature.0.ok_or(BadSignature::Missing)?;
        // Every key is tried: which of the secrets signed must not show in the time it takes.
        let signed_by = keys.iter().enumerate().fold(None, |found, (index, key)| {
            let is_signed = hmac::verify(key, &body, &digest).is_ok();
            if is_signed { Some(index) } else { found }
        });
        match signed_by {
            Some(index) => Ok(Verified(body, Some(index))),
            None => Err(BadSignature::Mismatch {
                secrets: keys.len(),
            }),
        }
    }
}

/// The first of these secrets, by its place, that signed this body. For a person with a captured
/// request: unlike [`Keys::verify`] it shows in the time it takes.
pub fn signer<S: AsRef<[u8]>>(
    secrets: impl IntoIterator<Item = S>,
    signature: &Signature,
    body: &[u8],
) -> Option<usize> {
    let digest = signature.0?;
    secrets.into_iter().position(|secret| {
        let key = Key::new(HMAC_SHA256, secret.as_ref());
        !secret.as_ref().is_empty() && hmac::verify(&key, body, &digest).is_ok()
    })
}

/// The header value a sender with this secret adds to this body.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    let tag = hmac::sign(&Key::new(HMAC_SHA256, secret), body);
    format!("{PREFIX}{}", HEXLOWER.encode(tag.as_ref()))
}

/// The lengths differ, so that no text is both hex and base64.
fn decode(digest: &[u8]) -> Result<[u8; DIGEST_BYTES], BadSignature> {
    let bytes = match (digest.len(), digest) {
        (64, hex) => HEXLOWER_PERMISSIVE.decode(hex),
        // A decoder of padded texts would take two of them in a row for one.
        (44, [unpadded @ .., b'=']) | (43, unpadded) => BASE64_NOPAD.decode(unpadded),
        _ => return Err(BadSignature::Unreadable),
    };
    let bytes = bytes.map_err(|_| BadSignature::Unreadable)?;
    bytes.try_into().map_err(|_| BadSignature::Unreadable)
}

#[cfg(test)]
mod tests;
