//! Observes the bridge while it runs: memory ten times a second; counters, descriptors and the size
//! of the journal every second.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::ledger::Account;
use crate::stage::Stage;

const PAUSE: Duration = Duration::from_millis(100);
const BOOKS_EVERY: u64 = 10;

/// Observes until the task is aborted.
pub fn start(stage: &Arc<Stage>, journal: PathBuf) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    tokio::spawn(async move {
        let mut round = 0;
        loop {
            look(&stage);
            if round % BOOKS_EVERY == 0 {
                look_closer(&stage, &journal).await;
            }
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
    })
}

fn look(stage: &Stage) {
    let rss = rss_bytes(stage.pid());
    let peaks = &mut stage.ledger.history().peaks;
    peaks.rss_bytes = peaks.rss_bytes.max(rss);
}

async fn look_closer(stage: &Stage, journal: &Path) {
    let (descriptors, bytes) = (descriptors(stage.pid()), bytes_in(journal));
    let account = account(stage).await;
    let mut history = stage.ledger.history();
    history.peaks.descriptors = history.peaks.descriptors.max(descriptors);
    history.peaks.journal_bytes = history.peaks.journal_bytes.max(bytes);
    if let Some(account) = account {
        history.peaks.backlog = history.peaks.backlog.max(account.backlog);
        history.accounts.push(account);
    }
}

/// The bridge's counters, if it answers.
pub async fn account(stage: &Stage) -> Option<Account> {
    let metrics = stage.metrics().await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole numbers"
    )]
    let sum = |name| metrics.sum(name) as u64;
    Some(Account {
        at: stage.ledger.now(),
        accepted: sum("sessions_accepted_total"),
        published: sum("sessions_published_total"),
        dead_lettered: sum("dead_letters_total"),
        backlog: sum("journal_backlog_events"),
    })
}

/// Open descriptors of a process, 0 if it is gone.
pub fn descriptors(pid: u32) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    open.map_or(0, |open| open.count() as u64)
}

fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn bytes_in(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
}
