//! Is a body really from its source? HMAC-SHA256 over the raw bytes.

/// Bytes whose signature was right, or whose source needs none. Only these can be split.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Takes the bytes out.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}
