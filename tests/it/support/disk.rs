//! Private disks that tests can fill, make read-only and cut from power. Mounting them needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skip::skipped;

/// `EXT4_IOC_SHUTDOWN` without flushing ext4's own journal: data that was not synced is lost.
const CUT: &str = r#"my $how = pack("L", 2);
    open(F, "<", $ARGV[0]) && ioctl(F, 0x8004587d, $how) or die $!"#;

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    dir: TempDir,
    options: Options,
}

enum Options {
    Memory(String),
    /// A file in this directory.
    Image(TempDir),
}

impl Disk {
    /// A small tmpfs, or `None` if it cannot be mounted; `test` is then reported as skipped.
    pub fn in_memory(test: &str, bytes: &str) -> Option<Self> {
        let options = Options::Memory(format!("size={bytes},mode=700"));
        Self::mounted(test, options)
    }

    /// An ext4 file system with a journal, in an image file in the temporary directory.
    pub fn in_a_file(test: &str, bytes: u64) -> Option<Self> {
        Self::in_a_file_of(test, bytes, &std::env::temp_dir())
    }

    /// As [`Disk::in_a_file`], with the image file in this directory.
    pub fn in_a_file_of(test: &str, bytes: u64, dir: &Path) -> Option<Self> {
        let image = tempfile::tempdir_in(dir).unwrap();
        let file = std::fs::File::create(image.path().join("image")).unwrap();
        file.set_len(bytes).unwrap();
        let made = Command::new("mkfs.ext4")
            // No lazy initialisation: the kernel would keep writing after the mount.
            .args(["-q", "-F", "-O", "has_journal"])
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(image.path().join("image"))
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            skipped(test, "needs mkfs.ext4");
            return None;
        }
        Self::mounted(test, Options::Image(image))
    }

    fn mounted(test: &str, options: Options) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self { dir, options };
        if disk.mount() {
            return Some(disk);
        }
        skipped(
            test,
            "needs the right to mount a disk (root, and loop devices)",
        );
        None
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills all remaining space. Remove the returned file to free it.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }

    /// Simulates a power failure of an ext4 disk: nothing more is written to it.
    pub fn cut(&self) {
        let cut = Command::new("perl")
            .args(["-e", CUT])
            .arg(self.path())
            .output()
            .unwrap();
        assert!(cut.status.success(), "{cut:?}");
        let write = std::fs::write(self.path().join("after the cut"), "");
        assert!(write.is_err(), "the disk still accepts writes");
    }

    /// Mounts the disk again after a cut. No process may have a file on it open.
    pub fn restore(&self) {
        let unmounted = Command::new("umount").arg(self.path()).output().unwrap();
        assert!(unmounted.status.success(), "{unmounted:?}");
        assert!(self.mount(), "the disk cannot be mounted again");
        let write = std::fs::write(self.path().join("after the cut"), "");
        assert!(
            write.is_ok(),
            "{write:?}: another mount namespace (a container?) still holds the old disk"
        );
    }

    /// Makes ext4 meet an internal error, after which it refuses every write.
    pub fn turn_read_only(&self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let place = self.path().display().to_string();
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let device = fields.find_map(|mut line| {
            let device = line.next()?;
            (line.next()? == place).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.expect("it is mounted");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(trigger, "by a test").unwrap();
        let write = std::fs::write(self.path().join("after the error"), "");
        assert!(write.is_err(), "the disk still accepts writes");
    }

    fn mount(&self) -> bool {
        let mut mount = Command::new("mount");
        match &self.options {
            Options::Memory(options) => {
                mount.args(["-t", "tmpfs", "-o", options, "deskbridge-test"])
            }
            Options::Image(image) => mount
                .args(["-o", "loop,errors=remount-ro"])
                .arg(image.path().join("image")),
        };
        mount
            .arg(self.path())
            .output()
            .is_ok_and(|mounted| mounted.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
