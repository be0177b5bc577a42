//! Times as operators type them: RFC 3339, a date, or how long ago.

use std::time::Duration;

use deskbridge::config::units::parse_duration;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Reads `2026-02-03T04:05:06Z`, `2026-02-03` (midnight in UTC) or `2h` (two hours ago).
///
/// # Errors
/// What is expected, when it is something else.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    moment_before(text, Timestamp::now())
}

fn moment_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "expected a time such as 2026-02-03T04:05:06Z or 2026-02-03, or how long ago such as 2h or 1d, found `{text}`"
        )
    };
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(date) = text.parse::<Date>() {
        let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
        return Ok(midnight.timestamp());
    }
    let ago = parse_duration(text).map_err(|_| wrong())?;
    now.checked_sub(ago).map_err(|_| wrong())
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
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_is_a_time_a_date_or_how_long_ago() {
        let now = at("2026-02-03T04:05:06Z");
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(moment_before(text, now).ok(), expected.map(at), "{text}");
        };
        check("2026-01-01T01:00:00+01:00", Some("2026-01-01T00:00:00Z"));
        check("2026-01-01", Some("2026-01-01T00:00:00Z"));
        check("2h", Some("2026-02-03T02:05:06Z"));
        check("1d 5s", Some("2026-02-02T04:05:01Z"));
        for wrong in ["", "yesterday", "2026-13-01", "2", "999999999999d"] {
            check(wrong, None);
        }
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
}
