//! When a simulated webhook is due: at a fixed rate, or one that rises or falls evenly. Pure.

use std::time::Duration;

use super::tally::float;

/// Length of a ramp without `--count`; afterwards the final rate is kept.
const RAMP_SECONDS: f64 = 60.0;

/// Webhooks per second, at the beginning and at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    from: f64,
    to: f64,
}

/// Parses `50`, `50/s` or `5..50/s`.
///
/// # Errors
/// The text is none of these; the message says what is expected.
pub fn rate(text: &str) -> Result<Rate, String> {
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let number = |text: &str| {
        let number = text.trim().parse::<f64>().ok();
        number.filter(|rate| rate.is_finite() && *rate > 0.0)
    };
    let (from, to) = bare.split_once("..").unwrap_or((bare, bare));
    number(from)
        .zip(number(to))
        .map(|(from, to)| Rate { from, to })
        .ok_or_else(|| "expected webhooks per second, such as 50, 50/s or 5..50".into())
}

/// The schedule of the webhooks of all connections together.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    rate: Rate,
    ramp_seconds: f64,
}

impl Pace {
    /// A schedule for `count` webhooks, or without an end.
    pub(super) fn new(rate: Rate, count: Option<u64>) -> Self {
        let mean = f64::midpoint(rate.from, rate.to);
        Self {
            rate,
            ramp_seconds: count.map_or(RAMP_SECONDS, |count| float(count) / mean),
        }
    }

    /// Time from the start until the webhook with this number, from 0, is due.
    pub(super) fn due(&self, number: u64) -> Duration {
        let Rate { from, to } = self.rate;
        let number = float(number);
        let of_ramp = f64::midpoint(from, to) * self.ramp_seconds;
        let seconds = if number >= of_ramp {
            self.ramp_seconds + (number - of_ramp) / to
        } else {
            // Solves for the time: the area under the line that begins at `from` with this slope is
            // the number of webhooks.
            let slope = (to - from) / self.ramp_seconds;
            let root = (from * from + 2.0 * slope * number).max(0.0).sqrt();
            2.0 * number / (from + root)
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a webhook is due, in milliseconds.
    fn due(text: &str, count: Option<u64>, number: u64) -> u128 {
        let pace = Pace::new(rate(text).unwrap(), count);
        (pace.due(number) + Duration::from_micros(500)).as_millis()
    }

    #[test]
    fn fixed_rate_is_even() {
        for count in [None, Some(20)] {
            assert_eq!(due("50", count, 0), 0);
            assert_eq!(due("50/s", count, 19), 380);
        }
        assert_eq!(due("0.5", None, 100), 200_000);
    }

    #[test]
    fn ramp_spacing_follows_the_rate() {
        // 30 per second on average: 300 in ten seconds, and 5 * (10 + 30) / 2 in half the time.
        assert_eq!(due("10..50", Some(300), 0), 0);
        assert_eq!(due("10..50", Some(300), 100), 5000);
        assert_eq!(due("10..50", Some(300), 300), 10_000);
        assert_eq!(due("50..10", Some(300), 200), 5000);
        // Without a count: 1800 in the first minute, then 50 per second.
        assert_eq!(due("10..50", None, 1800), 60_000);
        assert_eq!(due("10..50", None, 1850), 61_000);
    }

    #[test]
    fn invalid_rates_are_refused() {
        for text in [
            "", "fast", "0", "-5", "inf", "5..", "..5", "5..0", "1..2..3",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
