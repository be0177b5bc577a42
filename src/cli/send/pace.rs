//! When a simulated webhook is due: at a fixed rate, or one that rises or falls evenly. Pure.

use std::time::Duration;

/// A ramp without a known end takes so long, and stays where it came to.
const RAMP_SECONDS: f64 = 60.0;

/// Webhooks a second, at the beginning and at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    from: f64,
    to: f64,
}

/// Reads `50`, `50/s` or `5..50/s`.
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
        .ok_or_else(|| "expected webhooks a second, such as 50, 50/s or 5..50".into())
}

/// When the webhooks of all connections together are due.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    rate: Rate,
    ramp_seconds: f64,
}

impl Pace {
    /// A ramp over so many webhooks, if they are counted.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a pace needs no more than 52 bits"
    )]
    pub fn new(rate: Rate, count: Option<u64>) -> Self {
        let mean = f64::midpoint(rate.from, rate.to);
        Self {
            rate,
            ramp_seconds: count.map_or(RAMP_SECONDS, |count| count as f64 / mean),
        }
    }

    /// From the start to the webhook with this number, counted from 0.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a pace needs no more than 52 bits"
    )]
    pub fn due(&self, number: u64) -> Duration {
        let Rate { from, to } = self.rate;
        let number = number as f64;
        let of_ramp = f64::midpoint(from, to) * self.ramp_seconds;
        let seconds = if number >= of_ramp {
            self.ramp_seconds + (number - of_ramp) / to
        } else {
            // The area under a line from `from` with this slope is the number.
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

    /// In milliseconds.
    fn due(text: &str, count: Option<u64>, number: u64) -> u128 {
        let pace = Pace::new(rate(text).unwrap(), count);
        (pace.due(number) + Duration::from_micros(500)).as_millis()
    }

    #[test]
    fn a_fixed_rate_is_even() {
        for count in [None, Some(20)] {
            assert_eq!(due("50", count, 0), 0);
            assert_eq!(due("50/s", count, 19), 380);
        }
        assert_eq!(due("0.5", None, 100), 200_000);
    }

    #[test]
    fn a_ramp_is_slow_where_its_rate_is_low() {
        // Mean 30 a second: 300 in ten seconds; half of the time gives 5 * (10 + 30) / 2.
        assert_eq!(due("10..50", Some(300), 0), 0);
        assert_eq!(due("10..50", Some(300), 100), 5000);
        assert_eq!(due("10..50", Some(300), 300), 10_000);
        assert_eq!(due("50..10", Some(300), 200), 5000);
        // Uncounted: 1800 in the first minute, then 50 a second.
        assert_eq!(due("10..50", None, 1800), 60_000);
        assert_eq!(due("10..50", None, 1850), 61_000);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "", "fast", "0", "-5", "inf", "5..", "..5", "5..0", "1..2..3",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
