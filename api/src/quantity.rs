//! Quantities (`100m`, `1.5Gi`): parsing, comparing and printing them as Kubernetes does.
//!
//! A quantity is an exact count of billionths. What is more precise than that is rounded away from zero, so that who asks
//! for something gets something; what is larger than 1.7e29 is capped.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
/// What larger amounts are capped at.
const MAX: i128 = 170_000_000_000_000_000_000 * 1_000_000_000_000_000_000;
/// A quantity with a binary suffix is capped at 2^63-1, as Kubernetes does.
const BINARY_MAX: i128 = i64::MAX as i128 * NANOS;

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …
    Binary,
    /// `m`, `k`, `M`, `G`, …
    #[default]
    Decimal,
    /// `e3`, `E6`, …
    Exponent,
}

/// Compares by amount: `1Gi` equals `1024Mi`, and `1` equals `1000m`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

enum Scale {
    Ten(i32),
    Two(u32),
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::Decimal };

    pub fn parse(text: &str) -> Result<Quantity, Error> {
        let (negative, number) = match text.as_bytes().first() {
            None => return Err(Error::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let whole_end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let (whole, rest) = number.split_at(whole_end);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(Error::Number);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let mut nanos = amount(whole, fraction, scale);
        let mut format = format;
        if format == Format::Binary {
            nanos = nanos.min(BINARY_MAX);
            if 0 < nanos && nanos < NANOS {
                format = Format::Decimal;
            }
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub const fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: milli as i128 * (NANOS / 1000), format: Format::Decimal }
    }

    pub const fn from_value(value: i64) -> Quantity {
        Quantity { nanos: value as i128 * NANOS, format: Format::Decimal }
    }

    /// The same amount, printed as `Ki`, `Mi`, `Gi`.
    pub const fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: bytes as i128 * NANOS, format: Format::Binary }
    }

    /// Whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        saturate(divide_up(self.nanos, NANOS))
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(self) -> i64 {
        saturate(divide_up(self.nanos, NANOS / 1000))
    }

    /// For ratios and sums shown to people; decisions compare the exact value.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The quantity as a resource list stores it: in whole thousandths, rounded away from zero.
    pub fn round_up_to_milli(self) -> Quantity {
        let milli = NANOS / 1000;
        Quantity { nanos: divide_up(self.nanos, milli).saturating_mul(milli), ..self }
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Its amount times `n`, capped.
    pub fn times(self, n: i64) -> Quantity {
        Quantity { nanos: self.nanos.saturating_mul(i128::from(n)), ..self }
    }
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), Error> {
    let decimal = |exponent| Ok((Scale::Ten(exponent), Format::Decimal));
    let binary = |exponent| Ok((Scale::Two(exponent), Format::Binary));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => match suffix.strip_prefix(['e', 'E']).map(i64::from_str) {
            // Beyond this the amount is zero or capped anyway.
            Some(Ok(exponent)) => Ok((Scale::Ten(exponent.clamp(-1_000_000, 1_000_000) as i32), Format::Exponent)),
            _ => Err(Error::Suffix),
        },
    }
}

/// `whole.fraction` times the scale, in nanos rounded up, capped at what an i128 holds.
fn amount(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: i128 = 0;
    let mut dropped = 0;
    let mut lost = false;
    for digit in whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0')) {
        match mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)) {
            Some(next) if dropped == 0 => mantissa = next,
            _ => {
                dropped += 1;
                lost |= digit != 0;
            }
        }
    }
    let (factor, exponent) = match scale {
        Scale::Ten(exponent) => (1, exponent),
        Scale::Two(exponent) => (1i128 << exponent, 0),
    };
    let Some(mut nanos) = mantissa.checked_mul(factor) else { return MAX };
    let shift = exponent + 9 + dropped - fraction.len() as i32;
    if nanos == 0 {
        return i128::from(lost);
    }
    for _ in 0..shift.max(0) {
        match nanos.checked_mul(10) {
            Some(next) => nanos = next,
            None => return MAX,
        }
    }
    for _ in 0..(-shift).max(0) {
        lost |= nanos % 10 != 0;
        nanos /= 10;
        if nanos == 0 {
            break;
        }
    }
    nanos.saturating_add(i128::from(lost)).min(MAX)
}

fn divide_up(amount: i128, by: i128) -> i128 {
    amount / by + (amount % by).signum()
}

fn saturate(amount: i128) -> i64 {
    amount.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl FromStr for Quantity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Quantity, Error> {
        Quantity::parse(text)
    }
}

impl TryFrom<&Text> for Quantity {
    type Error = Error;
    fn try_from(text: &Text) -> Result<Quantity, Error> {
        Quantity::parse(&text.0)
    }
}

impl From<Quantity> for Text {
    fn from(quantity: Quantity) -> Text {
        Text(quantity.to_string())
    }
}

/// The canonical form: no fraction, and the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = -1024 * NANOS < self.nanos && self.nanos < 1024 * NANOS;
        if self.format == Format::Binary && !small {
            let (mut mantissa, mut step) = (divide_up(self.nanos, NANOS), 0);
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            while mantissa % 1024 == 0 && step + 1 < SUFFIXES.len() {
                mantissa /= 1024;
                step += 1;
            }
            return write!(f, "{mantissa}{}", SUFFIXES[step]);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9i32);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{mantissa}"),
            (Format::Exponent, _) => write!(f, "{mantissa}e{exponent}"),
            _ => {
                const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{mantissa}{}", SUFFIXES[(exponent + 9) as usize / 3])
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Add for Quantity {
    type Output = Quantity;
    /// A sum is printed as its first part was written, unless that is zero.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(amounts: I) -> Quantity {
        amounts.fold(Quantity::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
    }

    #[test]
    fn prints_the_canonical_form() {
        for (written, printed) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("+1", "1"),
            ("-1", "-1"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("100", "100"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("0.5Mi", "512Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("1E", "1E"),
            ("1Ei", "1Ei"),
            ("100Ei", "9223372036854775807"),
            ("0.1m", "100u"),
            ("0.0001n", "1n"),
            ("1.00000000001", "1000000001n"),
            ("0.1Ki", "102400m"),
            ("00012", "12"),
            ("1e0", "1"),
            ("3000000000000000000000", "3000E"),
            ("0.00000000000000000000000000000000000001", "1n"),
        ] {
            assert_eq!(canonical(written), printed, "{written}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for (text, error) in [
            ("", Error::Format),
            ("a", Error::Format),
            ("1 ", Error::Format),
            ("1.2.3", Error::Format),
            ("１", Error::Format),
            ("1m5x", Error::Format),
            ("-", Error::Number),
            (".", Error::Number),
            ("Ki", Error::Number),
            ("m", Error::Number),
            ("1ki", Error::Suffix),
            ("1mm", Error::Suffix),
            ("1e", Error::Suffix),
            ("1i", Error::Suffix),
            ("1m5", Error::Suffix),
            ("1K", Error::Suffix),
            ("1e99999999999999999999", Error::Suffix),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn rounds_away_from_zero() {
        let parse = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!((parse("0.1").value(), parse("1m").milli(), parse("1n").milli(), parse("1500m").value()), (1, 1, 1, 2));
        assert_eq!((parse("-1500m").value(), parse("-0.1").value()), (-2, -1));
        assert_eq!(parse("100E").value(), i64::MAX);
        assert_eq!(parse("0.1m").round_up_to_milli().to_string(), "1m");
        assert_eq!(parse("1e1000").to_string(), parse("1e30").to_string());
    }

    #[test]
    fn compares_and_adds_amounts() {
        let parse = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert!(parse("1G") < parse("1Gi"));
        assert!(parse("-1") < Quantity::ZERO);
        assert_eq!((parse("512Mi") + parse("512Mi")).to_string(), "1Gi");
        assert_eq!((Quantity::ZERO + parse("1Gi")).to_string(), "1Gi");
        assert_eq!((parse("1") - parse("250m")).to_string(), "750m");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") { let _ = Quantity::parse(&text); }

        #[test]
        fn canonical_form_is_stable(text in "[-+]?[0-9]{1,25}(\\.[0-9]{0,12})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9])") {
            let once = Quantity::parse(&text).unwrap();
            let twice = Quantity::parse(&once.to_string()).unwrap();
            // Above the cap, and for fractions of a byte in binary form, printing rounds.
            if once.nanos.abs() < BINARY_MAX && (once.format != Format::Binary || once.nanos % NANOS == 0) {
                prop_assert_eq!(once, twice);
            }
            // Bytes that are no whole Ki are printed without suffix, and then read as decimal.
            if once.format == twice.format {
                prop_assert_eq!(once.to_string(), twice.to_string());
            }
        }

        #[test]
        fn orders_as_numbers_do(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            prop_assert_eq!(Quantity::from_milli(a).cmp(&Quantity::parse(&format!("{b}m")).unwrap()), a.cmp(&b));
        }
    }
}
