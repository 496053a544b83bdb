//! Numbers as people read them: `−74.5 %`, `reads p95`, `38.4 ms`, `1 h 20 min`.

use std::time::Duration;

use understudy_crds::experiment::StatementClass;

/// The sign of numbers below zero. A hyphen is none.
const MINUS: char = '\u{2212}';

/// A relative difference with its sign: `−74.5 %`, `+4.6 %`.
pub fn difference(relative: f64) -> String {
    signed(relative, 1)
}

/// A threshold with its sign and no more digits than it has: `−15 %`, `+2.5 %`, `0 %`.
pub fn threshold(relative: f64) -> String {
    let text = signed(relative, 1);
    let whole = text.replace(".0 %", " %");
    if whole.contains("0 %") && relative == 0.0 { "0 %".to_owned() } else { whole }
}

/// A share: `0.02 %`, `1 %`, `0 %`.
pub fn share(fraction: f64) -> String {
    let per_cent = fraction * 100.0;
    if per_cent == 0.0 {
        "0 %".to_owned()
    } else if per_cent < 0.01 {
        "< 0.01 %".to_owned()
    } else {
        let text = format!("{per_cent:.2}");
        format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// An interval of a relative difference: `[−76.9 %, −71.8 %]`.
pub fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", difference(low), difference(high))
}

fn signed(relative: f64, digits: usize) -> String {
    let per_cent = relative * 100.0;
    let text = format!("{:.digits$}", per_cent.abs());
    let nothing = text.chars().all(|c| matches!(c, '0' | '.'));
    match (nothing, per_cent < 0.0) {
        (true, _) => format!("{text} %"),
        (false, true) => format!("{MINUS}{text} %"),
        (false, false) => format!("+{text} %"),
    }
}

/// A class of statements, in the plural.
pub fn class(class: StatementClass) -> &'static str {
    match class {
        StatementClass::Read => "reads",
        StatementClass::Write => "writes",
        StatementClass::Commit => "commits",
        StatementClass::Utility => "utility statements",
    }
}

/// A quantile: `p95`, `p99.9`.
pub fn quantile(quantile: f64) -> String {
    let text = format!("{:.2}", quantile * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A latency with three digits: `740 µs`, `4.09 ms`, `38.4 ms`, `1.20 s`.
pub fn latency(micros: i64) -> String {
    let us = micros as f64;
    let three = |value: f64| match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    match micros {
        ..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", three(us / 1e3)),
        _ => format!("{} s", three(us / 1e6)),
    }
}

/// A length of time, in its two largest units: `45 s`, `12 min`, `1 h 20 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..600 => two(seconds / 60, "min", seconds % 60, "s"),
        600..3600 => format!("{} min", seconds / 60),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A count with thin groups: `18 220`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_a_sign_unless_they_are_nothing() {
        assert_eq!(difference(-0.7449), "−74.5 %");
        assert_eq!(difference(0.046), "+4.6 %");
        assert_eq!(difference(-0.0001), "0.0 %");
        assert_eq!(threshold(-0.15), "−15 %");
        assert_eq!(threshold(0.025), "+2.5 %");
        assert_eq!(threshold(0.1), "+10 %");
        assert_eq!(threshold(0.0), "0 %");
        assert_eq!(interval(-0.769, -0.718), "[−76.9 %, −71.8 %]");
    }

    #[test]
    fn shares_have_the_digits_they_need() {
        for (fraction, text) in
            [(0.0, "0 %"), (0.01, "1 %"), (0.0002, "0.02 %"), (0.000_001, "< 0.01 %"), (0.125, "12.5 %")]
        {
            assert_eq!(share(fraction), text);
        }
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(quantile(0.95), "p95");
        assert_eq!(quantile(0.999), "p99.9");
        assert_eq!(latency(740), "740 µs");
        assert_eq!(latency(4_090), "4.09 ms");
        assert_eq!(latency(38_400), "38.4 ms");
        assert_eq!(latency(1_200_000), "1.20 s");
        assert_eq!(duration(Duration::from_secs(4_800)), "1 h 20 min");
        assert_eq!(duration(Duration::from_secs(45)), "45 s");
        assert_eq!(duration(Duration::from_secs(90)), "1 min 30 s");
        assert_eq!(count(18_220), "18\u{202f}220");
        assert_eq!(count(999), "999");
    }
}
