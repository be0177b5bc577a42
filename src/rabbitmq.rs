//! The broker: one supervisor that connects, keeps the topology and publishes windows. The only
//! room that names lapin. It knows nothing of journals, sessions or retries.

pub mod connection;
pub mod publisher;
pub mod topology;

use crate::webhook::message::Message;

/// Which of the two connections a window travels on. Suspect routes are probed on one of their
/// own, so that what happens to them there disturbs nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// For routes that flow.
    Main,
    /// For one message of a route that is stuck or closed; opened when first needed.
    Probe,
}

/// Messages of one route, published together on a channel that carries nothing else until all of
/// them are confirmed (only then are returns attributed with certainty).
#[derive(Debug)]
pub struct Window {
    /// Chosen by the caller, unique in this process.
    pub id: u64,
    /// The connection to use.
    pub link: Link,
    /// Check the exchange on a throw-away channel first (with `topology = "declare"`: declare it
    /// if it is missing).
    pub ensure_exchange: bool,
    /// Not empty, all with the same route.
    pub messages: Vec<Message>,
}

/// What the broker did with one message of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acked and not returned.
    Delivered,
    /// No queue takes it: code and text of the broker.
    Returned(String),
    /// Refused.
    Nacked,
    /// The channel was closed by the broker with this code and text before the outcome was known.
    ChannelClosed(u16, String),
    /// The connection is gone; it may or may not have been stored.
    Unknown,
}

/// What the publisher tells the forwarder, in order.
#[derive(Debug)]
pub enum Report {
    /// Connected, topology declared or checked. Windows may be published.
    Up(Link),
    /// Not connected any more; every window of that link has been reported `Done` before.
    Down(Link),
    /// An alarm of the broker stops publishing on this link; outstanding windows wait.
    Blocked(Link),
    /// The alarm is over.
    Unblocked(Link),
    /// Some message of this window was confirmed (at most one report a second per window).
    Progress(u64),
    /// Every message of the window has an outcome, in the window's order.
    Done(u64, Vec<Outcome>),
}
