//! Disks of our own that can be filled, made read-only and cut from power. Only root may mount
//! them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skip::skipped;

/// `EXT4_IOC_SHUTDOWN` without flushing ext4's own log: what was not synced is gone.
const CUT: &str = r#"my $how = pack("L", 2);
    open(F, "<", $ARGV[0]) && ioctl(F, 0x8004587d, $how) or die $!"#;

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    dir: TempDir,
    options: Options,
}

enum Options {
    Memory(String),
    /// In a file of this directory.
    Image(TempDir),
}

impl Disk {
    /// A small disk in memory; none, said to be missing for `test`, where it cannot be mounted.
    pub fn in_memory(test: &str, bytes: &str) -> Option<Self> {
        let options = Options::Memory(format!("size={bytes},mode=700"));
        Self::mounted(test, options)
    }

    /// An ext4 file system in a file.
    pub fn in_a_file(test: &str, bytes: u64) -> Option<Self> {
        let image = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(image.path().join("image")).unwrap();
        file.set_len(bytes).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
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

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left; remove the file to give it back.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }

    /// Cuts an ext4 disk from power, as far as it can see: nothing more is written to it.
    pub fn cut(&self) {
        let cut = Command::new("perl")
            .args(["-e", CUT])
            .arg(self.path())
            .output()
            .unwrap();
        assert!(cut.status.success(), "{cut:?}");
        let write = std::fs::write(self.path().join("after the cut"), "");
        assert!(write.is_err(), "the disk still takes writes");
    }

    /// Brings it back after a cut. Nobody may have a file of it open.
    pub fn restore(&self) {
        let unmounted = Command::new("umount").arg(self.path()).output().unwrap();
        assert!(unmounted.status.success(), "{unmounted:?}");
        assert!(self.mount(), "the disk cannot be mounted again");
        let write = std::fs::write(self.path().join("after the cut"), "");
        assert!(
            write.is_ok(),
            "{write:?}: somebody with mounts of their own, a container perhaps, has the old disk"
        );
    }

    /// An ext4 disk that has met an error of its own refuses every write from now on.
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
        assert!(write.is_err(), "the disk still takes writes");
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
