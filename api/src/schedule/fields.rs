//! The five fields: minute, hour, day of the month, month, day of the week.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use super::Error;

const HOUR: i64 = 3600;
/// So far ahead a time is looked for.
const YEARS_MAX: i16 = 5;

/// What a field may hold; the names stand for the numbers from the smallest on.
struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds =
    Bounds { min: 1, max: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] };
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The numbers of a field, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    bits: u64,
    /// All of them, and said so: by `*`, not by `*/2` or `0-59`.
    star: bool,
}

impl Numbers {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }
}

#[derive(Clone, Debug)]
pub struct Fields {
    minutes: Numbers,
    hours: Numbers,
    days: Numbers,
    months: Numbers,
    weekdays: Numbers,
}

impl Fields {
    pub fn parse(text: &str) -> Result<Fields, Error> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(Error(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" "))));
        };
        Ok(Fields {
            minutes: list(minutes, &MINUTES)?,
            hours: list(hours, &HOURS)?,
            days: list(days, &DAYS)?,
            months: list(months, &MONTHS)?,
            weekdays: list(weekdays, &WEEKDAYS)?,
        })
    }

    /// Goes from the largest unit to the smallest, and each time that one runs over, begins again at the largest.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // A list of commas only has no numbers.
        if [self.minutes, self.hours, self.days, self.months, self.weekdays].iter().any(|numbers| numbers.bits == 0) {
            return None;
        }
        let mut at = Clock { second: after.as_second() + 1, zone, reset: false };
        let last_year = at.local()?.year() + YEARS_MAX;
        while at.local()?.year() <= last_year {
            if self.to_month(&mut at)? && self.to_day(&mut at)? && self.to_hour(&mut at)? && self.to_minute(&mut at)? {
                return Timestamp::from_second(at.second).ok();
            }
        }
        None
    }

    fn to_month(&self, at: &mut Clock) -> Option<bool> {
        loop {
            let local = at.local()?;
            if self.months.has(local.month()) {
                return Some(true);
            }
            let begin = if at.reset { local } else { midnight(local.date().first_of_month()) };
            at.reset = true;
            at.set(begin.checked_add(jiff::Span::new().months(1)).ok()?)?;
            if at.local()?.month() == 1 {
                return Some(false);
            }
        }
    }

    fn to_day(&self, at: &mut Clock) -> Option<bool> {
        loop {
            let local = at.local()?;
            if self.is_day(local.date()) {
                return Some(true);
            }
            let begin = if at.reset { local } else { midnight(local.date()) };
            at.reset = true;
            at.set(begin.checked_add(jiff::Span::new().days(1)).ok()?)?;
            // Where clocks are changed at midnight, there may be none on this day, and the day began before or after.
            let hour = i64::from(at.local()?.hour());
            at.second += if hour > 12 { 24 - hour } else { -hour } * HOUR;
            if at.local()?.day() == 1 {
                return Some(false);
            }
        }
    }

    fn to_hour(&self, at: &mut Clock) -> Option<bool> {
        loop {
            let local = at.local()?;
            if self.hours.has(local.hour()) {
                return Some(true);
            }
            if !at.reset {
                at.reset = true;
                at.set(local.date().at(local.hour(), 0, 0, 0))?;
            }
            at.second += HOUR;
            if at.local()?.hour() == 0 {
                return Some(false);
            }
        }
    }

    /// To the minute, and to its first second.
    fn to_minute(&self, at: &mut Clock) -> Option<bool> {
        loop {
            let local = at.local()?;
            if self.minutes.has(local.minute()) {
                break;
            }
            at.reset = true;
            at.second += 60 - at.second.rem_euclid(60);
            if at.local()?.minute() == 0 {
                return Some(false);
            }
        }
        let second = i64::from(at.local()?.second());
        if second == 0 {
            return Some(true);
        }
        at.reset = true;
        at.second += 60 - second;
        Some(false)
    }

    /// Both must hold if one of them is `*`, which says nothing; else one is enough.
    fn is_day(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        if self.days.star || self.weekdays.star { day && weekday } else { day || weekday }
    }
}

/// A time on its way forward.
struct Clock<'a> {
    second: i64,
    zone: &'a TimeZone,
    /// What is smaller than the unit looked at is at its beginning.
    reset: bool,
}

impl Clock<'_> {
    fn local(&self) -> Option<DateTime> {
        Some(self.zone.to_datetime(Timestamp::from_second(self.second).ok()?))
    }

    /// Of a time that a change of clocks skips, either the one before or the one after it is taken; of one that it repeats,
    /// either: the offset is the one that holds at what would be that time without any, or else the one that holds then.
    fn set(&mut self, local: DateTime) -> Option<()> {
        let offset = |second: i64| Some(i64::from(self.zone.to_offset(Timestamp::from_second(second).ok()?).seconds()));
        let universal = TimeZone::UTC.to_timestamp(local).ok()?.as_second();
        let guess = universal - offset(universal)?;
        self.second = universal - offset(guess)?;
        Some(())
    }
}

fn midnight(date: Date) -> DateTime {
    date.at(0, 0, 0, 0)
}

fn list(field: &str, bounds: &Bounds) -> Result<Numbers, Error> {
    let mut all = Numbers::default();
    for range in field.split(',').filter(|range| !range.is_empty()) {
        let one = self::range(range, bounds)?;
        all = Numbers { bits: all.bits | one.bits, star: all.star || one.star };
    }
    Ok(all)
}

/// `*`, `?`, `5`, `5-9`, and each with `/2`.
fn range(text: &str, bounds: &Bounds) -> Result<Numbers, Error> {
    let slashes: Vec<&str> = text.split('/').collect();
    let hyphens: Vec<&str> = slashes[0].split('-').collect();
    let mut star = matches!(hyphens[0], "*" | "?");
    let (start, mut end) = match hyphens[..] {
        _ if star => (bounds.min, bounds.max),
        [one] => (number_or_name(one, bounds)?, number_or_name(one, bounds)?),
        [start, end] => (number_or_name(start, bounds)?, number_or_name(end, bounds)?),
        _ => return Err(Error(format!("too many hyphens: {text}"))),
    };
    let step = match slashes[..] {
        [_] => 1,
        [_, step] => {
            // `5/2` is from 5 to the end.
            if hyphens.len() == 1 {
                end = bounds.max;
            }
            number(step)?
        }
        _ => return Err(Error(format!("too many slashes: {text}"))),
    };
    star &= step <= 1;
    if start < bounds.min {
        return Err(Error(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min)));
    }
    if end > bounds.max {
        return Err(Error(format!("end of range ({end}) above maximum ({}): {text}", bounds.max)));
    }
    if start > end {
        return Err(Error(format!("beginning of range ({start}) beyond end of range ({end}): {text}")));
    }
    if step == 0 {
        return Err(Error(format!("step of range should be a positive number: {text}")));
    }
    let mut bits = 0;
    let mut number = start;
    while number <= end {
        bits |= 1 << number;
        number = number.saturating_add(step);
    }
    Ok(Numbers { bits, star })
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, Error> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(index) => Ok(bounds.min + index as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, Error> {
    let failed = |why: &str| Error(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    u64::try_from(number).map_err(|_| Error(format!("negative number ({number}) not allowed: {text}")))
}
