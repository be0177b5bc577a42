//! A time as the user types it. A local time that occurred twice or never, because the clocks
//! changed, is refused: it is impossible to know which time is meant.

use std::str::FromStr;
use std::time::Duration;

use deskbridge::config::units::parse_duration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset};
use jiff::{Timestamp, ToSpan};

use super::Clock;

const FAR: &str = "that time is out of range";

/// A time as it was typed, not yet resolved in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A time with its offset.
    Instant(Timestamp),
    /// A duration before now.
    Ago(Duration),
    /// The last occurrence of a local time of day.
    Last(Time),
    /// A local time of that day, or its beginning.
    Day(Date, Option<Time>),
    /// As `Day`, a number of days before today.
    DaysAgo(i64, Option<Time>),
}

impl Moment {
    /// The point in time, in the time zone of `clock`.
    ///
    /// # Errors
    /// If the local time occurred twice or never, or is outside the supported range.
    pub fn at(self, clock: &Clock) -> Result<Timestamp, String> {
        let today = clock.now.to_zoned(clock.zone.clone()).date();
        match self {
            Self::Instant(at) => Ok(at),
            Self::Ago(ago) => clock.now.checked_sub(ago).map_err(far),
            Self::Last(time) => last(time, today, clock).ok_or_else(|| FAR.to_owned()),
            Self::Day(day, Some(time)) => once(day.to_datetime(time), clock),
            Self::Day(day, None) => {
                let begin = day.to_zoned(clock.zone.clone()).map_err(far)?;
                Ok(begin.timestamp())
            }
            Self::DaysAgo(days, time) => {
                let day = today.checked_sub(days.days()).map_err(far)?;
                Self::Day(day, time).at(clock)
            }
        }
    }
}

fn far(_: jiff::Error) -> String {
    FAR.to_owned()
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a time such as 14:05, today, 'yesterday 14:05', 2026-02-03, 2026-02-03T04:05 or \
                 2026-02-03T04:05:06Z, or how long ago such as 2h or 1d, found `{text}`"
            )
        };
        if let Ok(at) = text.parse() {
            return Ok(Self::Instant(at));
        }
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        if let Some(time) = time(text) {
            return Ok(Self::Last(time));
        }
        let (word, rest) = text
            .split_once(' ')
            .map_or((text, None), |(word, rest)| (word, Some(rest)));
        let days = [("today", 0), ("yesterday", 1)];
        if let Some((_, days)) = days.into_iter().find(|(known, _)| *known == word) {
            let time = rest.map(|rest| time(rest.trim_start()).ok_or_else(wrong));
            return Ok(Self::DaysAgo(days, time.transpose()?));
        }
        let local: DateTime = text.parse().map_err(|_| wrong())?;
        // `jiff` parses a date without a time as midnight.
        let is_day = text.len() <= "2026-02-03".len();
        Ok(Self::Day(local.date(), (!is_day).then(|| local.time())))
    }
}

/// Parses `14:05` or `14:05:06`.
fn time(text: &str) -> Option<Time> {
    let is_plain = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    text.parse().ok().filter(|_| is_plain)
}

/// The point in time of a local time that occurred exactly once.
fn once(local: DateTime, clock: &Clock) -> Result<Timestamp, String> {
    let ambiguous = clock.zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().map_err(far),
        AmbiguousOffset::Fold { before, after } => {
            let at = |offset: Offset| offset.to_timestamp(local).map_err(far);
            Err(format!(
                "{local} occurred twice, because the clocks were put back: write {} or {}",
                at(before)?.display_with_offset(before),
                at(after)?.display_with_offset(after),
            ))
        }
        AmbiguousOffset::Gap { .. } => Err(format!(
            "{local} never occurred: the clocks were put forward over it"
        )),
    }
}

/// The last occurrence of a local time until now. Days on which it does not occur are skipped. On a
/// day on which it occurs twice, the later occurrence counts, unless it is still in the future.
fn last(time: Time, today: Date, clock: &Clock) -> Option<Timestamp> {
    let days = (0..7).filter_map(|days: i64| today.checked_sub(days.days()).ok());
    let mut moments = days.flat_map(|day| {
        let ambiguous = clock.zone.to_ambiguous_timestamp(day.to_datetime(time));
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => [None, None],
            _ => [ambiguous.later().ok(), ambiguous.earlier().ok()],
        }
    });
    moments.find_map(|at| at.filter(|at| *at <= clock.now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-02-03T04:05:06Z";

    fn read(zone: &str, now: &str, text: &str) -> Result<String, String> {
        let moment: Moment = text.parse()?;
        let at = moment.at(&Clock::at(zone, now))?;
        Ok(at.to_string())
    }

    #[track_caller]
    fn check(zone: &str, now: &str, text: &str, expected: &str) {
        assert_eq!(read(zone, now, text).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn instants_and_ages_need_no_time_zone() {
        for zone in ["UTC", "Asia/Kolkata"] {
            check(
                zone,
                NOW,
                "2026-01-01T01:00:00+01:00",
                "2026-01-01T00:00:00Z",
            );
            check(zone, NOW, "2026-01-01 01:00Z", "2026-01-01T01:00:00Z");
            check(zone, NOW, "2h", "2026-02-03T02:05:06Z");
            check(zone, NOW, "1d 5s", "2026-02-02T04:05:01Z");
        }
    }

    #[test]
    fn dates_and_times_are_local() {
        let berlin = "Europe/Berlin";
        check("UTC", NOW, "2026-01-01", "2026-01-01T00:00:00Z");
        check(berlin, NOW, "2026-01-01", "2025-12-31T23:00:00Z");
        check(berlin, NOW, "2026-07-01T14:05", "2026-07-01T12:05:00Z");
        check(berlin, NOW, "2026-07-01 14:05:30", "2026-07-01T12:05:30Z");
        check(berlin, NOW, "today", "2026-02-02T23:00:00Z");
        check(berlin, NOW, "yesterday", "2026-02-01T23:00:00Z");
        check(berlin, NOW, "today 01:30", "2026-02-03T00:30:00Z");
        check(berlin, NOW, "yesterday 14:05", "2026-02-02T13:05:00Z");
        check("America/Los_Angeles", NOW, "today", "2026-02-02T08:00:00Z");
    }

    #[test]
    fn time_of_day_is_the_most_recent_one() {
        check("UTC", NOW, "04:05", "2026-02-03T04:05:00Z");
        check("UTC", NOW, "04:05:07", "2026-02-02T04:05:07Z");
        check("Europe/Berlin", NOW, "05:05", "2026-02-03T04:05:00Z");
        check("Europe/Berlin", NOW, "14:05", "2026-02-02T13:05:00Z");
    }

    #[test]
    fn ambiguous_local_hour_is_refused() {
        let berlin = "Europe/Berlin";
        let now = "2026-10-25T08:00:00Z";
        let why = read(berlin, now, "2026-10-25T02:30").unwrap_err();
        let both = "write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00";
        assert!(why.contains(both), "{why}");
        assert!(read(berlin, now, "today 02:30").is_err());
        check(berlin, now, "2026-10-25T03:00", "2026-10-25T02:00:00Z");
        // The last 02:30: before the clocks were put back, and after.
        check(
            berlin,
            "2026-10-25T00:45:00Z",
            "02:30",
            "2026-10-25T00:30:00Z",
        );
        check(
            berlin,
            "2026-10-25T01:45:00Z",
            "02:30",
            "2026-10-25T01:30:00Z",
        );
    }

    #[test]
    fn skipped_local_hour_is_refused() {
        let berlin = "Europe/Berlin";
        let now = "2026-03-29T10:00:00Z";
        let why = read(berlin, now, "2026-03-29 02:30").unwrap_err();
        assert!(why.contains("2026-03-29T02:30:00 never occurred"), "{why}");
        check(berlin, now, "02:30", "2026-03-28T01:30:00Z");
        check(berlin, now, "03:00", "2026-03-29T01:00:00Z");
        // Because of a clock change, this day begins at 01:00.
        let now = "2026-09-06T12:00:00Z";
        check("America/Santiago", now, "today", "2026-09-06T04:00:00Z");
        check(
            "America/Santiago",
            now,
            "2026-09-06",
            "2026-09-06T04:00:00Z",
        );
    }

    #[test]
    fn invalid_times_are_refused() {
        for wrong in [
            "",
            "tomorrow",
            "2026-13-01",
            "2",
            "25:00",
            "today 2h",
            "todays",
            "yesterday2",
            "999999999999d",
            "2026-02-03T04:05:06Q",
            "14:05Z",
        ] {
            assert!(read("UTC", NOW, wrong).is_err(), "{wrong}");
        }
    }
}
