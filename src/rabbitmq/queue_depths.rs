//! Queries the number of messages in the unrouted queue and in the dead-letter queue.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::open_connection::{CallError, OpenConnection};
use super::status_cell::BrokerStatusCell;
use super::topology::declare::Declarer;
use super::topology::disposable_channel::DisposableChannel;

/// Time between two queries.
const INTERVAL: Duration = Duration::from_secs(15);

/// Queries the counts until the connection is lost. If the broker refuses a query, the count is
/// unknown.
pub(super) async fn keep_asking(
    connection: &OpenConnection,
    declarer: &Declarer,
    status: &BrokerStatusCell,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut disposable = DisposableChannel::new(connection);
    while connection.unless_lost(ticks.tick()).await.is_ok() {
        let topology = declarer.topology();
        let Ok(unrouted) = count(&mut disposable, topology.unrouted_queue.as_deref()).await else {
            return;
        };
        let Ok(dead_letter) = count(&mut disposable, topology.dead_letter_queue.as_deref()).await
        else {
            return;
        };
        status.set_counts(unrouted, dead_letter);
    }
}

async fn count(
    disposable: &mut DisposableChannel<'_>,
    queue: Option<&str>,
) -> Result<Option<u64>, CallError> {
    let Some(queue) = queue else { return Ok(None) };
    match disposable.count(queue).await {
        Ok(count) => Ok(Some(count)),
        Err(CallError::Closed(..)) => Ok(None),
        Err(CallError::Lost) => Err(CallError::Lost),
    }
}
