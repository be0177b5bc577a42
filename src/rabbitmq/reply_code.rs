//! AMQP reply codes with which the broker closes a channel.

use super::RefusalKind;

/// Access is not permitted.
pub const ACCESS_REFUSED: u16 = 403;
/// The object does not exist.
pub const NOT_FOUND: u16 = 404;
/// The object exists with other arguments, or the message exceeds the broker's size limit.
pub const PRECONDITION_FAILED: u16 = 406;

/// Why the broker closed a channel on which messages were published.
pub(super) fn refusal_kind(code: u16) -> RefusalKind {
    match code {
        ACCESS_REFUSED => RefusalKind::Forbidden,
        NOT_FOUND => RefusalKind::RouteMissing,
        PRECONDITION_FAILED => RefusalKind::TooLarge,
        _ => RefusalKind::Other,
    }
}
