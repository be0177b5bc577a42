//! Finds damage in the middle of a WAL (<https://sqlite.org/fileformat2.html#walformat>). For SQLite,
//! the first frame with a wrong checksum is the end of the WAL: it drops all transactions behind it,
//! without an error.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::first_page::RepairedCopy;
use crate::journal::files;
use crate::journal::schema::PAGE_BYTES;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit of the magic number says whether checksums are of big-endian numbers.
const MAGIC: u32 = 0x377f_0682;
/// Ends of transactions from the first damaged frame on. One may be that of a transaction that a crash
/// interrupted: its frames were not yet synced and can be missing in any order.
const TRANSACTIONS_MIN: usize = 2;

/// A frame of the current generation of the WAL.
struct Frame {
    page: u32,
    /// The size of the database in pages after the transaction that this frame ends; otherwise 0.
    commit: u32,
    /// Whether its checksum is right.
    is_intact: bool,
    /// Whether this frame or one before it is damaged.
    is_after_damage: bool,
    content: Vec<u8>,
}

/// Whether complete transactions lie behind a damaged frame of the WAL.
pub(super) fn has_gap(database: &Path) -> io::Result<bool> {
    let mut ends = 0;
    read(database, |frame| {
        ends += usize::from(frame.is_after_damage && frame.commit > 0);
    })?;
    Ok(ends >= TRANSACTIONS_MIN)
}

/// Copies the database with all intact frames of the WAL. A page whose frame is damaged has an earlier
/// content, unless a later frame contains it, too.
pub(super) fn copy_over_gap(database: &Path) -> io::Result<RepairedCopy> {
    let copy = RepairedCopy::of(database)?;
    let file = File::options().write(true).open(&copy.0)?;
    let (mut transaction, mut result) = (Vec::new(), Ok(()));
    read(database, |frame| {
        if !frame.is_intact {
            return;
        }
        let bytes_before = |pages: u32| u64::from(pages) * u64::from(PAGE_BYTES);
        let commit = frame.commit;
        transaction.push(frame);
        if commit > 0 && result.is_ok() {
            result = transaction
                .drain(..)
                .try_for_each(|frame| {
                    file.write_all_at(&frame.content, bytes_before(frame.page - 1))
                })
                .and_then(|()| file.set_len(bytes_before(commit)));
        }
    })?;
    result.map(|()| copy)
}

/// Calls `visit` for each frame with the salts of the current generation. Each checksum includes that
/// of the frame before it, as it is stored, so that the frames behind a damaged one can be checked, too.
fn read(database: &Path, mut visit: impl FnMut(Frame)) -> io::Result<()> {
    let wal = match File::open(files::with_suffix(database, "-wal")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        wal => wal?,
    };
    let mut wal = BufReader::with_capacity(1 << 20, wal);
    let mut header = [0; HEADER_BYTES];
    if !has_read(&mut wal, &mut header)? {
        return Ok(());
    }
    let mut is_big_endian = number(&header, 0) & 1 == 1;
    let mut before = (number(&header, 24), number(&header, 28));
    let is_header_intact = number(&header, 0) & !1 == MAGIC
        && number(&header, 8) == PAGE_BYTES
        && checksum((0, 0), &header[..24], is_big_endian) == before;
    let mut salts = [0; 8];
    salts.copy_from_slice(&header[16..24]);
    let mut is_after_damage = !is_header_intact;
    let mut is_first = true;
    let mut frame = vec![0; FRAME_HEADER_BYTES + PAGE_BYTES as usize];
    while has_read(&mut wal, &mut frame)? {
        let (head, content) = frame.split_at(FRAME_HEADER_BYTES);
        if std::mem::take(&mut is_first) && !is_header_intact {
            // The first frame belongs to the current generation. SQLite writes in native order.
            salts.copy_from_slice(&head[8..16]);
            is_big_endian = cfg!(target_endian = "big");
        }
        let (page, is_current) = (number(head, 0), head[8..16] == salts);
        let sum = checksum(before, &head[..8], is_big_endian);
        let sum = checksum(sum, content, is_big_endian);
        before = (number(head, 16), number(head, 20));
        let is_intact = sum == before && is_current && page > 0;
        is_after_damage |= !is_intact;
        if is_current {
            visit(Frame {
                page,
                commit: number(head, 4),
                is_intact,
                is_after_damage,
                content: content.to_vec(),
            });
        }
    }
    Ok(())
}

/// Fills the buffer; `false` at the end of the file.
fn has_read(wal: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match wal.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_be_bytes(bytes)
}

fn checksum(before: (u32, u32), bytes: &[u8], is_big_endian: bool) -> (u32, u32) {
    let number = |bytes: &[u8]| {
        let bytes = bytes.try_into().expect("four bytes");
        if is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    bytes.chunks_exact(8).fold(before, |(first, second), pair| {
        let first = first.wrapping_add(number(&pair[..4])).wrapping_add(second);
        let second = second.wrapping_add(number(&pair[4..])).wrapping_add(first);
        (first, second)
    })
}
