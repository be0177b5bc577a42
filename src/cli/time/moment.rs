//! A moment as it is typed. A local time that the clocks showed twice, or never, is refused: nobody
//! can know which one was meant.

use std::str::FromStr;
use std::time::Duration;

use deskbridge::config::units::parse_duration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::AmbiguousOffset;
use jiff::{Timestamp, ToSpan};

use super::Clock;

const FAR: &str = "that is too far away";

/// A moment, not yet in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// With its offset.
    Instant(Timestamp),
    /// So long ago.
    Ago(Duration),
    /// A date and a time of the clock.
    Local(DateTime),
    /// The beginning of a day.
    Day(Date),
    /// The last time the clock showed it.
    Last(Time),
    /// So many days before today, at a time of the clock or at the beginning.
    DaysAgo(i64, Option<Time>),
}

impl Moment {
    /// When that is.
    ///
    /// # Errors
    /// If the clocks showed it twice or never, or it is out of all bounds.
    pub fn at(self, clock: &Clock) -> Result<Timestamp, String> {
        let today = clock.now.to_zoned(clock.zone.clone()).date();
        let begin = |day: Date| {
            let begin = day.to_zoned(clock.zone.clone()).map_err(far)?;
            Ok(begin.timestamp())
        };
        match self {
            Self::Instant(at) => Ok(at),
            Self::Ago(ago) => clock.now.checked_sub(ago).map_err(far),
            Self::Local(local) => once(local, clock),
            Self::Day(day) => begin(day),
            Self::Last(time) => last(time, today, clock).ok_or_else(|| FAR.to_owned()),
            Self::DaysAgo(days, time) => {
                let day = today.checked_sub(days.days()).map_err(far)?;
                time.map_or_else(|| begin(day), |time| once(day.to_datetime(time), clock))
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
        for (word, days) in [("today", 0), ("yesterday", 1)] {
            match text.strip_prefix(word) {
                Some("") => return Ok(Self::DaysAgo(days, None)),
                Some(rest) if rest.starts_with(' ') => {
                    let time = time(rest.trim_start()).ok_or_else(wrong)?;
                    return Ok(Self::DaysAgo(days, Some(time)));
                }
                _ => {}
            }
        }
        let local: DateTime = text.parse().map_err(|_| wrong())?;
        // The library takes what is left out for midnight.
        let is_day = text.len() <= "2026-02-03".len();
        Ok(if is_day {
            Self::Day(local.date())
        } else {
            Self::Local(local)
        })
    }
}

/// `14:05` or `14:05:06`.
fn time(text: &str) -> Option<Time> {
    let is_plain = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    text.parse().ok().filter(|_| is_plain)
}

/// The one moment at which the clocks showed it.
fn once(local: DateTime, clock: &Clock) -> Result<Timestamp, String> {
    let ambiguous = clock.zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().map_err(far),
        AmbiguousOffset::Fold { before, after } => Err(format!(
            "the clocks showed {local} twice: write {local}{before} or {local}{after}",
            before = offset(before),
            after = offset(after),
        )),
        AmbiguousOffset::Gap { .. } => Err(format!(
            "the clocks never showed {local}: they were put forward over it"
        )),
    }
}

/// A day without it is passed over; of a day that has it twice, the later one that has been counts.
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

fn offset(offset: jiff::tz::Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
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
    fn a_time_is_the_last_one_that_was() {
        check("UTC", NOW, "04:05", "2026-02-03T04:05:00Z");
        check("UTC", NOW, "04:05:07", "2026-02-02T04:05:07Z");
        check("Europe/Berlin", NOW, "05:05", "2026-02-03T04:05:00Z");
        check("Europe/Berlin", NOW, "14:05", "2026-02-02T13:05:00Z");
    }

    #[test]
    fn an_hour_that_came_twice_is_asked_about() {
        let berlin = "Europe/Berlin";
        let now = "2026-10-25T08:00:00Z";
        let why = read(berlin, now, "2026-10-25T02:30").unwrap_err();
        let both = "write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00";
        assert!(why.contains(both), "{why}");
        assert!(read(berlin, now, "today 02:30").is_err());
        check(berlin, now, "2026-10-25T03:00", "2026-10-25T02:00:00Z");
        // The last time it was half past two: before the clocks were put back, and after.
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
    fn an_hour_that_never_came_is_refused() {
        let berlin = "Europe/Berlin";
        let now = "2026-03-29T10:00:00Z";
        let why = read(berlin, now, "2026-03-29 02:30").unwrap_err();
        assert!(why.contains("never showed 2026-03-29T02:30:00"), "{why}");
        check(berlin, now, "02:30", "2026-03-28T01:30:00Z");
        check(berlin, now, "03:00", "2026-03-29T01:00:00Z");
        // A day that begins at one o'clock.
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
    fn what_is_no_time_is_refused() {
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
