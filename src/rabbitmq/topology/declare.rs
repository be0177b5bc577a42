//! Declares or checks a planned topology on a live connection, each object on a channel that may
//! be closed for it. Leaves what exists otherwise as it is, and says so. Never stops the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::{Argument, Binding, Exchange, Kind, Object, Queue, Topology};
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::live::{CallError, Live};

/// How long `/status` shows that something was missing.
const RESTORED_SHOWN: SignedDuration = SignedDuration::from_hours(1);
/// The broker knows no such thing.
const NOT_FOUND: u16 = 404;
/// It is there, with other arguments.
const PRECONDITION_FAILED: u16 = 406;

/// Declares or checks a topology, and remembers what is wrong with it.
pub(in crate::rabbitmq) struct Declarer {
    topology: ArcSwap<Topology>,
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
            topology: ArcSwap::from_pointee(topology),
            state: Mutex::default(),
        }
    }

    pub(in crate::rabbitmq) fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Uses another plan from now on; what was wrong with the old one is forgotten.
    pub(in crate::rabbitmq) fn replace(&self, topology: Topology) {
        let mut state = self.lock();
        self.topology.store(Arc::new(topology));
        *state = State::default();
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

    /// Declares or checks everything.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn apply(&self, live: &Live) -> Result<(), CallError> {
        let topology = self.topology();
        self.visit(live, &topology, 0..topology.objects.len(), Visit::Declare)
            .await
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

/// What a look at an object has shown.
struct Seen {
    finding: Option<String>,
    was_there: bool,
}

/// A channel that is opened again when the broker has closed it.
pub(in crate::rabbitmq) struct Scratch<'a> {
    live: &'a Live,
    channel: Option<Channel>,
}

impl<'a> Scratch<'a> {
    pub(in crate::rabbitmq) fn new(live: &'a Live) -> Self {
        Self {
            live,
            channel: None,
        }
    }

    /// Messages in a queue.
    pub(in crate::rabbitmq) async fn count(&mut self, queue: &str) -> Result<u64, CallError> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = short(queue)?;
        let asked = self
            .ask(async |channel| {
                channel
                    .queue_declare(name, passive, FieldTable::default())
                    .await
            })
            .await?;
        Ok(asked.message_count().into())
    }

    /// Whether an exchange or a queue is there, as far as the broker says.
    async fn is_there(&mut self, object: &Object) -> Result<bool, CallError> {
        match self.look(object).await {
            Ok(()) => Ok(true),
            Err(CallError::Closed(code, _)) => Ok(code != NOT_FOUND),
            Err(CallError::Lost) => Err(CallError::Lost),
        }
    }

    async fn declare(&mut self, object: &Object) -> Result<Seen, CallError> {
        let is_there = match self.look(object).await {
            Ok(()) => true,
            Err(CallError::Closed(NOT_FOUND, _)) => false,
            Err(CallError::Closed(_, text)) => {
                return Ok(Seen {
                    finding: Some(format!("{object} cannot be checked: {text}")),
                    was_there: true,
                });
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
        };
        let finding = match self.create(object).await {
            Ok(()) => None,
            Err(CallError::Closed(PRECONDITION_FAILED, text)) if is_there => Some(format!(
                "{object} exists with other arguments and is left as it is: {text}"
            )),
            // We may use it but not declare it: nothing is wrong.
            Err(CallError::Closed(..)) if is_there && !matches!(object, Object::Binding(_)) => None,
            Err(CallError::Closed(_, text)) => Some(format!("{object} cannot be declared: {text}")),
            Err(CallError::Lost) => return Err(CallError::Lost),
        };
        Ok(Seen {
            finding,
            was_there: is_there,
        })
    }

    async fn verify(&mut self, object: &Object) -> Result<Seen, CallError> {
        let (finding, was_there) = match self.look(object).await {
            Ok(()) => (None, true),
            Err(CallError::Closed(NOT_FOUND, _)) => (Some(format!("{object} is missing")), false),
            Err(CallError::Closed(_, text)) => {
                (Some(format!("{object} cannot be checked: {text}")), true)
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
        };
        Ok(Seen { finding, was_there })
    }

    /// Asks without changing anything. AMQP cannot ask for a binding: it is taken to be there.
    async fn look(&mut self, object: &Object) -> Result<(), CallError> {
        match object {
            Object::Exchange(exchange) => self.look_for_exchange(&exchange.name).await,
            Object::Queue(queue) => self.count(&queue.name).await.map(drop),
            Object::Binding(_) => Ok(()),
        }
    }

    pub(in crate::rabbitmq) async fn look_for_exchange(
        &mut self,
        name: &str,
    ) -> Result<(), CallError> {
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = short(name)?;
        self.ask(async |channel| {
            channel
                .exchange_declare(name, ExchangeKind::Topic, passive, FieldTable::default())
                .await
        })
        .await
    }

    async fn create(&mut self, object: &Object) -> Result<(), CallError> {
        match object {
            Object::Exchange(exchange) => self.create_exchange(exchange).await,
            Object::Queue(queue) => self.create_queue(queue).await,
            Object::Binding(binding) => self.create_binding(binding).await,
        }
    }

    async fn create_exchange(&mut self, exchange: &Exchange) -> Result<(), CallError> {
        let name = short(&exchange.name)?;
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = match exchange.kind {
            Kind::Topic => ExchangeKind::Topic,
            Kind::Fanout => ExchangeKind::Fanout,
        };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = &exchange.alternate {
            let alternate = AMQPValue::LongString(alternate.as_str().into());
            arguments.insert("alternate-exchange".into(), alternate);
        }
        self.ask(async |channel| {
            channel
                .exchange_declare(name, kind, durable, arguments)
                .await
        })
        .await
    }

    async fn create_queue(&mut self, queue: &Queue) -> Result<(), CallError> {
        let name = short(&queue.name)?;
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        for (argument, value) in &queue.arguments {
            arguments.insert((*argument).into(), value.into());
        }
        self.ask(async |channel| channel.queue_declare(name, durable, arguments).await)
            .await
            .map(drop)
    }

    async fn create_binding(&mut self, binding: &Binding) -> Result<(), CallError> {
        let (queue, exchange) = (short(&binding.queue)?, short(&binding.exchange)?);
        let key = short(&binding.key)?;
        self.ask(async |channel| {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue, exchange, key, options, FieldTable::default())
                .await
        })
        .await
    }

    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T, CallError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.live.open_channel().await?,
        };
        let answer = self
            .live
            .call("answer about the topology", question(&channel))
            .await?;
        // Kept only after a good answer: after another one the broker has closed it.
        self.channel = Some(channel);
        Ok(answer)
    }
}

impl From<&Argument> for AMQPValue {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => Self::LongString(text.as_str().into()),
            Argument::Integer(number) => Self::LongLongInt(*number),
            Argument::Flag(flag) => Self::Boolean(*flag),
        }
    }
}

/// A name for the wire. One that does not fit gets the answer the broker would give.
fn short(name: &str) -> Result<ShortString, CallError> {
    ShortString::try_new(name).map_err(|_| {
        CallError::Closed(
            PRECONDITION_FAILED,
            format!("the name `{name}` is longer than 255 bytes"),
        )
    })
}
