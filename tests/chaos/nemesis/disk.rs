//! Faults of the journal: no space, slow and failing fsync.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::broker::seen;
use super::{Evidence, SHOWS_WITHIN, last};
use crate::schedule::{Kind, Planned};
use crate::stage::{Stage, until};
use crate::support::process::signal;

const FULL_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let mut bridge = stage.bridge().await;
    match planned.kind {
        Kind::BacklogFull => {
            bridge.kill().await;
            // `journal.backlog_bytes_max` must be able to hold a body of maximum size.
            bridge.reconfigure(
                "http.body_bytes_max = '512KiB'\njournal.backlog_bytes_max = '512KiB'",
            );
            stage.proxy.refuse();
            stage.start_full(&mut bridge).await;
            let before = stage.desk.refused();
            let is_full = until(FULL_WITHIN, async || stage.desk.refused() > before).await;
            last(planned).await;
            stage.proxy.pass();
            bridge.kill().await;
            bridge.reconfigure("http.body_bytes_max = '10MiB'\njournal.backlog_bytes_max = '1GiB'");
            stage.start(&mut bridge).await;
            seen(is_full, "webhooks were answered 503")
        }
        Kind::FsyncSlow => {
            let micros = 2_000 + planned.dice % 200_000;
            let tracer = Tracer::attach(bridge.pid(), &format!("delay_exit={micros}")).await?;
            last(planned).await;
            let is_slow = until(SHOWS_WITHIN, async || tracer.has_seen("(DELAYED)")).await;
            tracer.detach();
            seen(is_slow, format!("fsyncs took {micros} µs more"))
        }
        _ => {
            let tracer = Tracer::attach(bridge.pid(), "error=EIO:when=1").await?;
            let is_failed = until(SHOWS_WITHIN, async || tracer.has_seen("(INJECTED)")).await;
            if !is_failed {
                tracer.detach();
                return Err("no fsync came".into());
            }
            let exit = bridge.exit().await;
            tracer.detach();
            if exit.status.code() != Some(1) {
                let what = format!("a failed fsync: {}", exit.status);
                stage.ledger.complain(what);
            }
            stage.start(&mut bridge).await;
            Ok(format!(
                "an fsync returned EIO, and the bridge ended: {}",
                exit.status
            ))
        }
    }
}

/// An strace attached to a running process.
struct Tracer {
    strace: Child,
    log: PathBuf,
}

impl Tracer {
    async fn attach(pid: u32, fault: &str) -> Result<Self, String> {
        let log =
            std::env::temp_dir().join(format!("chaos-strace-{pid}-{}.log", std::process::id()));
        let _ = std::fs::remove_file(&log);
        let said = std::fs::File::create(log.with_extension("said")).map_err(|e| e.to_string())?;
        let strace = Command::new("strace")
            .args(["-f", "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .args(["-e", "trace=fsync,fdatasync"])
            .args(["-e", &format!("inject=fsync,fdatasync:{fault}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let tracer = Self { strace, log };
        // A failing fsync may have ended the process before the trace was visible.
        let is_traced = until(SHOWS_WITHIN, async || {
            tracer_of(pid) != 0 || tracer.has_seen("(INJECTED)")
        })
        .await;
        if is_traced {
            Ok(tracer)
        } else {
            tracer.detach();
            Err("strace could not attach".into())
        }
    }

    fn has_seen(&self, mark: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(mark))
    }

    fn detach(mut self) {
        signal(self.strace.id(), Signal::TERM);
        let _ = self.strace.wait();
        let _ = std::fs::remove_file(&self.log);
        let _ = std::fs::remove_file(self.log.with_extension("said"));
    }
}

/// The pid of the process that traces this process; 0: none.
fn tracer_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}
