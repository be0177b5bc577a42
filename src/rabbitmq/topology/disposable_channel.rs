//! Checks and declares one object at a time, on a channel that the broker closes on each error.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::{DeclareResult, Kind, Object, PlannedBinding, PlannedExchange, PlannedQueue};
use crate::rabbitmq::headers::amqp;
use crate::rabbitmq::open_connection::{CallError, OpenConnection};
use crate::rabbitmq::reply_code::{NOT_FOUND, PRECONDITION_FAILED};

/// The result of checking or declaring an object.
pub(super) struct Seen {
    pub(super) finding: Option<String>,
    pub(super) was_there: bool,
    pub(super) result: DeclareResult,
    /// Why the arguments of an object that exists were not compared.
    pub(super) uncompared: Option<String>,
}

/// A channel that is opened again when the broker has closed it.
pub(in crate::rabbitmq) struct DisposableChannel<'a> {
    connection: &'a OpenConnection,
    channel: Option<Channel>,
}

impl<'a> DisposableChannel<'a> {
    pub(in crate::rabbitmq) fn new(connection: &'a OpenConnection) -> Self {
        Self {
            connection,
            channel: None,
        }
    }

    /// Number of ready messages in a queue.
    pub(in crate::rabbitmq) async fn count(&mut self, queue: &str) -> Result<u64, CallError> {
        let (name, passive) = (short(queue)?, QueueDeclareOptions::default().passive());
        let arguments = FieldTable::default();
        let asked = self.ask(async |channel| channel.queue_declare(name, passive, arguments).await);
        Ok(asked.await?.message_count().into())
    }

    /// Whether an exchange or a queue [exists].
    pub(super) async fn is_there(&mut self, object: &Object) -> Result<bool, CallError> {
        exists(self.query(object).await)
    }

    pub(super) async fn declare(&mut self, object: &Object) -> Result<Seen, CallError> {
        let mut seen = self.verify(object).await?;
        if seen.was_there && seen.finding.is_some() {
            return Ok(seen);
        }
        let is_binding = matches!(object, Object::Binding(_));
        seen.finding = None;
        match self.create(object).await {
            Ok(()) if is_binding => seen.result = DeclareResult::Bound,
            Ok(()) if seen.was_there => {}
            Ok(()) => seen.result = DeclareResult::Declared,
            Err(CallError::Closed(PRECONDITION_FAILED, text)) if seen.was_there => {
                seen.result = DeclareResult::Differs;
                seen.finding = Some(format!(
                    "{object} exists with other arguments and is left as it is: {text}; if it is empty, delete it and send SIGHUP"
                ));
            }
            // The user may use the object but not declare it, which is not a problem.
            Err(CallError::Closed(_, text)) if seen.was_there && !is_binding => {
                seen.uncompared = Some(text);
            }
            Err(CallError::Closed(_, text)) => {
                seen.result = DeclareResult::Failed;
                seen.finding = Some(format!("{object} cannot be declared: {text}"));
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
        }
        Ok(seen)
    }

    pub(super) async fn verify(&mut self, object: &Object) -> Result<Seen, CallError> {
        let (finding, was_there) = match self.query(object).await {
            Ok(_) => (None, true),
            Err(CallError::Closed(NOT_FOUND, _)) => (Some(format!("{object} is missing")), false),
            Err(CallError::Closed(_, text)) => {
                (Some(format!("{object} cannot be checked: {text}")), true)
            }
            Err(CallError::Lost) => return Err(CallError::Lost),
        };
        let result = if finding.is_some() {
            DeclareResult::Failed
        } else {
            DeclareResult::Existed
        };
        Ok(Seen {
            finding,
            was_there,
            result,
            uncompared: None,
        })
    }

    /// Checks an object without changing anything, and counts the ready messages of a queue. AMQP
    /// cannot query bindings, so a binding counts as existing.
    pub(in crate::rabbitmq) async fn query(&mut self, object: &Object) -> Result<u64, CallError> {
        match object {
            Object::Exchange(exchange) => self.exchange_exists(&exchange.name).await.map(|()| 0),
            Object::Queue(queue) => self.count(&queue.name).await,
            Object::Binding(_) => Ok(0),
        }
    }

    pub(in crate::rabbitmq) async fn exchange_exists(
        &mut self,
        name: &str,
    ) -> Result<(), CallError> {
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let (name, arguments) = (short(name)?, FieldTable::default());
        self.ask(async |channel| {
            channel
                .exchange_declare(name, ExchangeKind::Topic, passive, arguments)
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

    async fn create_exchange(&mut self, exchange: &PlannedExchange) -> Result<(), CallError> {
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

    pub(super) async fn create_queue(&mut self, queue: &PlannedQueue) -> Result<(), CallError> {
        let (name, durable) = (short(&queue.name)?, QueueDeclareOptions::durable());
        let mut arguments = FieldTable::default();
        for (argument, value) in &queue.arguments {
            arguments.insert((*argument).into(), amqp(value));
        }
        self.ask(async |channel| channel.queue_declare(name, durable, arguments).await)
            .await
            .map(drop)
    }

    async fn create_binding(&mut self, binding: &PlannedBinding) -> Result<(), CallError> {
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
            None => self.connection.open_channel().await?,
        };
        let answer = self
            .connection
            .call("answer about the topology", question(&channel))
            .await?;
        // Kept only after a success: after an error, the broker has closed the channel.
        self.channel = Some(channel);
        Ok(answer)
    }
}

/// Whether an object exists whose messages were counted. An error other than `NOT_FOUND` counts as
/// yes.
pub(super) fn exists(counted: Result<u64, CallError>) -> Result<bool, CallError> {
    match counted {
        Ok(_) => Ok(true),
        Err(CallError::Closed(code, _)) => Ok(code != NOT_FOUND),
        Err(lost) => Err(lost),
    }
}

/// Converts a name to a short string. A name that is too long gets the answer that the broker would
/// give.
fn short(name: &str) -> Result<ShortString, CallError> {
    ShortString::try_new(name).map_err(|_| {
        CallError::Closed(
            PRECONDITION_FAILED,
            format!("the name `{name}` is longer than 255 bytes"),
        )
    })
}
