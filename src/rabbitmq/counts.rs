//! Asks the broker now and then how much waits in the two holding queues.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::board::Board;
use super::live::{CallError, Live};
use super::topology::declare::Declarer;
use super::topology::scratch::Scratch;

/// How often.
const INTERVAL: Duration = Duration::from_secs(15);

/// Asks until the connection is lost. A question that fails leaves the count unknown.
pub(super) async fn keep_asking(live: &Live, declarer: &Declarer, board: &Board) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut scratch = Scratch::new(live);
    while live.unless_lost(ticks.tick()).await.is_ok() {
        let topology = declarer.topology();
        let Ok(unrouted) = count(&mut scratch, topology.unrouted_queue.as_deref()).await else {
            return;
        };
        let Ok(dead_letter) = count(&mut scratch, topology.dead_letter_queue.as_deref()).await
        else {
            return;
        };
        board.set_counts(unrouted, dead_letter);
    }
}

async fn count(scratch: &mut Scratch<'_>, queue: Option<&str>) -> Result<Option<u64>, CallError> {
    let Some(queue) = queue else { return Ok(None) };
    match scratch.count(queue).await {
        Ok(count) => Ok(Some(count)),
        Err(CallError::Closed(..)) => Ok(None),
        Err(CallError::Lost) => Err(CallError::Lost),
    }
}
