//! One connection of the peer: it answers as a broker would, unless the script answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use amq_protocol::protocol::channel::{self, AMQPMethod as OfChannel};
use amq_protocol::protocol::confirm::{self, AMQPMethod as Confirm};
use amq_protocol::protocol::connection::{self, AMQPMethod as OfConnection};
use amq_protocol::protocol::exchange::{self, AMQPMethod as Exchange};
use amq_protocol::protocol::queue::{self, AMQPMethod as Queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use tokio::net::TcpStream;

use super::wire::{Ended, Wire};
use super::{Heard, Say, Shared, Stored, Tune, What, say};

/// Serves one client until the client or the script ends the connection.
pub(super) async fn serve(socket: TcpStream, number: usize, shared: Arc<Shared>) {
    let wire = Wire::new(socket, Arc::clone(&shared), number == 1);
    let mut session = Session {
        wire,
        number,
        shared,
        tags: HashMap::new(),
        heartbeat: Heartbeat(None),
        arriving: HashMap::new(),
    };
    while session.turn().await.is_ok() {}
}

struct Session {
    wire: Wire,
    number: usize,
    shared: Arc<Shared>,
    tags: HashMap<u16, u64>,
    heartbeat: Heartbeat,
    /// By channel: a message that is not complete yet, and its length.
    arriving: HashMap<u16, (Stored, u64)>,
}

impl Session {
    /// Reads one frame and answers it.
    async fn turn(&mut self) -> Result<(), Ended> {
        let frame = tokio::select! {
            frame = self.wire.read() => frame?,
            () = self.heartbeat.due() => return self.beat().await,
        };
        let channel = frame.channel_id();
        let Some(what) = self.understand(frame) else {
            return Ok(());
        };
        let heard = Heard {
            connection: self.number,
            channel,
            what,
        };
        let (answers, is_over) = match (self.shared.script)(&heard) {
            Some(answers) => (answers, false),
            None => as_a_broker(&heard, self.shared.tune),
        };
        for answer in answers {
            match answer {
                Say::Frame(frame) => self.wire.write(&frame).await?,
                Say::Bytes(bytes) => self.wire.write_bytes(&bytes).await?,
                Say::Wait(pause) => self.wait(pause).await?,
                Say::Freeze => std::future::pending().await,
                Say::Reset => return Err(self.wire.reset()),
                Say::HangUp => return Err(Ended),
            }
        }
        if is_over { Err(Ended) } else { Ok(()) }
    }

    async fn wait(&mut self, pause: Duration) -> Result<(), Ended> {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.heartbeat.due() => self.beat().await?,
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Ended> {
        self.wire.write(&AMQPFrame::Heartbeat).await
    }

    fn understand(&mut self, frame: AMQPFrame) -> Option<What> {
        match frame {
            AMQPFrame::ProtocolHeader(_) => Some(What::Hello),
            AMQPFrame::Method(channel, AMQPClass::Basic(Basic::Publish(publish))) => {
                let tag = self.tags.entry(channel).or_default();
                *tag += 1;
                let message = Stored {
                    connection: self.number,
                    channel,
                    tag: *tag,
                    exchange: publish.exchange.to_string(),
                    routing_key: publish.routing_key.to_string(),
                    message_id: String::new(),
                    correlation_id: String::new(),
                    body: Vec::new(),
                };
                self.arriving.insert(channel, (message, u64::MAX));
                None
            }
            AMQPFrame::Method(channel, method) => {
                if let AMQPClass::Channel(OfChannel::Open(_)) = method {
                    self.tags.remove(&channel);
                }
                if let AMQPClass::Connection(OfConnection::TuneOk(agreed)) = &method {
                    self.heartbeat = Heartbeat::every(agreed.heartbeat);
                }
                Some(What::Method(method))
            }
            AMQPFrame::Header(channel, header) => {
                let (message, length) = self.arriving.get_mut(&channel).expect("a publish before");
                let id = header.properties.message_id();
                message.message_id = id.as_ref().map(ToString::to_string).unwrap_or_default();
                let session = header.properties.correlation_id();
                message.correlation_id = session
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                *length = header.body_size;
                self.whole(channel)
            }
            AMQPFrame::Body(channel, bytes) => {
                let (message, _) = self.arriving.get_mut(&channel).expect("a publish before");
                message.body.extend(bytes);
                self.whole(channel)
            }
            AMQPFrame::Heartbeat | AMQPFrame::InvalidHeartbeat(_) => {
                self.shared.heartbeats.fetch_add(1, Ordering::SeqCst);
                None
            }
        }
    }

    fn whole(&mut self, channel: u16) -> Option<What> {
        let (message, length) = self.arriving.get(&channel)?;
        if (message.body.len() as u64) < *length {
            return None;
        }
        let (message, _) = self.arriving.remove(&channel)?;
        self.shared.stored.lock().unwrap().push(message.clone());
        Some(What::Message(message))
    }
}

/// When the next heartbeat is due, if heartbeats were negotiated.
struct Heartbeat(Option<tokio::time::Interval>);

impl Heartbeat {
    fn every(seconds: u16) -> Self {
        let half = Duration::from_millis(u64::from(seconds) * 500);
        Self((seconds > 0).then(|| tokio::time::interval(half)))
    }

    async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// What a broker would answer, and whether that ends the connection.
fn as_a_broker(heard: &Heard, tune: Tune) -> (Vec<Say>, bool) {
    let method = match &heard.what {
        What::Hello => return (vec![start()], false),
        What::Message(message) => {
            return (vec![say::ack(message.channel, message.tag, false)], false);
        }
        What::Method(method) => method,
    };
    let answer = match method {
        AMQPClass::Connection(OfConnection::StartOk(_)) => {
            AMQPClass::Connection(OfConnection::Tune(connection::Tune {
                channel_max: tune.channel_max,
                frame_max: tune.frame_max,
                heartbeat: tune.heartbeat_seconds,
            }))
        }
        AMQPClass::Connection(OfConnection::Open(_)) => {
            AMQPClass::Connection(OfConnection::OpenOk(connection::OpenOk {}))
        }
        AMQPClass::Connection(OfConnection::Close(_)) => {
            let ok = AMQPClass::Connection(OfConnection::CloseOk(connection::CloseOk {}));
            return (vec![say::method(0, ok)], true);
        }
        AMQPClass::Connection(OfConnection::CloseOk(_)) => return (Vec::new(), true),
        AMQPClass::Channel(OfChannel::Open(_)) => {
            AMQPClass::Channel(OfChannel::OpenOk(channel::OpenOk {}))
        }
        AMQPClass::Channel(OfChannel::Close(_)) => {
            AMQPClass::Channel(OfChannel::CloseOk(channel::CloseOk {}))
        }
        AMQPClass::Exchange(Exchange::Declare(_)) => {
            AMQPClass::Exchange(Exchange::DeclareOk(exchange::DeclareOk {}))
        }
        AMQPClass::Queue(Queue::Declare(declare)) => {
            AMQPClass::Queue(Queue::DeclareOk(queue::DeclareOk {
                queue: declare.queue.clone(),
                message_count: 0,
                consumer_count: 0,
            }))
        }
        AMQPClass::Queue(Queue::Bind(_)) => AMQPClass::Queue(Queue::BindOk(queue::BindOk {})),
        AMQPClass::Confirm(Confirm::Select(_)) => {
            AMQPClass::Confirm(Confirm::SelectOk(confirm::SelectOk {}))
        }
        _ => return (Vec::new(), false),
    };
    (vec![say::method(heard.channel, answer)], false)
}

fn start() -> Say {
    let mut capabilities = FieldTable::default();
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: properties,
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US".into(),
    };
    say::method(0, AMQPClass::Connection(OfConnection::Start(start)))
}
