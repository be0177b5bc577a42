//! Which file systems can hold a journal. `serve` and `check` share this list of file systems whose
//! locks and syncs are known. A file system that is not listed is not trusted.

use std::io;
use std::path::Path;

/// How far a file system can be trusted with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// A local disk: locks and syncs work as POSIX says.
    Local,
    /// In memory: a reboot loses everything.
    Memory(&'static str),
    /// A driver in user space or outside of the virtual machine. The driver determines what a lock
    /// or a sync means.
    UserSpace(&'static str),
    /// Shared by several machines: SQLite's locks and its shared memory are not reliable there.
    Network(&'static str),
    /// A file system that is not listed, with its magic number.
    Unknown(u32),
}

use FileSystem::{Local, Memory, Network, UserSpace};

/// Keyed by the magic number that `statfs` returns. Sources: `linux/magic.h` and the sources of the
/// file systems.
const KNOWN: [(u32, FileSystem); 34] = [
    (0x0000_ef53, Local), // ext2, ext3, ext4
    (0x5846_5342, Local), // xfs
    (0x9123_683e, Local), // btrfs
    (0x2fc1_2fc1, Local), // zfs
    (0xf2f5_2010, Local), // f2fs
    (0xca45_1a4e, Local), // bcachefs
    (0x3153_464a, Local), // jfs
    (0x5265_4973, Local), // reiserfs
    (0x0000_3434, Local), // nilfs2
    (0x2405_1905, Local), // ubifs
    (0x0000_f15f, Local), // ecryptfs
    (0x794c_7630, Local), // overlayfs
    (0x6175_6673, Local), // aufs
    (0x0102_1994, Memory("tmpfs")),
    (0x8584_58f6, Memory("ramfs")),
    (0x6573_5546, UserSpace("FUSE or virtiofs")),
    (0x6573_5543, UserSpace("FUSE")),
    (0x786f_4256, UserSpace("vboxsf")),
    (0xbacb_acbc, UserSpace("vmhgfs")),
    (0x7c7c_6673, UserSpace("prl_fs")),
    (0x0000_6969, Network("NFS")),
    (0x0000_517b, Network("SMB")),
    (0xff53_4d42, Network("CIFS")),
    (0xfe53_4d42, Network("SMB2")),
    (0x0102_1997, Network("9p")),
    (0x00c3_6400, Network("Ceph")),
    (0x5346_414f, Network("AFS")),
    (0x6b41_4653, Network("kAFS")),
    (0x7375_7245, Network("Coda")),
    (0x0000_564c, Network("NCP")),
    (0x7461_636f, Network("OCFS2")),
    (0x0116_1970, Network("GFS2")),
    (0x0bd0_0bd0, Network("Lustre")),
    (0x4750_4653, Network("GPFS")),
];

impl FileSystem {
    /// The file system of a file or directory.
    ///
    /// # Errors
    /// `statfs` fails.
    pub fn of(path: &Path) -> io::Result<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the magic number has 32 bits whatever the type of the field"
        )]
        let magic = rustix::fs::statfs(path)?.f_type as u32;
        Ok(Self::from_magic(magic))
    }

    /// A warning for operators about this file system; `None` for a local disk.
    #[must_use]
    pub fn concern(self) -> Option<String> {
        match self {
            Local => None,
            Memory(name) => Some(format!(
                "the journal is stored in memory ({name}): a reboot loses all pending events"
            )),
            UserSpace(name) => Some(format!(
                "the journal is stored on {name}, where locks and syncs depend on a driver: a \
                 crash of the machine may lose accepted events"
            )),
            Network(name) => Some(format!(
                "the journal is stored on a network file system ({name}), where its locks are not \
                 reliable"
            )),
            Self::Unknown(magic) => Some(format!(
                "the journal is stored on a file system that deskbridge does not know \
                 ({magic:#010x}): its locks and syncs may not be reliable"
            )),
        }
    }

    fn from_magic(magic: u32) -> Self {
        let known = KNOWN.iter().find(|(known, _)| *known == magic);
        known.map_or(Self::Unknown(magic), |(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_disks_have_no_finding() {
        for magic in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x794c_7630] {
            assert_eq!(FileSystem::from_magic(magic).concern(), None, "{magic:#x}");
        }
        for (magic, word) in [
            (0x6969, "NFS"),
            (0x0102_1997, "9p"),
            (0x00c3_6400, "Ceph"),
            (0x6573_5546, "FUSE"),
            (0x0102_1994, "tmpfs"),
            (0x1234_5678, "0x12345678"),
        ] {
            let concern = FileSystem::from_magic(magic).concern().unwrap();
            assert!(concern.contains(word), "{concern}");
        }
    }

    #[test]
    fn no_number_is_listed_twice() {
        let mut numbers: Vec<_> = KNOWN.iter().map(|(magic, _)| *magic).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), KNOWN.len());
    }
}
