//! Times as operators type and read them: in their time zone (`TZ`), or in UTC.

mod moment;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use self::moment::Moment;
use super::failure::misused;

/// In which time zone.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Zone {
    /// Read and show times in UTC instead of the local time zone (TZ)
    #[arg(long)]
    utc: bool,
}

/// Which period; what it is about is the command's.
#[derive(Debug, Clone, Default, Args)]
pub struct Between {
    /// Only from then on: 2h (ago), 14:05 (the last time it was), today, yesterday, 'yesterday 14:05',
    /// 2026-02-03, 2026-02-03T04:05, or with an offset 2026-02-03T04:05:06Z
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only before then
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

/// A period; without an end it has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Period {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// The time zone and the time of a command.
#[derive(Debug, Clone)]
pub struct Clock {
    zone: TimeZone,
    now: Timestamp,
}

impl Zone {
    /// # Errors
    /// If `TZ` is not a time zone.
    pub fn clock(self) -> anyhow::Result<Clock> {
        let zone = if self.utc {
            TimeZone::UTC
        } else {
            match (TimeZone::try_system(), std::env::var("TZ")) {
                (Ok(zone), _) => zone,
                (Err(_), Ok(name)) => {
                    return Err(misused(
                        format!("TZ is `{name}`, which is no time zone"),
                        "a name such as Europe/Berlin, or --utc",
                    ));
                }
                // A machine without a time zone is in UTC.
                (Err(_), Err(_)) => TimeZone::UTC,
            }
        };
        let now = Timestamp::now();
        Ok(Clock { zone, now })
    }
}

impl Between {
    /// Whether it is all of time.
    pub fn is_empty(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// # Errors
    /// If a local time was twice or never.
    pub fn period(&self, clock: &Clock) -> anyhow::Result<Period> {
        let at = |moment: &Option<Moment>| {
            let at = moment.as_ref().map(|moment| moment.at(clock)).transpose();
            at.map_err(|why| misused(why, "a time with its offset, or --utc"))
        };
        Ok(Period {
            since: at(&self.since)?,
            until: at(&self.until)?,
        })
    }
}

impl Period {
    /// Whether a time is in it; an unknown one is only in all of time.
    pub fn has(self, at: Option<Timestamp>) -> bool {
        self.since
            .is_none_or(|since| at.is_some_and(|at| at >= since))
            && self
                .until
                .is_none_or(|until| at.is_some_and(|at| at < until))
    }
}

impl Clock {
    /// To the second, with its offset: `2026-02-03T05:05:06+01:00`.
    pub fn show(&self, at: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        }
        let at = at.to_zoned(self.zone.clone());
        at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// To the millisecond.
    pub fn show_exactly(&self, at: Timestamp) -> String {
        if self.zone == TimeZone::UTC {
            return format!("{at:.3}");
        }
        let at = at.to_zoned(self.zone.clone());
        at.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
    }

    /// The same for a text that may be one.
    pub fn show_text(&self, text: &str) -> String {
        let at = text.parse().map(|at| self.show_exactly(at));
        at.unwrap_or_else(|_| text.to_owned())
    }
}

/// How long ago that was, in its largest unit: `42s`, `5m`, `3h`, `12d`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
impl Clock {
    /// One that stands still.
    pub fn at(zone: &str, now: &str) -> Self {
        Self {
            zone: match zone {
                "UTC" => TimeZone::UTC,
                zone => TimeZone::get(zone).unwrap(),
            },
            now: now.parse().unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_age_has_its_largest_unit() {
        let now = at("2026-02-03T04:05:06Z");
        let check = |then: &str, expected: &str| assert_eq!(age(at(then), now), expected, "{then}");
        check("2026-02-03T04:05:01Z", "5s");
        check("2026-02-03T04:00:00Z", "5m");
        check("2026-02-02T04:05:06Z", "24h");
        check("2026-01-01T00:00:00Z", "33d");
        check("2026-02-03T04:05:07Z", "0s");
    }

    #[test]
    fn times_are_shown_with_their_offset() {
        let check = |zone: &str, time: &str, expected: &str| {
            let clock = Clock::at(zone, "2026-01-01T00:00:00Z");
            assert_eq!(clock.show_text(time), expected);
        };
        check(
            "UTC",
            "2026-07-03T04:05:06.7891Z",
            "2026-07-03T04:05:06.789Z",
        );
        check(
            "Europe/Berlin",
            "2026-07-03T22:05:06Z",
            "2026-07-04T00:05:06.000+02:00",
        );
        check(
            "Asia/Kolkata",
            "2026-07-03T04:05:06Z",
            "2026-07-03T09:35:06.000+05:30",
        );
        check("Europe/Berlin", "no time\n", "no time\n");
        // The same hour of the clock, twice.
        let clock = Clock::at("Europe/Berlin", "2026-01-01T00:00:00Z");
        assert_eq!(
            clock.show(at("2026-10-25T00:30:00Z")),
            "2026-10-25T02:30:00+02:00"
        );
        assert_eq!(
            clock.show(at("2026-10-25T01:30:00Z")),
            "2026-10-25T02:30:00+01:00"
        );
    }
}
