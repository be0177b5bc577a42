//! Browses the dead-letter queue or another queue, and replays or discards its messages.

mod browse;
pub mod corrected;
mod destination;
mod groups;
mod origin;
mod pass;
mod plan;
mod provenance;
mod selection;
mod summary;
mod target;
mod unrouted_again;

pub use self::browse::Browsed;
pub use self::destination::Destination;
pub use self::groups::{Group, Groups, Tally};
pub use self::origin::deaths;
pub use self::pass::{Disposition, HandledMessage, PassResult, run};
pub use self::plan::Action;
pub use self::provenance::Author;
pub use self::selection::MessageSelection;
pub use self::summary::MessageSummary;
pub use self::target::QueueTarget;
