//! Declares or checks a planned topology on a live connection, each object on a channel that may
//! be closed for it. Leaves what exists otherwise as it is, and says so. Never stops the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::scratch::{Scratch, Seen};
use super::{Delayed, Exchange, Object, Queue, Topology, layout};
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::live::{CallError, Live};
use crate::rabbitmq::version::Version;

/// How long `/status` shows that something was missing.
const RESTORED_SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// Declares or checks a topology, and remembers what is wrong with it.
pub(in crate::rabbitmq) struct Declarer {
    /// As configured.
    planned: ArcSwap<Topology>,
    /// As it is on this broker.
    topology: ArcSwap<Topology>,
    /// The queues whose rejected messages are the bridge's business, once that is known.
    delayed: watch::Sender<Vec<Delayed>>,
    state: Mutex<State>,
}

/// What is known of the objects, each by its position in the plan.
#[derive(Default)]
struct State {
    findings: BTreeMap<usize, String>,
    /// Exchanges and queues that were there.
    present: BTreeSet<usize>,
    /// When one that had been there was missing and was declared again, the last time.
    restored: BTreeMap<usize, Timestamp>,
    /// How often that happened since this was last asked.
    restorations: u64,
    /// What is wrong with a consumer queue's retries, by its name.
    retries: BTreeMap<String, String>,
}

/// Which objects are looked at, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Declared, whether they are there or not.
    Declare,
    /// Looked for; declared only if they are missing.
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

    /// Uses another plan from now on; what was wrong with the old one is forgotten.
    pub(in crate::rabbitmq) fn replace(&self, topology: Topology) {
        self.planned.store(Arc::new(topology.clone()));
        self.set(topology);
    }

    fn set(&self, topology: Topology) {
        let mut state = self.lock();
        self.topology.store(Arc::new(topology));
        *state = State::default();
    }

    /// Whether the broker's version decides what is declared.
    pub(in crate::rabbitmq) fn asks_for_version(&self) -> bool {
        !self.planned.load().by_broker.is_empty()
    }

    /// The queues whose rejected messages are the bridge's business.
    pub(in crate::rabbitmq) fn delayed(&self) -> watch::Receiver<Vec<Delayed>> {
        self.delayed.subscribe()
    }

    /// What is wrong, one sentence each, in the plan's order; and what was wrong a while ago.
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

    /// Objects that were missing and have been declared again since this was last asked.
    pub(in crate::rabbitmq) fn take_restorations(&self) -> u64 {
        std::mem::take(&mut self.lock().restorations)
    }

    /// Notes what is wrong with the retries of a consumer queue, or that nothing is.
    pub(in crate::rabbitmq) fn note_retries(&self, queue: &str, finding: Option<String>) {
        let mut state = self.lock();
        match finding {
            Some(finding) => state.retries.insert(queue.to_owned(), finding),
            None => state.retries.remove(queue),
        };
    }

    /// Declares or checks everything, in the way of a broker of this version if that is known.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn apply(
        &self,
        live: &Live,
        version: Option<Version>,
    ) -> Result<(), CallError> {
        let planned = self.planned.load_full();
        if let Some(version) = version {
            let topology = layout::choose(live, version, &planned).await?;
            if !Arc::ptr_eq(&*self.planned.load(), &planned) {
                // Replaced meanwhile; whoever did that declares the new one.
                return Ok(());
            }
            if *self.topology() != topology {
                self.set(topology);
            }
        }
        let topology = self.topology();
        self.visit(live, &topology, 0..topology.objects.len(), Visit::Declare)
            .await?;
        // Only now: what its tasks ensure is not to be taken for something restored.
        self.delayed.send_if_modified(|delayed| {
            let is_other = *delayed != topology.delayed;
            delayed.clone_from(&topology.delayed);
            is_other
        });
        Ok(())
    }

    /// Looks whether everything still is there, and declares what is missing if it may be declared.
    /// Nobody tells a client that an exchange or a queue has been deleted.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn repair(&self, live: &Live) -> Result<(), CallError> {
        let topology = self.topology();
        self.visit(live, &topology, 0..topology.objects.len(), Visit::Repair)
            .await
    }

    /// Sees that an exchange is there; if it is ours and may be declared, with all that belongs to
    /// it.
    ///
    /// # Errors
    /// With code and text of the broker if it is missing or forbidden.
    pub(in crate::rabbitmq) async fn ensure_exchange(
        &self,
        live: &Live,
        name: &str,
    ) -> Result<(), CallError> {
        // The default exchange is always there and may not even be asked about.
        if name.is_empty() {
            return Ok(());
        }
        let topology = self.topology();
        if topology.mode == TopologyMode::Declare {
            self.visit(live, &topology, topology.around(name), Visit::Declare)
                .await?;
        }
        Scratch::new(live).look_for_exchange(name).await
    }

    async fn visit(
        &self,
        live: &Live,
        topology: &Arc<Topology>,
        indices: impl IntoIterator<Item = usize>,
        visit: Visit,
    ) -> Result<(), CallError> {
        let mut scratch = Scratch::new(live);
        // Bindings go with their exchange and their queue.
        let mut restored = BTreeSet::new();
        for index in indices {
            let object = &topology.objects[index];
            let Seen { finding, was_there } = match (topology.mode, visit) {
                (TopologyMode::Verify, _) => scratch.verify(object).await?,
                (TopologyMode::Declare, Visit::Declare) => scratch.declare(object).await?,
                (TopologyMode::Declare, Visit::Repair) => match object {
                    Object::Binding(binding)
                        if !(topology.is_of_retries(binding)
                            || restored.contains(binding.exchange.as_str())
                            || restored.contains(binding.queue.as_str())) =>
                    {
                        continue;
                    }
                    Object::Exchange(_) | Object::Queue(_) if scratch.is_there(object).await? => {
                        continue;
                    }
                    _ => scratch.declare(object).await?,
                },
            };
            let mut state = self.lock();
            if !Arc::ptr_eq(&*self.topology.load(), topology) {
                // Replaced meanwhile; whoever did that declares the new one.
                return Ok(());
            }
            let is_missing = finding.is_some() && !was_there;
            if let Object::Exchange(Exchange { name, .. }) | Object::Queue(Queue { name, .. }) =
                object
                && !is_missing
                && !state.present.insert(index)
                && !was_there
            {
                tracing::warn!(object = %object, "missing object of the topology declared again");
                state.restored.insert(index, Timestamp::now());
                state.restorations += 1;
                restored.insert(name.as_str());
            }
            match finding {
                Some(sentence) => state.findings.insert(index, sentence),
                None => state.findings.remove(&index),
            };
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
