//! Decides which message was returned: by the `message_id` of the return, never by the confirm that
//! carries it. lapin attaches a return to whichever confirm of the channel completes next.

use std::collections::{HashMap, HashSet};

use crate::rabbitmq::Outcome;

/// Collects the confirms and returns of a window.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// One element for each confirm, in the window's order.
    is_acked: Vec<bool>,
    /// The broker's code and text by `message_id`.
    returns: HashMap<Option<String>, String>,
}

impl Attribution {
    /// Counts the confirm of the next message: an ack or a nack.
    pub(super) fn confirmed(&mut self, is_acked: bool) {
        self.is_acked.push(is_acked);
    }

    /// Whether any message was nacked.
    pub(super) fn is_any_nacked(&self) -> bool {
        self.is_acked.contains(&false)
    }

    /// Counts one return, with the broker's code and text.
    pub(super) fn returned(&mut self, message_id: Option<&str>, reason: String) {
        self.returns.insert(message_id.map(Into::into), reason);
    }

    /// The outcome of each message, in the window's order. `None` if it cannot be determined: a
    /// confirm is missing, or a returned message does not belong to this window.
    pub(super) fn outcomes(self, message_ids: &[Option<String>]) -> Option<Vec<Outcome>> {
        if self.is_acked.len() != message_ids.len() {
            return None;
        }
        if !self.returns.is_empty() {
            let of_window: HashSet<_> = message_ids.iter().collect();
            if !self.returns.keys().all(|id| of_window.contains(id)) {
                return None;
            }
        }
        // Two messages with one id are the same event, so a return counts for both, and both are
        // published again.
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

    const IDS: [&str; 3] = ["a", "b", "c"];

    fn of(ids: &[&str]) -> Vec<Option<String>> {
        ids.iter().map(|id| Some((*id).into())).collect()
    }

    /// Checks the outcomes when all confirms are acks except those at the indices `nacked`.
    fn check(nacked: &[usize], returned: &[&str], expected: Option<[Outcome; 3]>) {
        let mut attribution = Attribution::default();
        for index in 0..IDS.len() {
            attribution.confirmed(!nacked.contains(&index));
        }
        for id in returned {
            attribution.returned(Some(id), "312 NO_ROUTE".into());
        }
        assert_eq!(attribution.outcomes(&of(&IDS)), expected.map(Vec::from));
    }

    fn back() -> Outcome {
        Outcome::Returned("312 NO_ROUTE".into())
    }

    #[test]
    fn delivered_means_acked_and_not_returned() {
        use Outcome::{Delivered, Nacked};
        check(&[], &[], Some([Delivered, Delivered, Delivered]));
        check(&[], &[IDS[2]], Some([Delivered, Delivered, back()]));
        check(&[], &[IDS[1], IDS[0]], Some([back(), back(), Delivered]));
        check(&[0], &[IDS[1]], Some([Nacked, back(), Delivered]));
        check(&[1], &[IDS[1]], Some([Delivered, Nacked, Delivered]));
    }

    #[test]
    fn foreign_return_leaves_outcomes_unknown() {
        check(&[], &["z"], None);
        let mut attribution = Attribution::default();
        attribution.confirmed(true);
        attribution.returned(None, String::new());
        assert_eq!(attribution.outcomes(&of(&IDS[..1])), None);
    }

    #[test]
    fn no_outcome_before_the_last_confirm() {
        let mut attribution = Attribution::default();
        attribution.confirmed(true);
        attribution.confirmed(true);
        assert_eq!(attribution.outcomes(&of(&IDS)), None);
    }

    #[test]
    fn equal_ids_are_returned_together() {
        let mut attribution = Attribution::default();
        attribution.confirmed(true);
        attribution.confirmed(true);
        attribution.returned(Some(IDS[0]), "312 NO_ROUTE".into());
        assert_eq!(
            attribution.outcomes(&of(&[IDS[0], IDS[0]])),
            Some(vec![back(), back()])
        );
    }
}
