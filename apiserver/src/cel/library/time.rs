//! Timestamps and durations.

use super::{Line, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

pub const LIBRARY: &[Line] = &[
    ("timestamp(string):timestamp", |_, args| {
        let given = text(args, 0)?;
        parse_timestamp(given).map(Value::Timestamp).ok_or_else(|| Error::new(format!("parsing time {given:?} as RFC 3339")))
    }),
    ("timestamp(timestamp):timestamp", |_, args| Ok(args[0].clone())),
    ("timestamp(int):timestamp", |_, args| {
        let seconds = super::int(args, 0)?;
        Timestamp::from_second(seconds).map(Value::Timestamp).map_err(|_| Error::new("timestamp overflow"))
    }),
    ("duration(string):duration", |_, args| {
        let given = text(args, 0)?;
        parse_duration(given).map(Value::Duration).ok_or_else(|| Error::new(format!("time: invalid duration {given:?}")))
    }),
    ("duration(duration):duration", |_, args| Ok(args[0].clone())),
    (".getFullYear(timestamp):int", |_, args| part(args, |time| i64::from(time.year()))),
    (".getFullYear(timestamp,string):int", |_, args| part(args, |time| i64::from(time.year()))),
    (".getMonth(timestamp):int", |_, args| part(args, |time| i64::from(time.month()) - 1)),
    (".getMonth(timestamp,string):int", |_, args| part(args, |time| i64::from(time.month()) - 1)),
    (".getDate(timestamp):int", |_, args| part(args, |time| i64::from(time.day()))),
    (".getDate(timestamp,string):int", |_, args| part(args, |time| i64::from(time.day()))),
    (".getDayOfMonth(timestamp):int", |_, args| part(args, |time| i64::from(time.day()) - 1)),
    (".getDayOfMonth(timestamp,string):int", |_, args| part(args, |time| i64::from(time.day()) - 1)),
    (".getDayOfYear(timestamp):int", |_, args| part(args, |time| i64::from(time.day_of_year()) - 1)),
    (".getDayOfYear(timestamp,string):int", |_, args| part(args, |time| i64::from(time.day_of_year()) - 1)),
    (".getDayOfWeek(timestamp):int", |_, args| part(args, |time| i64::from(time.weekday().to_sunday_zero_offset()))),
    (".getDayOfWeek(timestamp,string):int", |_, args| part(args, |time| i64::from(time.weekday().to_sunday_zero_offset()))),
    (".getHours(timestamp):int", |_, args| part(args, |time| i64::from(time.hour()))),
    (".getHours(timestamp,string):int", |_, args| part(args, |time| i64::from(time.hour()))),
    (".getMinutes(timestamp):int", |_, args| part(args, |time| i64::from(time.minute()))),
    (".getMinutes(timestamp,string):int", |_, args| part(args, |time| i64::from(time.minute()))),
    (".getSeconds(timestamp):int", |_, args| part(args, |time| i64::from(time.second()))),
    (".getSeconds(timestamp,string):int", |_, args| part(args, |time| i64::from(time.second()))),
    (".getMilliseconds(timestamp):int", |_, args| part(args, |time| i64::from(time.millisecond()))),
    (".getMilliseconds(timestamp,string):int", |_, args| part(args, |time| i64::from(time.millisecond()))),
    (".getHours(duration):int", |_, args| whole(args, 3600 * SECOND)),
    (".getMinutes(duration):int", |_, args| whole(args, 60 * SECOND)),
    (".getSeconds(duration):int", |_, args| whole(args, SECOND)),
    (".getMilliseconds(duration):int", |_, args| match &args[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos % SECOND / 1_000_000)),
        _ => Err(Error::no_overload()),
    }),
];

const SECOND: i64 = 1_000_000_000;

fn whole<'a>(args: &[Value<'a>], unit: i64) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / unit)),
        _ => Err(Error::no_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], read: impl Fn(&jiff::Zoned) -> i64) -> Result<Value<'a>, Error> {
    let Value::Timestamp(time) = &args[0] else { return Err(Error::no_overload()) };
    let zone = match args.get(1).and_then(Value::as_str) {
        None => TimeZone::UTC,
        Some(name) => zone(name).ok_or_else(|| Error::new(format!("unknown time zone {name}")))?,
    };
    Ok(Value::Int(read(&time.to_zoned(zone))))
}

/// `Europe/Zurich`, `+02:00`, `-08:30`, `02:00`.
fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let (sign, hours) = match hours.strip_prefix('-') {
            Some(hours) => (-1, hours),
            None => (1, hours.strip_prefix('+').unwrap_or(hours)),
        };
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let within = (0..=23).contains(&hours) && (0..60).contains(&minutes);
        return within.then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()).flatten().map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
}

/// RFC 3339, from the year 1 to the year 9999.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && bytes[10].eq_ignore_ascii_case(&b'T') && bytes[..4].iter().all(u8::is_ascii_digit);
    let zoned = text.ends_with(['Z', 'z']) || bytes.len() > 6 && matches!(bytes[bytes.len() - 6], b'+' | b'-');
    let time: Timestamp = if shaped && zoned { text.parse().ok()? } else { return None };
    (bytes[..4] != *b"0000").then_some(time)
}

/// A day alone stands for its beginning.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let date: jiff::civil::Date = if text.len() == 10 { text.parse().ok()? } else { return None };
    date.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

pub fn print_timestamp(time: Timestamp) -> String {
    time.to_string()
}

/// As CEL prints it: in seconds.
pub fn print_duration(nanos: i64) -> String {
    let (seconds, rest) = (nanos / SECOND, (nanos % SECOND).abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// As Go reads it: `1h30m`, `-1.5s`, `300ms`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos += whole * unit;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            nanos += i128::from(digit - b'0') * scale;
        }
        if nanos > i128::from(i64::MAX) {
            return None;
        }
        rest = tail;
    }
    i64::try_from(nanos * sign).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1h30m", Some(5_400 * SECOND)),
            ("-1.5s", Some(-1_500_000_000)),
            ("300ms", Some(300_000_000)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("1", None),
            ("s", None),
            ("", None),
            ("1d", None),
            ("999999999999999999999h", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        assert_eq!(print_duration(5_400 * SECOND), "5400s");
        assert_eq!(print_duration(-500_000_000), "-0.5s");
    }

    #[test]
    fn timestamps_are_of_rfc_3339() {
        assert!(parse_timestamp("2024-01-01T00:00:00Z").is_some());
        assert!(parse_timestamp("2024-01-01T00:00:00.123456789+02:00").is_some());
        assert!(parse_timestamp("2024-01-01").is_none());
        assert!(parse_timestamp("0000-01-01T00:00:00Z").is_none());
        assert!(parse_date("2024-01-01").is_some());
    }
}
