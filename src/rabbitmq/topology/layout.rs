//! Who lets a rejected message wait: a broker from 4.3 on in the consumers' queue itself, the bridge
//! with queues of its own where the broker cannot, or where those queues are there already.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::scratch::{PRECONDITION_FAILED, Scratch};
use super::{Argument, Delayed, Object, Queue, Topology, milliseconds, queue_arguments};
use crate::config::queues::Queue as QueueConfig;
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::live::{CallError, Live};
use crate::rabbitmq::version::Version;
use crate::telemetry::status::Retries;

/// The first version with a delayed retry of its own.
const FIRST: Version = Version(4, 3);
const TYPE: &str = "x-delayed-retry-type";

/// The arguments of a consumer queue whose broker lets rejected messages wait.
pub(super) fn arguments(
    queue: &QueueConfig,
    delay: Duration,
    dead_letter: &str,
) -> Vec<(&'static str, Argument)> {
    let mut arguments = queue_arguments(queue, dead_letter);
    for (name, value) in &mut arguments {
        if *name == "x-delivery-limit" {
            // The broker allows as many and dead-letters at the next.
            *value = Argument::Integer(i64::from(queue.delivery_limit.saturating_sub(1)));
        }
    }
    arguments.extend([
        // Rejections and lost consumers, as the delivery limit counts; a `nack` is neither.
        (TYPE, "failed".into()),
        ("x-delayed-retry-min", milliseconds(delay)),
        ("x-delayed-retry-max", milliseconds(delay)),
    ]);
    arguments
}

impl Topology {
    /// Who lets rejected messages wait, by queue.
    #[must_use]
    pub fn retries(&self) -> BTreeMap<String, Retries> {
        let who = |queue: &Queue| {
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

    /// With these queues' rejected messages left to the broker.
    fn left_to_broker(&self, chosen: &BTreeSet<String>) -> Self {
        let mut topology = self.clone();
        let (left, kept) = topology
            .delayed
            .into_iter()
            .partition::<Vec<_>, _>(|delayed| chosen.contains(&delayed.queue));
        topology.delayed = kept;
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

/// What is used on a broker of this version. Changes nothing there.
///
/// # Errors
/// Only if the connection is lost.
pub(in crate::rabbitmq) async fn choose(
    live: &Live,
    version: Version,
    planned: &Topology,
) -> Result<Topology, CallError> {
    let mut chosen = BTreeSet::new();
    if version >= FIRST {
        let mut scratch = Scratch::new(live);
        for (delayed, queue) in planned.delayed.iter().zip(&planned.by_broker) {
            if is_the_brokers(&mut scratch, planned.mode, delayed, queue).await? {
                chosen.insert(queue.name.clone());
            }
        }
    }
    Ok(planned.left_to_broker(&chosen))
}

async fn is_the_brokers(
    scratch: &mut Scratch<'_>,
    mode: TopologyMode,
    delayed: &Delayed,
    queue: &Queue,
) -> Result<bool, CallError> {
    if mode == TopologyMode::Declare && scratch.is_there(&Object::Queue(queue.clone())).await? {
        // Declaring what is there only compares.
        match scratch.create_queue(queue).await {
            Ok(()) => return Ok(true),
            Err(CallError::Closed(PRECONDITION_FAILED, _)) => return Ok(false),
            Err(CallError::Closed(..)) => {}
            Err(CallError::Lost) => return Err(CallError::Lost),
        }
    }
    // Messages may wait in the queues that the bridge has used.
    let rejected = Object::Queue(Queue {
        name: delayed.rejected.clone(),
        arguments: Vec::new(),
    });
    Ok(!scratch.is_there(&rejected).await?)
}
