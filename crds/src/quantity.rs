//! Quantities as people write them in a manifest: `15%`, `50ms`, `256Mi`.
//!
//! Each is kept in one unit, printed so that it is read back as the same, and described to the API
//! server as a string with a pattern. Pattern and parser accept the same texts: their number of
//! digits is limited, so that nothing overflows here or in a CEL rule.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A quantity that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct QuantityError {
    /// What stood in the document.
    pub value: String,
    /// What would have been right, with an example.
    pub expected: &'static str,
}

impl QuantityError {
    fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.to_owned(), expected }
    }
}

/// A share between 0 % and 100 %, written `15%` or `0.1%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// From a fraction: `0.15` is 15 %. Values outside 0..=1 are clamped; what is kept are the six
    /// decimals that can be written.
    pub fn from_fraction(fraction: f64) -> Self {
        Self((fraction.clamp(0.0, 1.0) * 100.0 * 1e6).round() / 1e6)
    }

    /// As a fraction of one: 15 % is `0.15`.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || QuantityError::new(s, "a percentage between 0% and 100%, like 15% or 0.1%");
        let number = s.strip_suffix('%').ok_or_else(fail)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        if !digits(whole, 3) || !digits(decimals, 6) {
            return Err(fail());
        }
        let value: f64 = number.parse().map_err(|_| fail())?;
        if value > 100.0 || (whole.len() == 3 && value < 100.0) { Err(fail()) } else { Ok(Self(value)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A length of time, written `50ms`, `60s`, `10m`, `1h` or `14d`; parts may be joined, the longest
/// unit first: `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The same as the standard library's duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// The units of a span, longest first: name, length in µs, and how many digits may stand before it.
/// The longest span is 32,694 days, which also a CEL duration can hold.
const SPAN_UNITS: [(&str, u64, u32); 6] = [
    ("d", 86_400_000_000, 4),
    ("h", 3_600_000_000, 5),
    ("m", 60_000_000, 7),
    ("s", 1_000_000, 9),
    ("ms", 1_000, 9),
    ("us", 1, 9),
];

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || QuantityError::new(s, "a duration like 50ms, 60s, 10m, 1h30m or 14d");
        let (mut rest, mut total_us) = (s, 0_u64);
        let mut units = SPAN_UNITS.iter();
        if s.is_empty() {
            return Err(fail());
        }
        while !rest.is_empty() {
            let number_len = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
            let (number, tail) = rest.split_at(number_len);
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            // What has been passed by does not come again: each unit stands once, in order.
            let (_, scale, most) = units.find(|(name, ..)| *name == unit).ok_or_else(fail)?;
            if !digits(number, *most) {
                return Err(fail());
            }
            let count: u64 = number.parse().map_err(|_| fail())?;
            total_us = count.checked_mul(*scale).and_then(|part| total_us.checked_add(part)).ok_or_else(fail)?;
            rest = tail;
        }
        Ok(Self(Duration::from_micros(total_us)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale, most) in SPAN_UNITS {
            let count = (rest / scale).min(10_u64.pow(most) - 1);
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest -= count * scale;
            }
        }
        Ok(())
    }
}

/// A number of bytes, at least one, written `256Mi` or `10Gi` (powers of 1024), or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size in mebibytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A size in bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The units of a size, largest first: name, power of two, and how many digits may stand before it.
const BYTE_UNITS: [(&str, u32, u32); 5] = [("Ti", 40, 3), ("Gi", 30, 6), ("Mi", 20, 9), ("Ki", 10, 12), ("", 0, 15)];

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || QuantityError::new(s, "a size in bytes like 256Mi, 10Gi or 1048576");
        let (number, shift, most) = BYTE_UNITS
            .iter()
            .find_map(|(unit, shift, most)| s.strip_suffix(unit).map(|number| (number, *shift, *most)))
            .ok_or_else(fail)?;
        if !digits(number, most) || number.starts_with('0') {
            return Err(fail());
        }
        let value: u64 = number.parse().map_err(|_| fail())?;
        value.checked_mul(1 << shift).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift, _) in BYTE_UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        f.write_str("0")
    }
}

/// Whether `s` is one to `most` ASCII digits.
fn digits(s: &str, most: u32) -> bool {
    (1..=most as usize).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit())
}

macro_rules! string_quantity {
    ($type:ident, $pattern:literal, $longest:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": $longest,
                    "pattern": $pattern,
                    "description": $description
                })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

string_quantity!(
    Percent,
    r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)%$",
    11,
    "A percentage between 0% and 100%, like 15% or 0.1%."
);
string_quantity!(
    Span,
    r"^([0-9]{1,4}d)?([0-9]{1,5}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?([0-9]{1,9}us)?$",
    51,
    "A duration like 50ms, 60s, 10m, 1h30m or 14d."
);
string_quantity!(
    ByteSize,
    r"^([1-9][0-9]{0,14}|[1-9][0-9]{0,11}Ki|[1-9][0-9]{0,8}Mi|[1-9][0-9]{0,5}Gi|[1-9][0-9]{0,2}Ti)$",
    15,
    "A size in bytes like 256Mi, 10Gi or 1048576."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["50ms", "60s", "1h30m", "14d", "1m500ms", "7us", "0s", "9999d99999h9999999m999999999s"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for text in ["256Mi", "10Gi", "1000", "3Ki", "999Ti", "976562499999Ki", "999999999999999"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["15%", "0.1%", "100%", "0%", "0.000001%"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
        for thousandth in 0..=1000 {
            let percent = Percent::from_fraction(f64::from(thousandth) / 1000.0);
            assert_eq!(percent.to_string().parse::<Percent>().unwrap(), percent, "{percent}");
        }
    }

    #[test]
    fn units_mean_what_they_say() {
        assert_eq!("1h30m".parse::<Span>().unwrap().duration(), Duration::from_secs(5400));
        assert_eq!("50ms".parse::<Span>().unwrap().duration(), Duration::from_millis(50));
        assert_eq!("256Mi".parse::<ByteSize>().unwrap().bytes(), 256 * 1024 * 1024);
        assert!(("15%".parse::<Percent>().unwrap().fraction() - 0.15).abs() < 1e-12);
    }

    /// Texts at the edge of each syntax, with whether they are one: held against parser and pattern.
    const SPANS: [(&str, bool); 18] = [
        ("50ms", true),
        ("0s", true),
        ("007s", true),
        ("1d1h1m1s1ms1us", true),
        ("9999d", true),
        ("999999999us", true),
        ("", false),
        ("5", false),
        ("ms", false),
        ("5 ms", false),
        ("-5s", false),
        ("1.5s", false),
        ("5x", false),
        ("5µs", false),
        ("30m1h", false),
        ("1h1h", false),
        ("10000d", false),
        ("99999999999999999999s", false),
    ];
    const SIZES: [(&str, bool); 15] = [
        ("1", true),
        ("256Mi", true),
        ("999Ti", true),
        ("999999999999999", true),
        ("", false),
        ("0", false),
        ("0Mi", false),
        ("01Mi", false),
        ("Mi", false),
        ("1.5Gi", false),
        ("10GB", false),
        ("10G", false),
        ("-1", false),
        ("1000Ti", false),
        ("1000000000000000", false),
    ];
    const PERCENTAGES: [(&str, bool); 18] = [
        ("0%", true),
        ("15%", true),
        ("05%", true),
        ("0.1%", true),
        ("99.999999%", true),
        ("100%", true),
        ("100.0%", true),
        ("", false),
        ("15", false),
        ("%", false),
        ("-1%", false),
        ("101%", false),
        ("100.1%", false),
        ("099%", false),
        ("1e1%", false),
        (".5%", false),
        ("5.%", false),
        ("NaN%", false),
    ];

    fn accepts<T: FromStr + JsonSchema>(table: &[(&str, bool)]) {
        let schema = serde_json::to_value(T::json_schema(&mut SchemaGenerator::default())).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (text, good) in table {
            assert_eq!(text.parse::<T>().is_ok(), *good, "parsing `{text}`");
            assert_eq!(validator.is_valid(&serde_json::Value::from(*text)), *good, "`{text}` against {schema}");
        }
    }

    #[test]
    fn parser_and_pattern_accept_the_same() {
        accepts::<Span>(&SPANS);
        accepts::<ByteSize>(&SIZES);
        accepts::<Percent>(&PERCENTAGES);
    }
}
