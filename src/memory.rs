//! Memory for large bodies. It is mapped directly from the operating system and returned as soon as
//! it is dropped. Allocated from the heap, large bodies leave holes that the allocator keeps, and
//! its thresholds adapt so that it keeps more each time: a few bodies of 10 MiB would occupy 100
//! MiB permanently. (Measured with the allocator of the C library.) Imports no other module; any
//! module may use it.

use bytes::{Bytes, BytesMut};
use memmap2::MmapMut;

/// From this length in bytes, a body is handled separately: it is read without the other events of
/// its webhook and is never copied.
pub const LARGE_BYTES: usize = 1 << 20;

/// A buffer whose maximum length is at least this many bytes gets its own pages. Smaller buffers
/// come from the allocator.
const PAGES_BYTES_MIN: usize = 128 << 10;

/// Such a buffer moves to its own pages when it becomes longer than this many bytes. Until then it
/// grows on the heap; growing further there would leave a hole at each step.
const GROWN_BYTES: usize = 64 << 10;

/// A buffer for bytes being received, whose maximum length is known in advance.
#[derive(Debug)]
pub enum Buffer {
    /// On the heap; grows as it is filled.
    Small(BytesMut),
    /// Mapped from the operating system; pages that were never written to take no memory.
    Large(Pages),
}

/// A mapping that is as long as its buffer may become, and the number of bytes filled.
#[derive(Debug)]
pub struct Pages {
    pages: MmapMut,
    length: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Small(BytesMut::new())
    }
}

impl Buffer {
    /// Creates a buffer that takes `bytes_max` bytes without being moved. If the system has no
    /// pages for it, the buffer is on the heap.
    #[must_use]
    pub fn with_capacity(bytes_max: usize) -> Self {
        let mut buffer = Self::default();
        buffer.prepare(bytes_max, bytes_max);
        buffer
    }

    /// Number of bytes filled.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(Pages { length, .. }) => *length,
        }
    }

    /// Whether no byte has been filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for a total of `length` bytes. `bytes_max` is the most that the buffer will ever
    /// contain.
    pub fn prepare(&mut self, length: usize, bytes_max: usize) {
        let Self::Small(bytes) = self else { return };
        if length > GROWN_BYTES
            && bytes_max.max(length) >= PAGES_BYTES_MIN
            && let Ok(mut pages) = MmapMut::map_anon(bytes_max.max(length))
        {
            let length = bytes.len();
            pages[..length].copy_from_slice(bytes);
            *self = Self::Large(Pages { pages, length });
        } else {
            bytes.reserve(length.saturating_sub(bytes.len()));
        }
    }

    /// Appends bytes. If `prepare` made too little room for them, the buffer grows on the heap.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        match self {
            Self::Small(bytes) => bytes.extend_from_slice(more),
            Self::Large(Pages { pages, length }) if *length + more.len() <= pages.len() => {
                pages[*length..][..more.len()].copy_from_slice(more);
                *length += more.len();
            }
            Self::Large(Pages { pages, length }) => {
                let mut bytes = BytesMut::from(&pages[..*length]);
                bytes.extend_from_slice(more);
                *self = Self::Small(bytes);
            }
        }
    }

    /// Ends filling and returns the bytes without copying them.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        match self {
            Self::Small(bytes) => bytes.freeze(),
            Self::Large(pages) => Bytes::from_owner(pages),
        }
    }
}

/// Copies bytes, into their own pages if there are at least `PAGES_BYTES_MIN` of them.
#[must_use]
pub fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() < PAGES_BYTES_MIN {
        return Bytes::copy_from_slice(bytes);
    }
    let mut buffer = Buffer::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.freeze()
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.pages[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    /// Fills a buffer in pieces and prepares room before each, as for a request body.
    fn check(length: usize, bytes_max: usize, is_large: bool) {
        let text = text(length);
        let mut buffer = Buffer::default();
        for piece in text.chunks(10_007) {
            buffer.prepare(buffer.len() + piece.len(), bytes_max);
            buffer.extend_from_slice(piece);
        }
        assert_eq!(matches!(buffer, Buffer::Large(_)), is_large);
        assert_eq!(buffer.len(), length);
        assert!(buffer.freeze() == text);
    }

    #[test]
    fn contents_of_any_length_are_preserved() {
        check(0, 10 << 20, false);
        check(1000, 10 << 20, false);
        check(GROWN_BYTES, 10 << 20, false);
        check(GROWN_BYTES + 1, 10 << 20, true);
        check(PAGES_BYTES_MIN - 1, PAGES_BYTES_MIN - 1, false);
        check(PAGES_BYTES_MIN, PAGES_BYTES_MIN, true);
        check(5_000_000, 5_000_000, true);
        check(5_000_000, 10 << 20, true);
    }

    #[test]
    fn contents_beyond_the_capacity_are_preserved() {
        let mut buffer = Buffer::with_capacity(2 * PAGES_BYTES_MIN);
        let text = text(3 * PAGES_BYTES_MIN);
        buffer.extend_from_slice(&text[..PAGES_BYTES_MIN]);
        buffer.extend_from_slice(&text[PAGES_BYTES_MIN..]);
        assert!(buffer.freeze() == text);
    }

    #[test]
    fn copy_has_the_same_bytes() {
        for length in [
            0,
            1,
            PAGES_BYTES_MIN - 1,
            PAGES_BYTES_MIN,
            3 * PAGES_BYTES_MIN + 1,
        ] {
            let text = text(length);
            assert!(copy(&text) == text);
        }
    }
}
