//! Processes that end with the test: signals by pid, and a reaper in case the test process itself
//! is killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The path of a script of the repository.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}

/// The path of libfaketime, which fakes the time that a process sees; `None` if it is not
/// installed.
pub fn faketime() -> Option<String> {
    let places = std::fs::read_dir("/usr/lib").ok()?;
    let paths = places.flatten().map(|place| {
        let library = place.path().join("faketime/libfaketime.so.1");
        library.display().to_string()
    });
    let mut found = paths.filter(|path| std::path::Path::new(path).exists());
    found.next()
}

/// Sends a signal; no error if the process is gone.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(as_pid(pid), signal);
}

/// Whether any thread of the process is left, so that its files and ports may still be open.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let is_zombie = stat.rsplit(')').next().unwrap().starts_with(" Z");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !is_zombie || threads > 1
}

/// The pid of the first child of a process.
pub fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// CPU time that a process has used so far, to a hundredth of a second.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
    // User and system time.
    let ticks = [fields[12], fields[13]].map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.iter().sum::<u64>())
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Registers the process with the reaper: it ends when this process ends, however that happens.
pub fn end_with_us(pid: u32) {
    tell_reaper('+', pid);
}

/// Unregisters a process that has ended and been waited for.
pub fn has_ended(pid: u32) {
    tell_reaper('-', pid);
}

fn tell_reaper(verb: char, pid: u32) {
    static REAPER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        #[expect(
            clippy::zombie_processes,
            reason = "it outlives us, that is its purpose"
        )]
        let mut child = Command::new(script("reaper.sh"))
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("scripts/reaper.sh starts");
        Mutex::new(child.stdin.take().unwrap())
    });
    let mut pipe = reaper
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(pipe, "{verb}{pid}").expect("the reaper reads");
}
