//! Parses and formats durations (`"10s"`, `"1h30m"`) and sizes (`"64MiB"`).

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serialize, Serializer};

/// Pattern of what [`parse_duration`] accepts, for the JSON Schema (ECMA-262).
pub(super) const DURATION_PATTERN: &str = r"^\s*([0-9]+\s*(ms|s|m|h|d|w)\s*)+$";

/// Pattern of what [`Size`] accepts, for the JSON Schema (ECMA-262).
pub(super) const SIZE_PATTERN: &str = r"^\s*(\+?[0-9]+|[0-9]+\s*([KkMmGgTt][Ii]?)?[Bb])\s*$";

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

/// Parses `"10s"`, `"200ms"`, `"7d"`, `"1h30m"` or `"0s"`: whole numbers, each with a unit.
///
/// # Errors
/// What is expected, if the text is not a duration or overflows.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parts = |text: &str| {
        let (mut milliseconds, mut rest) = leading(text, &DURATIONS, str::eq)?;
        while !rest.trim_start().is_empty() {
            let (part, behind) = leading(rest.trim_start(), &DURATIONS, str::eq)?;
            (milliseconds, rest) = (milliseconds.checked_add(part)?, behind);
        }
        Some(Duration::from_millis(milliseconds))
    };
    parts(text.trim()).ok_or_else(|| format!("expected {}", Span::EXPECTED))
}

/// The product of the number and the unit at the start of a text, and the rest of the text.
fn leading<'t>(
    text: &'t str,
    units: &[(&str, u64)],
    is_same: fn(&str, &str) -> bool,
) -> Option<(u64, &'t str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic());
    let (unit, behind) = rest.split_at(end.unwrap_or(rest.len()));
    let (_, factor) = units.iter().find(|(name, _)| is_same(name, unit))?;
    let number: u64 = digits.parse().ok()?;
    Some((number.checked_mul(*factor)?, behind))
}

/// Formats a duration for [`parse_duration`], in the largest exact unit up to days.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    match u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) {
        0 => "0s".into(),
        milliseconds => in_largest_exact(milliseconds, &DURATIONS[1..]),
    }
}

/// Formats a size in the largest exact unit.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".into(),
        bytes => in_largest_exact(bytes, &SIZES),
    }
}

fn in_largest_exact(value: u64, units: &[(&str, u64)]) -> String {
    let is_exact = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor);
    let (unit, factor) = units.iter().find(is_exact).unwrap_or(&("", 1));
    format!("{}{unit}", value / factor)
}

/// A quantity with a unit. Its types are used as `#[serde(with = "Span")]`, which also gives the
/// JSON Schema of the field.
pub(super) trait Quantity {
    /// The type of the field.
    type Value: Copy;
    /// The accepted form, for error messages.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Result<Self::Value, String>;
    /// Converts a number without a unit; `None` if it needs a unit.
    fn from_number(number: u64) -> Option<Self::Value>;
    fn format(value: Self::Value) -> String;

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        let present = deserializer.deserialize_any(QuantityVisitor::<Self>(PhantomData))?;
        present.ok_or_else(|| D::Error::custom(format_args!("expected {}", Self::EXPECTED)))
    }

    fn serialize<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::format(*value))
    }
}

/// A duration.
pub(super) struct Span;

impl Quantity for Span {
    type Value = Duration;
    const EXPECTED: &'static str = "a duration such as \"10s\", \"200ms\" or \"7d\"";

    fn parse(text: &str) -> Result<Duration, String> {
        parse_duration(text)
    }

    fn from_number(number: u64) -> Option<Duration> {
        (number == 0).then_some(Duration::ZERO)
    }

    fn format(value: Duration) -> String {
        format_duration(value)
    }
}

/// A size in bytes.
pub(super) struct Size;

impl Quantity for Size {
    type Value = u64;
    const EXPECTED: &'static str = "a size such as \"64MiB\", \"16MB\" or a number of bytes";

    /// Parses `"64MiB"`, `"16MB"`, `"512 B"` or a number of bytes. Units ignore case.
    fn parse(text: &str) -> Result<u64, String> {
        let text = text.trim();
        let with_unit = || {
            let (bytes, rest) = leading(text, &SIZES, str::eq_ignore_ascii_case)?;
            rest.is_empty().then_some(bytes)
        };
        let bytes = text.parse().ok().or_else(with_unit);
        bytes.ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }

    fn from_number(number: u64) -> Option<u64> {
        Some(number)
    }

    fn format(value: u64) -> String {
        format_size(value)
    }
}

/// An optional quantity, for `#[serde(with = "Optional::<Span>")]`.
pub(super) struct Optional<Q>(PhantomData<Q>);

impl<Q: Quantity> Optional<Q> {
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Q::Value>, D::Error> {
        deserializer.deserialize_option(QuantityVisitor::<Q>(PhantomData))
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(
        value: &Option<Q::Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Q::format).serialize(serializer)
    }
}

struct QuantityVisitor<Q: ?Sized>(PhantomData<Q>);

impl<'de, Q: Quantity + ?Sized> Visitor<'de> for QuantityVisitor<Q> {
    type Value = Option<Q::Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Q::EXPECTED)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Q::parse(text).map(Some).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let value = number.try_into().ok().and_then(Q::from_number);
        let wrong = || E::invalid_type(Unexpected::Signed(number), &self);
        value.map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_in_common_notations() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("200ms", 200),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            (" 1h 30m ", 5_400_000),
            ("0s", 0),
            ("1w", 604_800_000),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 parsecs",
            "1s!",
            "10S",
            "99999999999999999999s",
            "9999999999999w",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_parsed_in_common_notations() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("16MB", 16_000_000),
            ("16mb", 16_000_000),
            ("512 B", 512),
            ("1048576", 1 << 20),
            ("0", 0),
        ] {
            assert_eq!(Size::parse(text), Ok(bytes), "{text}");
        }
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
            assert!(Size::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn written_values_are_read_back() {
        for milliseconds in [0, 1, 200, 1000, 90_000, 5_400_000, 604_800_000, 1_234_567] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1000, 1024, 10 << 20, 16_000_000, 10 << 30, u64::MAX] {
            assert_eq!(Size::parse(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_duration(Duration::from_hours(7 * 24)), "7d");
        assert_eq!(format_size(10 << 20), "10MiB");
    }
}
