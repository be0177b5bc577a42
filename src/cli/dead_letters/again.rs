//! Messages that a replay has brought back to where they were: with nobody bound for their keys,
//! the alternate exchange leads them into the queue they were taken from.

use deskbridge::rabbitmq::queue::Queue;
use deskbridge::webhook::message::Header;
use jiff::Timestamp;

use super::summary::text;
use super::{Place, look, replay};
use crate::cli::Exit;
use crate::cli::output::say;

/// So many are there again.
pub struct Again {
    count: u64,
    is_all: bool,
}

/// Looks for those of this replay behind what was in the queue before.
pub async fn look(
    place: &Place,
    queue: &mut Queue,
    replayed_at: Timestamp,
) -> anyhow::Result<Option<Again>> {
    if place.queue != place.config.unrouted.exchange {
        return Ok(None);
    }
    let (name, Header::Text(at)) = replay::replayed_at(replayed_at) else {
        return Ok(None);
    };
    let told = |error| look::told(place, error);
    queue.extend().await.map_err(told)?;
    let mut count = 0;
    loop {
        let window = queue.take().await.map_err(told)?;
        if window.is_empty() {
            break;
        }
        let ours = window
            .iter()
            .filter(|letter| text(letter, name) == Some(&at));
        count += ours.count() as u64;
    }
    let is_all = queue.untaken() == 0;
    Ok((count > 0).then_some(Again { count, is_all }))
}

impl Again {
    /// Says so on standard error.
    pub fn tell(&self, place: &Place) -> Exit {
        let least = if self.is_all { "" } else { "at least " };
        let (messages, their) = match self.count {
            1 => ("message is", "its key"),
            _ => ("messages are", "their keys"),
        };
        say(format_args!(
            "{least}{} {messages} in queue `{}` again: nobody is bound for {their} yet (`deskbridge check` shows what is)",
            self.count, place.queue
        ));
        Exit::No
    }
}
