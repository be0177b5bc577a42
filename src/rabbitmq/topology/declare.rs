//! Declares or checks the planned topology on an open connection. Uses a separate channel, which
//! the broker closes on each error. An object that exists with other arguments is left unchanged
//! and reported. A finding never stops the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::disposable_channel::{DisposableChannel, Seen};
use super::{
    DeclaredObject, Object, PlannedExchange, PlannedQueue, RetryTopology, Topology, redelivery_mode,
};
use crate::config::rabbitmq::{Tls, TopologyMode};
use crate::rabbitmq::open_connection::{CallError, OpenConnection};
use crate::rabbitmq::url::BrokerUrl;
use crate::rabbitmq::version;

/// How long `/status` shows that a missing object was declared again.
const RESTORED_SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// Declares or checks a topology, and keeps the findings about it.
pub(in crate::rabbitmq) struct Declarer {
    /// The plan from the configuration.
    planned: ArcSwap<Topology>,
    /// The plan as chosen for the version of the broker.
    topology: ArcSwap<Topology>,
    /// The queues whose rejected messages the bridge retries; empty until that is known.
    delayed: watch::Sender<Vec<RetryTopology>>,
    state: Mutex<DeclarerState>,
}

/// What is known about the objects. The numbers are positions in the plan.
#[derive(Default)]
struct DeclarerState {
    findings: BTreeMap<usize, String>,
    /// Exchanges and queues that have existed.
    present: BTreeSet<usize>,
    /// When an object that had existed was last found missing and declared again.
    restored: BTreeMap<usize, Timestamp>,
    /// Number of restorations since the last call of `take_restorations`.
    restorations: u64,
    /// Findings about the retries of consumer queues, by name of the queue.
    retries: BTreeMap<String, String>,
}

/// How objects are visited with `topology = "declare"`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Declares each object, whether it exists or not.
    Declare,
    /// Checks each object, and declares only missing ones.
    Repair,
}

impl Declarer {
    pub(in crate::rabbitmq) fn new(topology: Topology) -> Self {
        Self {
            planned: ArcSwap::from_pointee(topology.clone()),
            topology: ArcSwap::from_pointee(topology),
            delayed: watch::Sender::default(),
            state: Mutex::default(),
        }
    }

    pub(in crate::rabbitmq) fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Replaces the plan, and discards the findings about the old one.
    pub(in crate::rabbitmq) fn replace(&self, topology: Topology) {
        self.planned.store(Arc::new(topology.clone()));
        self.set(topology);
    }

    fn set(&self, topology: Topology) {
        let mut state = self.lock();
        self.topology.store(Arc::new(topology));
        // The tasks that retry messages clear their findings themselves.
        *state = DeclarerState {
            retries: std::mem::take(&mut state.retries),
            ..DeclarerState::default()
        };
    }

    /// The queues whose rejected messages the bridge retries.
    pub(in crate::rabbitmq) fn delayed(&self) -> watch::Receiver<Vec<RetryTopology>> {
        self.delayed.subscribe()
    }

    /// The findings, one sentence each: current ones in the order of the plan, then objects that
    /// were declared again within the last hour, then the findings about retries.
    pub(in crate::rabbitmq) fn findings(&self) -> Vec<String> {
        let topology = self.topology();
        let mut state = self.lock();
        let now = Timestamp::now();
        let is_recent = |at: &Timestamp| now.duration_since(*at) < RESTORED_SHOWN;
        state.restored.retain(|_, at| is_recent(at));
        let restored = state.restored.iter().filter_map(|(index, at)| {
            let object = topology.objects.get(*index)?;
            Some(format!(
                "{object} was missing and has been declared again at {at:.0}"
            ))
        });
        let findings = state.findings.values().cloned();
        let retries = state.retries.values().cloned();
        findings.chain(restored).chain(retries).collect()
    }

    /// Returns the number of objects that were declared again since the last call.
    pub(in crate::rabbitmq) fn take_restorations(&self) -> u64 {
        std::mem::take(&mut self.lock().restorations)
    }

    /// Sets the finding about the retries of a consumer queue; `None` clears it.
    pub(in crate::rabbitmq) fn note_retries(&self, queue: &str, finding: Option<String>) {
        let mut state = self.lock();
        match finding {
            Some(finding) => state.retries.insert(queue.to_owned(), finding),
            None => state.retries.remove(queue),
        };
    }

    /// Declares or checks the whole topology, and returns what happened to each object. Chooses the
    /// topology for the version of the broker first, if it depends on that and the broker tells it.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn apply(
        &self,
        connection: &OpenConnection,
        url: &BrokerUrl,
        tls: &Tls,
    ) -> Result<Vec<DeclaredObject>, CallError> {
        let planned = self.planned.load_full();
        let version = match planned.by_broker.as_slice() {
            [] => None,
            _ => version::of(url, tls).await,
        };
        if let Some(version) = version {
            let topology = redelivery_mode::choose(connection, version, &planned).await?;
            if !Arc::ptr_eq(&*self.planned.load(), &planned) {
                // The plan was replaced in the meantime. The task that did so declares the new one.
                return Ok(Vec::new());
            }
            if *self.topology() != topology {
                self.set(topology);
            }
        }
        let topology = self.topology();
        let declared = self
            .visit(
                connection,
                &topology,
                0..topology.objects.len(),
                Visit::Declare,
            )
            .await?;
        // Only now: otherwise, an object that one of the retry tasks declares first would count as
        // restored.
        self.delayed.send_if_modified(|delayed| {
            let is_other = *delayed != topology.delayed;
            delayed.clone_from(&topology.delayed);
            is_other
        });
        Ok(declared)
    }

    /// Checks that everything still exists, and with `topology = "declare"` declares what is
    /// missing. This must poll, because AMQP does not notify clients of deleted exchanges or
    /// queues.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn repair(
        &self,
        connection: &OpenConnection,
    ) -> Result<(), CallError> {
        let topology = self.topology();
        self.visit(
            connection,
            &topology,
            0..topology.objects.len(),
            Visit::Repair,
        )
        .await
        .map(drop)
    }

    /// Checks that an exchange exists. With `topology = "declare"`, declares it first if it is part
    /// of the plan, with its bindings and their queues.
    ///
    /// # Errors
    /// With the broker's reply code and text if the exchange is missing or forbidden, or if the
    /// connection is lost.
    pub(in crate::rabbitmq) async fn ensure_exchange(
        &self,
        connection: &OpenConnection,
        name: &str,
    ) -> Result<(), CallError> {
        // The default exchange always exists, and a passive declaration of it may be forbidden.
        if name.is_empty() {
            return Ok(());
        }
        let topology = self.topology();
        if topology.mode == TopologyMode::Declare {
            self.visit(connection, &topology, topology.around(name), Visit::Declare)
                .await?;
        }
        DisposableChannel::new(connection)
            .exchange_exists(name)
            .await
    }

    async fn visit(
        &self,
        connection: &OpenConnection,
        topology: &Arc<Topology>,
        indices: impl IntoIterator<Item = usize>,
        visit: Visit,
    ) -> Result<Vec<DeclaredObject>, CallError> {
        let mut disposable = DisposableChannel::new(connection);
        let mut declared = Vec::new();
        // Bindings are deleted together with their exchange or queue, so those of restored objects
        // are declared again.
        let mut restored = BTreeSet::new();
        for index in indices {
            let object = &topology.objects[index];
            let seen = match (topology.mode, visit) {
                (TopologyMode::Verify, _) => disposable.verify(object).await?,
                (TopologyMode::Declare, Visit::Declare) => disposable.declare(object).await?,
                (TopologyMode::Declare, Visit::Repair) => match object {
                    Object::Binding(binding)
                        if !(topology.is_of_retries(binding)
                            || restored.contains(binding.exchange.as_str())
                            || restored.contains(binding.queue.as_str())) =>
                    {
                        continue;
                    }
                    Object::Exchange(_) | Object::Queue(_)
                        if disposable.is_there(object).await? =>
                    {
                        continue;
                    }
                    _ => disposable.declare(object).await?,
                },
            };
            let Seen {
                finding,
                was_there,
                result,
                uncompared,
            } = seen;
            declared.push(DeclaredObject {
                object: object.clone(),
                result,
                detail: finding.clone().or(uncompared),
            });
            let mut state = self.lock();
            if !Arc::ptr_eq(&*self.topology.load(), topology) {
                // The plan was replaced in the meantime. The task that did so declares the new one.
                return Ok(declared);
            }
            let is_missing = finding.is_some() && !was_there;
            if let Object::Exchange(PlannedExchange { name, .. })
            | Object::Queue(PlannedQueue { name, .. }) = object
                && !is_missing
                && !state.present.insert(index)
                && !was_there
            {
                tracing::warn!(object = %object, "missing topology object declared again");
                state.restored.insert(index, Timestamp::now());
                state.restorations += 1;
                restored.insert(name.as_str());
            }
            match finding {
                Some(sentence) => state.findings.insert(index, sentence),
                None => state.findings.remove(&index),
            };
        }
        Ok(declared)
    }

    fn lock(&self) -> MutexGuard<'_, DeclarerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
