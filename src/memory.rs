//! Large bodies have memory of their own from the operating system and give it back at once. From
//! the allocator they would leave holes that it keeps, and it learns from each to keep more: a few
//! bodies of 10 MiB would stay as 100 MiB for good. Imports nothing; any room may use it.

use bytes::{Bytes, BytesMut};
use memmap2::MmapMut;

/// What is smaller comes from the allocator.
pub const LARGE_BYTES: usize = 1 << 20;

/// A buffer that may get large has pages of its own as soon as it is longer than this. Up to there
/// it grows in the allocator, where each step would leave a hole.
const GROWN_BYTES: usize = 64 << 10;

/// Bytes on their way in, of which it is known how many there may be.
#[derive(Debug)]
pub enum Buffer {
    /// From the allocator: grows as it is filled.
    Small(BytesMut),
    /// From the operating system: pages that were not written to cost nothing.
    Large {
        /// As long as it may get.
        pages: MmapMut,
        /// How much of it is filled.
        length: usize,
    },
}

/// The filled part of a mapping.
struct Pages {
    pages: MmapMut,
    length: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Small(BytesMut::new())
    }
}

impl Buffer {
    /// One that can be filled with `bytes_max` bytes without being moved, if the system has them.
    #[must_use]
    pub fn with_capacity(bytes_max: usize) -> Self {
        let mut buffer = Self::default();
        buffer.prepare(bytes_max, bytes_max);
        buffer
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large { length, .. } => *length,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `length` bytes in all. There will never be more than `bytes_max`.
    pub fn prepare(&mut self, length: usize, bytes_max: usize) {
        let Self::Small(bytes) = self else { return };
        if length > GROWN_BYTES
            && bytes_max.max(length) >= LARGE_BYTES
            && let Ok(mut pages) = MmapMut::map_anon(bytes_max.max(length))
        {
            let length = bytes.len();
            pages[..length].copy_from_slice(bytes);
            *self = Self::Large { pages, length };
        } else {
            bytes.reserve(length.saturating_sub(bytes.len()));
        }
    }

    /// Adds what has come. What there was no room made for is made room for.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        match self {
            Self::Small(bytes) => bytes.extend_from_slice(more),
            Self::Large { pages, length } if *length + more.len() <= pages.len() => {
                pages[*length..][..more.len()].copy_from_slice(more);
                *length += more.len();
            }
            Self::Large { pages, length } => {
                let mut bytes = BytesMut::from(&pages[..*length]);
                bytes.extend_from_slice(more);
                *self = Self::Small(bytes);
            }
        }
    }

    /// No more will come.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        match self {
            Self::Small(bytes) => bytes.freeze(),
            Self::Large { pages, length } => Bytes::from_owner(Pages { pages, length }),
        }
    }
}

/// A copy.
#[must_use]
pub fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() < LARGE_BYTES {
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

    /// In pieces, with room made before each as for a body.
    fn check(length: usize, bytes_max: usize, is_large: bool) {
        let text = text(length);
        let mut buffer = Buffer::default();
        for piece in text.chunks(10_007) {
            buffer.prepare(buffer.len() + piece.len(), bytes_max);
            buffer.extend_from_slice(piece);
        }
        assert_eq!(matches!(buffer, Buffer::Large { .. }), is_large);
        assert_eq!(buffer.len(), length);
        assert!(buffer.freeze() == text);
    }

    #[test]
    fn what_went_in_comes_out_whatever_its_length() {
        check(0, 10 << 20, false);
        check(1000, 10 << 20, false);
        check(GROWN_BYTES, 10 << 20, false);
        check(GROWN_BYTES + 1, 10 << 20, true);
        check(LARGE_BYTES - 1, LARGE_BYTES - 1, false);
        check(LARGE_BYTES, LARGE_BYTES, true);
        check(5_000_000, 5_000_000, true);
        check(5_000_000, 10 << 20, true);
    }

    #[test]
    fn more_than_there_was_room_for_comes_out_too() {
        let mut buffer = Buffer::with_capacity(2 * LARGE_BYTES);
        let text = text(3 * LARGE_BYTES);
        buffer.extend_from_slice(&text[..LARGE_BYTES]);
        buffer.extend_from_slice(&text[LARGE_BYTES..]);
        assert!(buffer.freeze() == text);
    }

    #[test]
    fn a_copy_is_the_same_bytes() {
        for length in [0, 1, LARGE_BYTES - 1, LARGE_BYTES, 3 * LARGE_BYTES + 1] {
            let text = text(length);
            assert!(copy(&text) == text);
        }
    }
}
