//! Quantities as people write them in a manifest: `15%`, `50ms`, `256Mi`.
//!
//! Each is kept in one exact unit, printed as it is read, and described to the API server as a
//! string with a pattern. Nothing here rounds.

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

/// A share between 0 % and 100 %, written `15%` or `0.1%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// From a fraction: `0.15` is 15 %. Values outside 0..=1 are clamped.
    pub fn from_fraction(fraction: f64) -> Self {
        Self(fraction.clamp(0.0, 1.0) * 100.0)
    }

    /// As a fraction of one: 15 % is `0.15`.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let expected = "a percentage between 0% and 100%, like 15% or 0.1%";
        let fail = || QuantityError { value: s.to_owned(), expected };
        let number = s.strip_suffix('%').ok_or_else(fail)?;
        if !is_decimal(number) {
            return Err(fail());
        }
        let value: f64 = number.parse().map_err(|_| fail())?;
        if value > 100.0 { Err(fail()) } else { Ok(Self(value)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A length of time, written `50ms`, `60s`, `10m`, `1h` or `14d`; parts may be joined: `1h30m`.
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

const SPAN_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("ms", 1_000), ("m", 60_000_000), ("s", 1_000_000), ("us", 1)];

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let expected = "a duration like 50ms, 60s, 10m, 1h30m or 14d";
        let fail = || QuantityError { value: s.to_owned(), expected };
        let (mut rest, mut total_us) = (s, 0_u64);
        if s.is_empty() {
            return Err(fail());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let scale = SPAN_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(fail)?;
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(fail)?;
            total_us = total_us.checked_add(part).ok_or_else(fail)?;
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
        for (unit, scale) in
            [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)]
        {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written `256Mi` or `10Gi` (powers of 1024), or plain.
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

const BYTE_UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || QuantityError { value: s.to_owned(), expected: "a size in bytes like 256Mi, 10Gi or 1048576" };
        let (number, shift) =
            BYTE_UNITS.iter().find_map(|(unit, shift)| s.strip_suffix(unit).map(|n| (n, *shift))).unwrap_or((s, 0));
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(fail());
        }
        let value: u64 = number.parse().map_err(|_| fail())?;
        value.checked_mul(1 << shift).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in BYTE_UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

fn is_decimal(s: &str) -> bool {
    let (whole, part) = s.split_once('.').unwrap_or((s, "0"));
    !whole.is_empty() && !part.is_empty() && whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit())
}

macro_rules! string_quantity {
    ($type:ident, $pattern:literal, $description:literal) => {
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
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

string_quantity!(Percent, r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$", "A percentage between 0% and 100%, like 15%.");
string_quantity!(Span, r"^([0-9]+(us|ms|s|m|h|d))+$", "A duration like 50ms, 60s, 10m, 1h30m or 14d.");
string_quantity!(ByteSize, r"^[0-9]+(Ki|Mi|Gi|Ti)?$", "A size in bytes like 256Mi or 10Gi.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["50ms", "60s", "1h30m", "14d", "1m500ms", "7us"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for text in ["256Mi", "10Gi", "1000", "3Ki"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["15%", "0.1%", "100%", "0%"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn units_mean_what_they_say() {
        assert_eq!("1h30m".parse::<Span>().unwrap().duration(), Duration::from_secs(5400));
        assert_eq!("50ms".parse::<Span>().unwrap().duration(), Duration::from_millis(50));
        assert_eq!("256Mi".parse::<ByteSize>().unwrap().bytes(), 256 * 1024 * 1024);
        assert!(("15%".parse::<Percent>().unwrap().fraction() - 0.15).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for text in ["", "5", "ms", "5 ms", "-5s", "5x", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "Mi", "1.5Gi", "10GB", "-1", "99999999999Ti"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "15", "%", "-1%", "101%", "1e1%", ".5%", "5.%", "NaN%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
