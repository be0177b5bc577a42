//! Verifies that a body is from its source: HMAC-SHA256 over the raw bytes, keyed with any of the
//! source's secrets. Knows header values, but not HTTP.

use bytes::Bytes;
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::hmac::{self, HMAC_SHA256, Key};

/// The header that carries the signature, in lower case.
pub const HEADER: &str = "x-dd-signature";

const PREFIX: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// Bytes whose signature is valid, or whose source needs none. Only these can be split.
#[derive(Debug, Clone)]
pub struct Verified<T>(T, Option<usize>);

impl<T> Verified<T> {
    /// Position of the secret that signed them; `None` if none was needed.
    #[must_use]
    pub fn secret(&self) -> Option<usize> {
        self.1
    }

    /// Returns the bytes.
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

/// Why a body is not authentic. Only operators see this; a sender gets the same answer for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The header is missing.
    #[error("no signature header")]
    Missing,
    /// The header occurs more than once.
    #[error("more than one signature header")]
    Repeated,
    /// The header contains no valid digest.
    #[error("the signature header is not `sha256=` with 32 bytes in hex or base64")]
    Unreadable,
    /// The digest does not match this body with any secret of the source.
    #[error("{}", mismatch(*secrets))]
    Mismatch {
        /// How many secrets were tried.
        secrets: usize,
    },
}

fn mismatch(secrets: usize) -> String {
    match secrets {
        0 => "the source has no secret yet".into(),
        1 => "the secret of the source does not match the signature".into(),
        _ => format!("none of the {secrets} secrets matches the signature"),
    }
}

/// The signature that a request carries, not yet compared with its body.
#[derive(Debug, Clone)]
pub struct Signature(Option<[u8; DIGEST_BYTES]>);

impl Signature {
    /// Parses the values of all signature headers of a request. There must be exactly one value:
    /// `sha256=` in any case, then the digest in hex of either case or in base64, padded or not.
    ///
    /// # Errors
    /// There is no value, more than one, or one of another form.
    pub fn parse<V: AsRef<[u8]>>(
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, BadSignature> {
        let mut values = values.into_iter();
        let value = values.next().ok_or(BadSignature::Missing)?;
        if values.next().is_some() {
            return Err(BadSignature::Repeated);
        }
        let parts = value.as_ref().split_at_checked(PREFIX.len());
        let digest = parts
            .filter(|(prefix, _)| prefix.eq_ignore_ascii_case(PREFIX.as_bytes()))
            .and_then(|(_, digest)| decode(digest))
            .ok_or(BadSignature::Unreadable)?;
        Ok(Self(Some(digest)))
    }
}

/// The keys with which the bodies of one source are verified.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Anyone may post: `signature = "none"`.
    Unsigned,
    /// One of these keys must have signed a body. If there are none, no body is authentic.
    AnyOf(Vec<Key>),
}

impl Keys {
    /// Keys of a source that requires signatures. Empty secrets are left out, because everybody
    /// knows them.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let is_secret = |secret: &S| !secret.as_ref().is_empty();
        let key = |secret: S| Key::new(HMAC_SHA256, secret.as_ref());
        Self::AnyOf(secrets.into_iter().filter(is_secret).map(key).collect())
    }

    /// Parses the signature if this source needs one, so that a request without a valid header can
    /// be refused before its body is read.
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
        let secrets = keys.len();
        // Every key is tried, so that the time does not reveal which of the secrets signed.
        let signed_by = keys.iter().enumerate().fold(None, |found, (index, key)| {
            let is_signed = hmac::verify(key, &body, &digest).is_ok();
            if is_signed { Some(index) } else { found }
        });
        match signed_by {
            Some(index) => Ok(Verified(body, Some(index))),
            None => Err(BadSignature::Mismatch { secrets }),
        }
    }
}

/// The header value that a sender with this secret adds to this body.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    let tag = hmac::sign(&Key::new(HMAC_SHA256, secret), body);
    format!("{PREFIX}{}", HEXLOWER.encode(tag.as_ref()))
}

/// Decodes hex or base64, distinguished by the length of the text.
fn decode(digest: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    let bytes = match (digest.len(), digest) {
        (64, hex) => HEXLOWER_PERMISSIVE.decode(hex),
        // A decoder for padded text would also accept two padded texts in a row.
        (44, [unpadded @ .., b'=']) | (43, unpadded) => BASE64_NOPAD.decode(unpadded),
        _ => return None,
    };
    bytes.ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
