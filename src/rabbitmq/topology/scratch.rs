//! Looks at and declares one object at a time, on a channel that the broker may close for it.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::{Argument, Binding, Exchange, Kind, Object, Queue};
use crate::rabbitmq::live::{CallError, Live};

/// The broker knows no such thing.
const NOT_FOUND: u16 = 404;
/// It is there, with other arguments.
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// What a look at an object has shown.
pub(super) struct Seen {
    pub(super) finding: Option<String>,
    pub(super) was_there: bool,
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
    pub(super) async fn is_there(&mut self, object: &Object) -> Result<bool, CallError> {
        match self.look(object).await {
            Ok(()) => Ok(true),
            Err(CallError::Closed(code, _)) => Ok(code != NOT_FOUND),
            Err(CallError::Lost) => Err(CallError::Lost),
        }
    }

    pub(super) async fn declare(&mut self, object: &Object) -> Result<Seen, CallError> {
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

    pub(super) async fn verify(&mut self, object: &Object) -> Result<Seen, CallError> {
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

    pub(super) async fn create_queue(&mut self, queue: &Queue) -> Result<(), CallError> {
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
