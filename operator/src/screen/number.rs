//! Numbers as people read them: thousands apart, a real minus sign, units after a space. Pure.

use std::time::Duration;

/// What stands where a number is not known.
pub(super) const UNKNOWN: &str = "–";

/// A count: `18,220`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count that may be rounded: `740`, `9,412`, `2.0 M`.
pub fn rounded(number: u64) -> String {
    match number {
        0..1_000_000 => count(number),
        1_000_000..1_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

/// A size in powers of ten, as disks are sold: `612 MB`, `1.4 GB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A length of time: `2.7 ms`, `0.4 s`, `18.2 s`, `4 min 12 s`, `3 h 12 min`, `2 d 4 h`.
pub fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 0.0995 => format!("{:.1} ms", s * 1000.0),
        s if s < 59.95 => format!("{s:.1} s"),
        _ => long(duration),
    }
}

/// The same where parts of a second do not matter: `31 s`, `90 s`, `4 min 12 s`.
pub fn whole(duration: Duration) -> String {
    if duration.as_secs() < 100 { format!("{} s", duration.as_secs()) } else { long(duration) }
}

fn long(duration: Duration) -> String {
    let seconds = duration.as_secs().max(60);
    let (units, parts) = match seconds {
        0..3_600 => (["min", "s"], [seconds / 60, seconds % 60]),
        3_600..86_400 => (["h", "min"], [seconds / 3_600, seconds % 3_600 / 60]),
        _ => (["d", "h"], [seconds / 86_400, seconds % 86_400 / 3_600]),
    };
    let ([unit, smaller], [number, rest]) = (units, parts);
    if rest == 0 { format!("{number} {unit}") } else { format!("{number} {unit} {rest} {smaller}") }
}

/// A latency in milliseconds without its unit: `38.40`, `1204`.
pub fn ms(latency_us: i64, decimals: usize) -> String {
    format!("{:.decimals$}", latency_us as f64 / 1000.0)
}

/// A relative difference: `−74.5 %`, `+4.6 %`, `0.0 %`.
pub fn difference(delta: f64) -> String {
    format!("{} %", signed(delta))
}

/// The same without its unit.
pub fn signed(delta: f64) -> String {
    if !delta.is_finite() {
        return UNKNOWN.to_owned();
    }
    let text = format!("{:.1}", (delta * 100.0).abs());
    match delta {
        _ if text == "0.0" => text,
        delta if delta < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

/// A share: `0.00 %`, `1.25 %`; what is not quite nothing never looks like nothing.
pub fn share(part: i64, of: i64) -> String {
    if of <= 0 {
        return UNKNOWN.to_owned();
    }
    match 100.0 * part as f64 / of as f64 {
        percent if percent > 0.0 && percent < 0.005 => "<0.01 %".to_owned(),
        percent => format!("{percent:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let counts = [0, 999, 1_000, 18_220, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "18,220", "1,234,567"]);
        assert_eq!([740, 9_412, 2_000_000, 1_500_000_000].map(rounded), ["740", "9,412", "2.0 M", "1.5 G"]);
        assert_eq!([12, 8_200, 612_000_000, 1_400_000_000].map(bytes), ["12 B", "8 kB", "612 MB", "1.4 GB"]);
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let cases = [
            (2_700, "2.7 ms"),
            (99_400, "99.4 ms"),
            (100_000, "0.1 s"),
            (18_240_000, "18.2 s"),
            (59_960_000, "1 min"),
            (252_000_000, "4 min 12 s"),
            (11_520_000_000, "3 h 12 min"),
            (187_200_000_000, "2 d 4 h"),
        ];
        for (us, expected) in cases {
            assert_eq!(duration(Duration::from_micros(us)), expected, "{us} µs");
        }
        assert_eq!(
            [31_900, 60_000, 100_000].map(|ms| whole(Duration::from_millis(ms))),
            ["31 s", "60 s", "1 min 40 s"]
        );
    }

    #[test]
    fn differences_have_a_sign_unless_they_are_nothing() {
        let cases = [-0.745, 0.046, 0.0, -0.0001, 0.000_51, 1.5, f64::INFINITY];
        assert_eq!(cases.map(difference), ["−74.5 %", "+4.6 %", "0.0 %", "0.0 %", "+0.1 %", "+150.0 %", "– %"]);
    }

    #[test]
    fn a_small_share_does_not_look_like_none() {
        assert_eq!(share(0, 100_000), "0.00 %");
        assert_eq!(share(1, 100_000), "<0.01 %");
        assert_eq!(share(125, 10_000), "1.25 %");
        assert_eq!(share(0, 0), "–");
    }
}
