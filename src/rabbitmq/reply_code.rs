//! AMQP reply codes with which the broker closes a channel.

use super::RefusalKind;

/// Access is not permitted.
pub const ACCESS_REFUSED: u16 = 403;
/// The object does not exist.
pub const NOT_FOUND: u16 = 404;
/// The object exists with other arguments, or the message exceeds the broker's size limit.
pub const PRECONDITION_FAILED: u16 = 406;

/// What the broker says of a message that is too large, since RabbitMQ 3.8.
const TOO_LARGE: &str = "message size";

/// Why the broker closed a channel on which messages were published. lapin does not tell which
/// method failed, so only the text tells that a message is too large.
pub(super) fn refusal_kind(code: u16, text: &str) -> RefusalKind {
    match code {
        ACCESS_REFUSED => RefusalKind::Forbidden,
        NOT_FOUND => RefusalKind::RouteMissing,
        PRECONDITION_FAILED if text.contains(TOO_LARGE) => RefusalKind::TooLarge,
        _ => RefusalKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_about_its_size_makes_a_message_too_large() {
        let kind = |text: &str| refusal_kind(406, &format!("PRECONDITION_FAILED - {text}"));
        let size = "message size 70000 is larger than configured max size 65536";
        assert_eq!(kind(size), RefusalKind::TooLarge);
        let other = "inequivalent arg 'type' for exchange 'chat-sessions' in vhost '/'";
        assert_eq!(kind(other), RefusalKind::Other);
    }
}
