//! Times as operators type and read them: in the local time zone (`TZ`), or in UTC.

mod moment;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use self::moment::Moment;
use super::failure::usage_error;

/// The choice of the time zone.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Zone {
    /// Read and show times in UTC instead of the local time zone (TZ)
    #[arg(long)]
    utc: bool,
}

/// The flags of a period. Each command says which time it compares with the period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Between {
    /// Only from this time on: 2h (ago), 14:05 (the last time it was 14:05), today, yesterday,
    /// 'yesterday 14:05', 2026-02-03, 2026-02-03T04:05, or with its offset 2026-02-03T04:05:06Z
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

/// The time zone and the current time of a command.
#[derive(Debug, Clone)]
pub struct Clock {
    zone: TimeZone,
    now: Timestamp,
}

impl Zone {
    /// The time zone and the current time.
    ///
    /// # Errors
    /// If `TZ` is not a time zone.
    pub fn clock(self) -> anyhow::Result<Clock> {
        let zone = match (TimeZone::try_system(), std::env::var("TZ")) {
            _ if self.utc => TimeZone::UTC,
            (Ok(zone), _) => zone,
            (Err(_), Ok(name)) => {
                return Err(usage_error(
                    format!("TZ is `{name}`, which is not a time zone"),
                    "use a name such as Europe/Berlin, or --utc",
                ));
            }
            // A machine without a configured time zone uses UTC.
            (Err(_), Err(_)) => TimeZone::UTC,
        };
        let now = Timestamp::now();
        Ok(Clock { zone, now })
    }
}

impl Between {
    /// The limits: from the first one (inclusive) to the second one (exclusive).
    ///
    /// # Errors
    /// If a local time occurred twice or never, or the period ends before it begins.
    pub fn limits(&self, clock: &Clock) -> anyhow::Result<[Option<Timestamp>; 2]> {
        let at = |moment: &Option<Moment>| {
            let at = moment.as_ref().map(|moment| moment.at(clock)).transpose();
            at.map_err(|why| usage_error(why, "use a time with its offset, or --utc"))
        };
        let (since, until) = (at(&self.since)?, at(&self.until)?);
        if let (Some(since), Some(until)) = (since, until)
            && until < since
        {
            let [since, until] = [since, until].map(|at| clock.show(at));
            return Err(usage_error(
                format!("`--until` ({until}) is before `--since` ({since})"),
                "name the day too, such as 'today 14:05': a time alone is the last time it was 14:05",
            ));
        }
        Ok([since, until])
    }
}

impl Clock {
    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A time to the second, with its offset: `2026-02-03T05:05:06+01:00`.
    pub fn show(&self, at: Timestamp) -> String {
        self.formatted(at, "%Y-%m-%dT%H:%M:%S")
    }

    /// A time to the millisecond, with its offset.
    pub fn show_exactly(&self, at: Timestamp) -> String {
        self.formatted(at, "%Y-%m-%dT%H:%M:%S%.3f")
    }

    fn formatted(&self, at: Timestamp, format: &str) -> String {
        let is_utc = self.zone == TimeZone::UTC;
        let offset = if is_utc { "Z" } else { "%:z" };
        let at = at.to_zoned(self.zone.clone());
        at.strftime(&format!("{format}{offset}")).to_string()
    }

    /// Like [`Clock::show_exactly`] for the text of a time. Any other text is returned unchanged.
    pub fn show_text(&self, text: &str) -> String {
        let at = text.parse().map(|at| self.show_exactly(at));
        at.unwrap_or_else(|_| text.to_owned())
    }
}

/// How long ago a time was, in its largest unit: `42s`, `5m`, `3h`, `12d`.
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
    /// A clock with a fixed time.
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

    fn limits(since: &str, until: &str) -> Result<[Option<Timestamp>; 2], String> {
        let [since, until] = [since, until].map(|text| Some(text.parse().unwrap()));
        let clock = Clock::at("UTC", "2026-02-03T14:05:00Z");
        let limits = Between { since, until }.limits(&clock);
        limits.map_err(|error| error.to_string())
    }

    #[test]
    fn period_that_ends_before_it_begins_is_refused() {
        // It is 14:05: the last time it was 14:10 was yesterday.
        assert_eq!(
            limits("14:00", "14:10").unwrap_err(),
            "`--until` (2026-02-02T14:10:00Z) is before `--since` (2026-02-03T14:00:00Z)"
        );
        let today = limits("today 14:00", "today 14:10");
        let expected = ["2026-02-03T14:00:00Z", "2026-02-03T14:10:00Z"];
        assert_eq!(today, Ok(expected.map(|text| Some(at(text)))));
        assert_eq!(
            limits("14:00", "14:00"),
            Ok([Some(at("2026-02-03T14:00:00Z")); 2])
        );
    }

    #[test]
    fn age_has_its_largest_unit() {
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
        // This local hour occurred twice.
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
