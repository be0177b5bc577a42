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
/// Complete transactions behind a damaged frame from which on it is damage. A single one may be that
/// of a crash, whose frames were not yet synced and can be missing in any order.
const TRANSACTIONS_MIN: usize = 2;

/// A frame whose checksum is right.
struct Frame {
    page: u32,
    /// The size of the database in pages after the transaction that this frame ends; otherwise 0.
    commit: u32,
    /// Whether a frame before it is damaged.
    is_behind_damage: bool,
    content: Vec<u8>,
}

/// Whether complete transactions lie behind a damaged frame of the WAL.
pub(super) fn has_gap(database: &Path) -> io::Result<bool> {
    let mut behind = 0;
    read(database, |frame| {
        behind += usize::from(frame.is_behind_damage && frame.commit > 0);
    })?;
    Ok(behind >= TRANSACTIONS_MIN)
}

/// Copies the database with all frames of the WAL that are not damaged. A page whose frame is damaged
/// has an earlier content, unless a later frame has it, too.
pub(super) fn copy_over_gap(database: &Path) -> io::Result<RepairedCopy> {
    let copy = RepairedCopy::of(database)?;
    let file = File::options().write(true).open(&copy.0)?;
    let (mut transaction, mut result) = (Vec::new(), Ok(()));
    read(database, |frame| {
        let commit = frame.commit;
        transaction.push(frame);
        if commit > 0 && result.is_ok() {
            let write = |frame: Frame| {
                let place = u64::from(frame.page - 1) * u64::from(PAGE_BYTES);
                file.write_all_at(&frame.content, place)
            };
            result = transaction.drain(..).try_for_each(write);
            let size = u64::from(commit) * u64::from(PAGE_BYTES);
            result = std::mem::replace(&mut result, Ok(())).and_then(|()| file.set_len(size));
        }
    })?;
    result.map(|()| copy)
}

/// Calls `visit` for each frame whose checksum is right. Each checksum includes that of the frame
/// before it, as it is stored, so that the frames behind a damaged one can be checked, too.
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
    let magic = number(&header, 0);
    if magic & !1 != MAGIC || number(&header, 8) != PAGE_BYTES {
        return Ok(());
    }
    let is_big_endian = magic & 1 == 1;
    let salts = &header[16..24];
    let mut before = (number(&header, 24), number(&header, 28));
    let mut is_behind_damage = checksum((0, 0), &header[..24], is_big_endian) != before;
    let mut frame = vec![0; FRAME_HEADER_BYTES + PAGE_BYTES as usize];
    while has_read(&mut wal, &mut frame)? {
        let (head, content) = frame.split_at(FRAME_HEADER_BYTES);
        let sum = checksum(before, &head[..8], is_big_endian);
        let sum = checksum(sum, content, is_big_endian);
        before = (number(head, 16), number(head, 20));
        if sum == before && &head[8..16] == salts && number(head, 0) > 0 {
            visit(Frame {
                page: number(head, 0),
                commit: number(head, 4),
                is_behind_damage,
                content: content.to_vec(),
            });
        } else {
            is_behind_damage = true;
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
