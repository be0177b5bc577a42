//! Declares or checks a planned topology on a live connection, each object on a channel that may
//! be closed for it. Leaves what exists otherwise as it is, and says so. Never stops the bridge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::{Argument, Binding, Exchange, Kind, Object, Queue, Topology};
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::live::{CallError, Live};

/// The broker knows no such thing.
const NOT_FOUND: u16 = 404;
/// It is there, with other arguments.
const PRECONDITION_FAILED: u16 = 406;

/// Declares or checks a topology, and remembers what is wrong with it.
pub(in crate::rabbitmq) struct Declarer {
    topology: ArcSwap<Topology>,
    /// By position of the object in the plan.
    findings: Mutex<BTreeMap<usize, String>>,
}

impl Declarer {
    pub(in crate::rabbitmq) fn new(topology: Topology) -> Self {
        Self {
            topology: ArcSwap::from_pointee(topology),
            findings: Mutex::default(),
        }
    }

    pub(in crate::rabbitmq) fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Uses another plan from now on; what was wrong with the old one is forgotten.
    pub(in crate::rabbitmq) fn replace(&self, topology: Topology) {
        let mut findings = self.lock();
        self.topology.store(Arc::new(topology));
        findings.clear();
    }

    /// What is wrong, one sentence each, in the plan's order.
    pub(in crate::rabbitmq) fn findings(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Declares or checks everything.
    ///
    /// # Errors
    /// Only if the connection is lost.
    pub(in crate::rabbitmq) async fn apply(&self, live: &Live) -> Result<(), CallError> {
        let topology = self.topology();
        self.visit(live, &topology, 0..topology.objects.len()).await
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
            self.visit(live, &topology, topology.around(name)).await?;
        }
        Scratch::new(live).look_for_exchange(name).await
    }

    async fn visit(
        &self,
        live: &Live,
        topology: &Arc<Topology>,
        indices: impl IntoIterator<Item = usize>,
    ) -> Result<(), CallError> {
        let mut scratch = Scratch::new(live);
        for index in indices {
            let object = &topology.objects[index];
            let finding = match topology.mode {
                TopologyMode::Declare => scratch.declare(object).await?,
                TopologyMode::Verify => scratch.verify(object).await?,
            };
            let mut findings = self.lock();
            if !Arc::ptr_eq(&*self.topology.load(), topology) {
                // Replaced meanwhile; whoever did that declares the new one.
                return Ok(());
            }
            match finding {
                Some(sentence) => findings.insert(index, sentence),
                None => findings.remove(&index),
            };
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    async fn declare(&mut self, object: &Object) -> Result<Option<String>, CallError> {
        let is_there = match self.look(object).await {
            Ok(()) => true,
            Err(CallError::Closed(NOT_FOUND, _)) => false,
            Err(CallError::Closed(_, text)) => {
                return Ok(Some(format!("{object} cannot be checked: {text}")));
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
        };
        match self.create(object).await {
            Ok(()) => Ok(None),
            Err(CallError::Closed(PRECONDITION_FAILED, text)) if is_there => Ok(Some(format!(
                "{object} exists with other arguments and is left as it is: {text}"
            ))),
            // We may use it but not declare it: nothing is wrong.
            Err(CallError::Closed(..)) if is_there && !matches!(object, Object::Binding(_)) => {
                Ok(None)
            }
            Err(CallError::Closed(_, text)) => {
                Ok(Some(format!("{object} cannot be declared: {text}")))
            }
            Err(CallError::Lost) => Err(CallError::Lost),
        }
    }

    async fn verify(&mut self, object: &Object) -> Result<Option<String>, CallError> {
        match self.look(object).await {
            Ok(()) => Ok(None),
            Err(CallError::Closed(NOT_FOUND, _)) => Ok(Some(format!("{object} is missing"))),
            Err(CallError::Closed(_, text)) => {
                Ok(Some(format!("{object} cannot be checked: {text}")))
            }
            Err(CallError::Lost) => Err(CallError::Lost),
        }
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
