//! Durations (`"10s"`, `"1h30m"`) and sizes (`"64MiB"`) as people write them, both ways.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

/// What [`parse_duration`] reads, as a regular expression (ECMA-262).
pub(super) const DURATION_PATTERN: &str = r"^\s*([0-9]+\s*(ms|s|m|h|d|w)\s*)+$";

/// What [`parse_size`] reads, as a regular expression (ECMA-262).
pub(super) const SIZE_PATTERN: &str = r"^\s*(\+?[0-9]+|[0-9]+\s*([KkMmGgTt][Ii]?)?[Bb])\s*$";

/// Stands for a duration in the schema of the configuration.
pub(super) struct Span;

/// Stands for bytes in the schema of the configuration.
pub(super) struct Size;

const DURATIONS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Reads `"10s"`, `"200ms"`, `"7d"`, `"1h30m"`, `"0s"`.
///
/// # Errors
/// What is expected, when it is something else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected {}", <Duration as Quantity>::EXPECTED);
    let mut rest = text.trim();
    let mut milliseconds = Some(0_u64);
    let mut parts = 0;
    while !rest.is_empty() {
        let (number, unit, behind) = number_and_unit(rest).ok_or_else(wrong)?;
        let (_, factor) = DURATIONS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        milliseconds = milliseconds.and_then(|sum| {
            number
                .checked_mul(*factor)
                .and_then(|part| sum.checked_add(part))
        });
        parts += 1;
        rest = behind.trim_start();
    }
    match milliseconds {
        Some(milliseconds) if parts > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(wrong()),
    }
}

/// Reads `"64MiB"`, `"16MB"`, `"512 B"` or a plain number of bytes.
///
/// # Errors
/// What is expected, when it is something else.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected {}", <u64 as Quantity>::EXPECTED);
    let trimmed = text.trim();
    if let Ok(bytes) = trimmed.parse() {
        return Ok(bytes);
    }
    let (number, unit, rest) = number_and_unit(trimmed).ok_or_else(wrong)?;
    let known = SIZES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let bytes = known.and_then(|(_, factor)| number.checked_mul(*factor));
    bytes.filter(|_| rest.is_empty()).ok_or_else(wrong)
}

fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, behind) = rest.split_at(end);
    Some((digits.parse().ok()?, unit, behind))
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that is exact.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".into();
    }
    let days_and_smaller = DURATIONS.iter().skip(1);
    let (unit, factor) = largest_exact(milliseconds, days_and_smaller).unwrap_or(("ms", 1));
    format!("{}{unit}", milliseconds / factor)
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that is exact.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    let (unit, factor) = largest_exact(bytes, SIZES.iter()).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn largest_exact<'a>(
    value: u64,
    units: impl Iterator<Item = &'a (&'static str, u64)>,
) -> Option<(&'static str, u64)> {
    units
        .copied()
        .find(|(_, factor)| value.is_multiple_of(*factor))
}

/// A quantity with a unit: `#[serde(with = "super::units")]` reads and writes it.
pub trait Quantity: Copy {
    /// What a value must be, for error messages.
    const EXPECTED: &'static str;
    /// Reads it with its unit.
    ///
    /// # Errors
    /// What is expected, when it is something else.
    fn parse(text: &str) -> Result<Self, String>;
    /// Takes a number without a unit, where that has a meaning.
    fn from_number(number: u64) -> Option<Self>;
    /// Writes it as [`Quantity::parse`] reads it.
    fn format(self) -> String;
}

impl Quantity for Duration {
    const EXPECTED: &'static str = "a duration such as \"10s\", \"200ms\" or \"7d\"";

    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn from_number(number: u64) -> Option<Self> {
        (number == 0).then_some(Self::ZERO)
    }

    fn format(self) -> String {
        format_duration(self)
    }
}

/// Bytes.
impl Quantity for u64 {
    const EXPECTED: &'static str = "a size such as \"64MiB\", \"16MB\" or a number of bytes";

    fn parse(text: &str) -> Result<Self, String> {
        parse_size(text)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }

    fn format(self) -> String {
        format_size(self)
    }
}

struct QuantityVisitor<Q>(PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for QuantityVisitor<Q> {
    type Value = Q;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Q::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Q, E> {
        Q::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Q, E> {
        Q::from_number(number).ok_or_else(|| E::invalid_type(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Q, E> {
        let unsigned = u64::try_from(number).ok().and_then(Q::from_number);
        unsigned.ok_or_else(|| E::invalid_type(Unexpected::Signed(number), &self))
    }
}

/// Reads a quantity, for `#[serde(with)]`.
///
/// # Errors
/// What is expected, when it is something else.
pub fn deserialize<'de, Q: Quantity, D: Deserializer<'de>>(deserializer: D) -> Result<Q, D::Error> {
    deserializer.deserialize_any(QuantityVisitor(PhantomData))
}

/// Writes a quantity, for `#[serde(with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<Q: Quantity, S: Serializer>(value: &Q, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.format())
}

/// The same for a quantity that may be absent.
pub mod optional {
    use super::{Deserialize, Deserializer, Quantity, Serializer};

    #[derive(Deserialize)]
    #[serde(bound = "Q: Quantity")]
    struct Present<Q: Quantity>(#[serde(with = "super")] Q);

    /// Reads a quantity that may be absent, for `#[serde(with)]`.
    ///
    /// # Errors
    /// What is expected, when it is something else.
    pub fn deserialize<'de, Q: Quantity, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Q>, D::Error> {
        let present: Option<Present<Q>> = Option::deserialize(deserializer)?;
        Ok(present.map(|present| present.0))
    }

    /// Writes a quantity that may be absent, for `#[serde(with)]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<Q: Quantity, S: Serializer>(
        value: &Option<Q>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&value.format()),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(
                parse_duration(text).ok(),
                milliseconds.map(Duration::from_millis),
                "{text}"
            );
        };
        check("10s", Some(10_000));
        check("200ms", Some(200));
        check("7d", Some(604_800_000));
        check("1h30m", Some(5_400_000));
        check(" 1h 30m ", Some(5_400_000));
        check("0s", Some(0));
        check("1w", Some(604_800_000));
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 parsecs",
            "1s!",
            "99999999999999999999s",
            "9999999999999w",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let check =
            |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text).ok(), bytes, "{text}");
        check("64MiB", Some(64 << 20));
        check("10GiB", Some(10 << 30));
        check("16MB", Some(16_000_000));
        check("16mb", Some(16_000_000));
        check("512 B", Some(512));
        check("1048576", Some(1 << 20));
        check("0", Some(0));
        for wrong in [
            "",
            "MiB",
            "1.5GiB",
            "-1",
            "10Mib/s",
            "1MiB1",
            "99999999999TiB",
            "8 bit",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for milliseconds in [0, 1, 200, 1000, 90_000, 5_400_000, 604_800_000, 1_234_567] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1000, 1024, 10 << 20, 16_000_000, 10 << 30, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_duration(Duration::from_hours(7 * 24)), "7d");
        assert_eq!(format_size(10 << 20), "10MiB");
    }
}
