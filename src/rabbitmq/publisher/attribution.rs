//! Which message was returned: decided by the `message_id` that came back, never by the confirm it
//! came with. lapin hands a return to whichever confirm of the channel completes next.

use std::collections::HashMap;

use uuid::Uuid;

use crate::rabbitmq::Outcome;

/// What a window's confirms said, once every one of them has come.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In the window's order.
    is_acked: Vec<bool>,
    returns: HashMap<Uuid, String>,
    is_foreign: bool,
}

impl Tally {
    /// Counts the confirm of the next message: an ack or a nack.
    pub(super) fn confirmed(&mut self, is_acked: bool) {
        self.is_acked.push(is_acked);
    }

    /// Whether anything was refused.
    pub(super) fn is_any_nacked(&self) -> bool {
        self.is_acked.contains(&false)
    }

    /// Counts one return, with the broker's code and text.
    pub(super) fn returned(&mut self, message_id: Option<&str>, reason: String) {
        match message_id.map(Uuid::try_parse) {
            Some(Ok(id)) => {
                self.returns.insert(id, reason);
            }
            _ => self.is_foreign = true,
        }
    }

    /// The outcome of every message, in the window's order; `None` if that cannot be said: a
    /// confirm is missing, or a message came back that is not of this window.
    pub(super) fn outcomes(self, message_ids: &[Uuid]) -> Option<Vec<Outcome>> {
        let is_of_window = |id| message_ids.contains(id);
        let is_complete = self.is_acked.len() == message_ids.len();
        if self.is_foreign || !is_complete || !self.returns.keys().all(is_of_window) {
            return None;
        }
        // Two messages of one id are the same event: both are published again.
        let outcome = |(is_acked, id)| match (is_acked, self.returns.get(id)) {
            (false, _) => Outcome::Nacked,
            (true, Some(reason)) => Outcome::Returned(reason.clone()),
            (true, None) => Outcome::Delivered,
        };
        let confirms = self.is_acked.iter().copied();
        Some(confirms.zip(message_ids).map(outcome).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [Uuid; 3] = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];

    /// Every confirm is an ack but those of `nacked`.
    fn check(nacked: &[usize], returned: &[Uuid], expected: Option<[Outcome; 3]>) {
        let mut tally = Tally::default();
        for index in 0..IDS.len() {
            tally.confirmed(!nacked.contains(&index));
        }
        for id in returned {
            tally.returned(Some(&id.to_string()), "312 NO_ROUTE".into());
        }
        assert_eq!(tally.outcomes(&IDS), expected.map(Vec::from));
    }

    fn back() -> Outcome {
        Outcome::Returned("312 NO_ROUTE".into())
    }

    #[test]
    fn delivered_is_acked_and_not_returned() {
        use Outcome::{Delivered, Nacked};
        check(&[], &[], Some([Delivered, Delivered, Delivered]));
        check(&[], &[IDS[2]], Some([Delivered, Delivered, back()]));
        check(&[], &[IDS[1], IDS[0]], Some([back(), back(), Delivered]));
        check(&[0], &[IDS[1]], Some([Nacked, back(), Delivered]));
        check(&[1], &[IDS[1]], Some([Delivered, Nacked, Delivered]));
    }

    #[test]
    fn nothing_is_said_when_something_of_another_window_came_back() {
        check(&[], &[Uuid::from_u128(9)], None);
        let mut tally = Tally::default();
        tally.confirmed(true);
        tally.returned(None, String::new());
        assert_eq!(tally.outcomes(&IDS[..1]), None);
    }

    #[test]
    fn nothing_is_said_before_every_confirm_has_come() {
        let mut tally = Tally::default();
        tally.confirmed(true);
        tally.confirmed(true);
        assert_eq!(tally.outcomes(&IDS), None);
    }

    #[test]
    fn two_messages_of_one_id_come_back_together() {
        let mut tally = Tally::default();
        tally.confirmed(true);
        tally.confirmed(true);
        tally.returned(Some(&IDS[0].to_string()), "312 NO_ROUTE".into());
        assert_eq!(
            tally.outcomes(&[IDS[0], IDS[0]]),
            Some(vec![back(), back()])
        );
    }
}
