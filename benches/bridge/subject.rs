//! The server that receives a load: the bridge, or the forwarder without a journal. A round is the
//! same for both.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock::Clock;
use crate::forwarder::Forwarding;
use crate::place::{ARRAY, CONNECTIONS, EXCHANGE, Place, finished, send};
use crate::role::{Actor, Role};
use crate::rounds::{Round, per_session};
use crate::sender::{Answers, Load};
use crate::statistics::float;
use crate::support::bridge::builder::free_address;
use crate::support::bridge::run::Bridge;

/// Sessions before the measurement, which create connections, channels and files.
const WARM: usize = 10_000;
/// A round takes less than a minute. The forwarder was once seen waiting forever for a confirm.
const ROUND_MAX: Duration = Duration::from_mins(10);

pub enum Subject {
    Bridge(Bridge),
    Forwarder(Actor, SocketAddr),
}

impl Subject {
    /// The server with this name in its usual circumstances: `bridge` or `forwarder`.
    pub async fn usual(place: &Place, name: &str) -> Self {
        match name {
            "bridge" => Self::bridge(place, &place.journal(), "").await,
            "forwarder" => Self::forwarder(place).await,
            _ => panic!("no subject is called `{name}`"),
        }
    }

    /// A connected bridge with an empty journal in this directory and these lines of configuration.
    pub async fn bridge(place: &Place, journal: &Path, toml: &str) -> Self {
        let mut bridge = place.bridge_in(journal).with(toml).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        Self::Bridge(bridge)
    }

    /// A connected forwarder. A bridge must have declared the exchange before.
    pub async fn forwarder(place: &Place) -> Self {
        let forwarding = Forwarding {
            listen: free_address(),
            amqp_url: place.vhost.amqp_url.clone(),
            exchange: EXCHANGE.into(),
        };
        let address = forwarding.listen;
        Self::Forwarder(Actor::start(&Role::Forward(forwarding)).await, address)
    }

    pub fn pid(&self) -> u32 {
        match self {
            Self::Bridge(bridge) => bridge.pid(),
            Self::Forwarder(actor, _) => actor.pid(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Bridge(bridge) => bridge.address(),
            Self::Forwarder(_, address) => *address,
        }
    }

    /// Sends some sessions, at most `sessions_max`, and empties the queue.
    pub async fn warm_up(&self, place: &Place, queue: &str, sessions_max: usize) {
        let sessions = sessions_max.min(WARM);
        send(Load::new(self.address(), sessions, ARRAY, CONNECTIONS)).await;
        place.arrived(queue, sessions).await;
        self.finished().await;
        place.vhost.purge_queue(queue).await;
    }

    /// Runs one round until the last message is in the queue, then empties the queue.
    pub async fn serve(&self, place: &Place, queue: &str, load: Load) -> Round {
        let arrival = place.arrived(queue, load.sessions);
        let (round, ..) = self.round(place, load, arrival).await;
        place.vhost.purge_queue(queue).await;
        round
    }

    /// Runs one round: the time ends when `arrival` is complete, the cost when the server is idle.
    pub async fn round<T>(
        &self,
        place: &Place,
        load: Load,
        arrival: impl Future<Output = T>,
    ) -> (Round, Answers, T) {
        let sessions = load.sessions;
        let mut sender = Actor::start(&Role::Send(load)).await;
        let clock = Clock::start(place, self.pid());
        sender.go();
        let answers: Answers = timeout(ROUND_MAX, sender.result())
            .await
            .expect("the server answers every webhook within 10 minutes");
        let arrived = arrival.await;
        let took = clock.elapsed();
        self.finished().await;
        let round = Round {
            accepted: answers.rate(),
            p50: answers.p50_ms,
            p99: answers.p99_ms,
            p999: answers.p999_ms,
            sender: per_session(answers.cpu, sessions),
            body_bytes: float(answers.bytes) / float(sessions),
            ..clock.stop(place, self.pid(), sessions, took)
        };
        (round, answers, arrived)
    }

    /// Shuts the server down gracefully.
    pub async fn end(self) {
        if let Self::Bridge(mut bridge) = self {
            bridge.terminate().await;
        }
    }

    /// Waits until the server is idle. For the forwarder that is the case when it has answered.
    async fn finished(&self) {
        if let Self::Bridge(bridge) = self {
            finished(bridge).await;
        }
    }
}
