//! The formats of strings that are checked; all others are only told to clients.

use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

const SUPPORTED: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

fn normalized(format: &str) -> String {
    format.replace('-', "")
}

pub fn is_supported(format: &str) -> bool {
    // Numbers' formats are known to the check of types.
    matches!(format, "int32" | "int64" | "float" | "double") || SUPPORTED.contains(&normalized(format).as_str())
}

fn matches(regex: &'static LazyLock<Regex>, text: &str) -> bool {
    regex.is_match(text)
}

macro_rules! pattern {
    ($text:literal) => {{
        static REGEX: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a pattern that is written here compiles"));
        &REGEX
    }};
}

/// Whether the text is of the format; `None` for a format that is not checked.
pub fn check(format: &str, text: &str) -> Option<bool> {
    Some(match normalized(format).as_str() {
        "datetime" => is_time(text),
        "date" => matches(pattern!(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), text) && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "byte" => is_base64(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => {
            matches(pattern!(r"^(?:[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,19}|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2,9})$"), text)
        }
        "hostname" => {
            text.len() <= 255
                && matches(
                    pattern!(
                        r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?))*$"
                    ),
                    text,
                )
        }
        "email" => matches(pattern!(r"^[^@\s<>]+@[^@\s<>]+$"), text),
        "uri" => matches(pattern!(r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*:[^\s]+|/[^\s]*)$"), text),
        "uuid" => matches(pattern!(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"), text),
        "uuid3" => matches(pattern!(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"), text),
        "uuid4" => matches(pattern!(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"), text),
        "uuid5" => matches(pattern!(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"), text),
        "bsonobjectid" => matches(pattern!("^[0-9a-fA-F]{24}$"), text),
        "hexcolor" => matches(pattern!("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"), text),
        "rgbcolor" => matches(
            pattern!(
                r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*\)$"
            ),
            text,
        ),
        "ssn" => matches(pattern!("^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"), text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_card(text),
        "k8sshortname" => crate::verbs::object_meta::name_errors(crate::kind::NameRule::Label, text).is_empty(),
        "k8slongname" => crate::verbs::object_meta::name_errors(crate::kind::NameRule::Subdomain, text).is_empty(),
        _ => return None,
    })
}

fn is_time(text: &str) -> bool {
    let shape =
        pattern!(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?$");
    if !matches(shape, text) {
        return false;
    }
    let upper = text.to_uppercase().replace(',', ".");
    upper.parse::<jiff::Timestamp>().is_ok() || upper.parse::<jiff::civil::DateTime>().is_ok()
}

/// As Go writes durations, and in words.
fn is_duration(text: &str) -> bool {
    matches(pattern!(r"^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"), text)
        || text == "0"
        || matches(
            pattern!(
                r"^([0-9]+(\.[0-9]+)?\s*(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*)+$"
            ),
            text,
        )
}

fn is_base64(text: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text.replace(['\n', '\r'], "")).is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|c| c.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| if c == 'X' { 10 } else { c.to_digit(10).unwrap_or(11) }).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = digits(text);
    let shape = digits.len() == 10 && digits[..9].iter().all(|digit| *digit < 10) && digits[9] < 11;
    shape && digits.iter().zip((1..=10).rev()).map(|(digit, weight)| digit * weight).sum::<u32>() % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits(text);
    let shape = digits.len() == 13 && digits.iter().all(|digit| *digit < 10);
    shape
        && digits.iter().enumerate().map(|(place, digit)| if place % 2 == 0 { *digit } else { digit * 3 }).sum::<u32>() % 10 == 0
}

/// By length and check digit.
fn is_card(text: &str) -> bool {
    let digits = digits(text);
    let shape = (13..=19).contains(&digits.len()) && digits.iter().all(|digit| *digit < 10);
    let weigh = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, double) if double > 9 => double - 9,
        (_, double) => double,
    };
    shape && digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn formats() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("date-time", &["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5+01:00"], &["2020-01-01", "x", "2020-13-01T00:00:00Z"]),
            ("date", &["2020-02-29"], &["2021-02-29", "20200101"]),
            ("duration", &["1h30m", "-1.5s", "2 days"], &["1", "h", ""]),
            ("byte", &["YQ==", ""], &["YQ=", "%"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"]),
            ("mac", &["00:00:5e:00:53:01", "0000.5e00.5301"], &["00:00:5e"]),
            ("hostname", &["a.example.com", "A"], &["-a", "a..b"]),
            ("email", &["a@b.c"], &["a", "a b@c"]),
            ("uri", &["https://a.b/c", "/c"], &["a b", "c"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123"]),
            ("uuid4", &["a5e6ec9f-6a5f-4b7c-9d7c-2f5b8e3f9a1b"], &["123e4567-e89b-12d3-a456-426614174000"]),
            ("isbn10", &["0-306-40615-2"], &["0-306-40615-3"]),
            ("isbn13", &["978-0-306-40615-7"], &["978-0-306-40615-8"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112"]),
            ("hexcolor", &["#fff"], &["#ff"]),
            ("rgbcolor", &["rgb(1,2,255)"], &["rgb(1,2,256)"]),
            ("ssn", &["111-11-1111"], &["11-1"]),
        ];
        for (format, good, bad) in cases {
            good.iter().for_each(|text| assert_eq!(check(format, text), Some(true), "{format} {text}"));
            bad.iter().for_each(|text| assert_eq!(check(format, text), Some(false), "{format} {text}"));
        }
        assert_eq!(check("unheard-of", "x"), None);
    }
}
