//! Chooses what delays rejected messages. From RabbitMQ 4.3 on, the broker can delay them in the
//! consumer queue itself. Otherwise, or where the retry queues exist already, the bridge does it
//! with the retry queues.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::disposable_channel::{DisposableChannel, exists};
use super::{
    Arguments, Object, PlannedQueue, RetryTopology, Topology, milliseconds, queue_arguments,
};
use crate::config::queues::QueueConfig;
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::open_connection::{CallError, OpenConnection};
use crate::rabbitmq::reply_code::PRECONDITION_FAILED;
use crate::rabbitmq::version::Version;
use crate::telemetry::status::Retries;

/// The first version in which a queue can delay retries itself.
const FIRST: Version = Version(4, 3);
const TYPE: &str = "x-delayed-retry-type";

/// The arguments of a consumer queue in which the broker delays rejected messages.
pub(super) fn arguments(queue: &QueueConfig, delay: Duration, dead_letter: &str) -> Arguments {
    // The broker allows this many failed deliveries, and dead-letters at the next one.
    let delivery_limit = queue.delivery_limit.saturating_sub(1);
    let mut arguments = queue_arguments(queue, delivery_limit, dead_letter);
    arguments.extend([
        // Delays after rejections and lost consumers, the cases that the delivery limit counts. A
        // `nack` is neither.
        (TYPE, "failed".into()),
        ("x-delayed-retry-min", milliseconds(delay)),
        ("x-delayed-retry-max", milliseconds(delay)),
    ]);
    arguments
}

impl Topology {
    /// Whether the broker or the bridge delays rejected messages, for each queue with a
    /// `retry_delay`.
    #[must_use]
    pub fn retries(&self) -> BTreeMap<String, Retries> {
        let who = |queue: &PlannedQueue| {
            let is_ours = self.delayed.iter().any(|one| one.queue == queue.name);
            let retries = if is_ours {
                Retries::Bridge
            } else {
                Retries::Broker
            };
            (queue.name.clone(), retries)
        };
        self.by_broker.iter().map(who).collect()
    }

    /// The topology for a broker of this version that has none of its objects yet.
    #[must_use]
    pub fn for_version(&self, version: Version) -> Self {
        if version < FIRST {
            return self.clone();
        }
        let delayed = self.delayed.iter();
        self.left_to_broker(&delayed.map(|one| one.queue.clone()).collect())
    }

    /// A copy of the plan in which the broker delays the rejected messages of the `chosen` queues:
    /// without their satellites, and with other arguments.
    fn left_to_broker(&self, chosen: &BTreeSet<String>) -> Self {
        let mut topology = self.clone();
        let is_chosen = |delayed: &mut RetryTopology| chosen.contains(&delayed.queue);
        let left: Vec<_> = topology.delayed.extract_if(.., is_chosen).collect();
        let is_satellite = |name: &String| {
            let mut all = left.iter();
            all.any(|one| [&one.rejected, &one.retry, &one.retried].contains(&name))
        };
        topology.objects.retain(|object| match object {
            Object::Exchange(exchange) => !is_satellite(&exchange.name),
            Object::Queue(queue) => !is_satellite(&queue.name),
            Object::Binding(binding) => !is_satellite(&binding.exchange),
        });
        for object in &mut topology.objects {
            if let Object::Queue(queue) = object
                && chosen.contains(&queue.name)
                && let Some(other) = self.by_broker.iter().find(|one| one.name == queue.name)
            {
                *queue = other.clone();
            }
        }
        topology
    }
}

/// Chooses the topology for a broker of this version. Changes nothing on the broker.
///
/// # Errors
/// Only if the connection is lost.
pub(in crate::rabbitmq) async fn choose(
    connection: &OpenConnection,
    version: Version,
    planned: &Topology,
) -> Result<Topology, CallError> {
    let mut chosen = BTreeSet::new();
    if version >= FIRST {
        let mut disposable = DisposableChannel::new(connection);
        for (delayed, queue) in planned.delayed.iter().zip(&planned.by_broker) {
            if is_the_brokers(&mut disposable, planned.mode, delayed, queue).await? {
                chosen.insert(queue.name.clone());
            }
        }
    }
    Ok(planned.left_to_broker(&chosen))
}

async fn is_the_brokers(
    disposable: &mut DisposableChannel<'_>,
    mode: TopologyMode,
    delayed: &RetryTopology,
    queue: &PlannedQueue,
) -> Result<bool, CallError> {
    if mode == TopologyMode::Declare && exists(disposable.count(&queue.name).await)? {
        // Declaring an existing queue only compares the arguments.
        match disposable.create_queue(queue).await {
            Ok(()) => return Ok(true),
            Err(CallError::Closed(PRECONDITION_FAILED, _)) => return Ok(false),
            Err(CallError::Closed(..)) => {}
            Err(CallError::Lost) => return Err(CallError::Lost),
        }
    }
    // If the retry queues exist, messages may be waiting in them.
    Ok(!exists(disposable.count(&delayed.rejected).await)?)
}
