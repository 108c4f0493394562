//! Schedules of CronJobs: the five fields of cron, `@hourly` and its like, `@every 5m`.
//!
//! What is understood, how it is refused and when it fires follow the parser that Kubernetes uses (robfig/cron v3,
//! "standard"), down to the hours that a change to summer time skips or repeats.

mod fields;
#[cfg(test)]
mod tests;
pub mod zone;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::duration;
use fields::Fields;

#[derive(Clone, Debug)]
pub struct Schedule {
    when: When,
    /// Where the text begins with `TZ=`, as schedules of old do: it comes before the zone that is asked for.
    zone: Option<TimeZone>,
}

#[derive(Clone, Debug)]
enum When {
    Fields(Fields),
    /// A fixed time after the last one, in whole seconds and one at least.
    Every(SignedDuration),
}

/// Why a text is no schedule, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Schedule {
    pub fn parse(text: &str) -> Result<Schedule, Error> {
        if text.is_empty() {
            return Err(Error("empty spec string".into()));
        }
        let (zone, text) = own_zone(text)?;
        let when = if text.starts_with('@') { descriptor(text)? } else { When::Fields(Fields::parse(text)?) };
        Ok(Schedule { when, zone })
    }

    /// The first time after `after`, by the clocks of `zone`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Fields(fields) => fields.next(after, self.zone.as_ref().unwrap_or(zone)),
            When::Every(delay) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*delay).ok()
            }
        }
    }
}

/// `TZ=Europe/Berlin ` or `CRON_TZ=Europe/Berlin ` in front.
fn own_zone(text: &str) -> Result<(Option<TimeZone>, &str), Error> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else { return Ok((None, text)) };
    let Some((name, rest)) = rest.split_once(' ') else {
        return Err(Error("invalid schedule format: runtime error: slice bounds out of range [:-1]".into()));
    };
    let zone = zone::find(name).map_err(|error| Error(format!("provided bad location {name}: {error}")))?;
    Ok((Some(zone), rest.trim()))
}

fn descriptor(text: &str) -> Result<When, Error> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return every(text),
    };
    Fields::parse(fields).map(When::Fields)
}

fn every(text: &str) -> Result<When, Error> {
    let Some(delay) = text.strip_prefix("@every ") else { return Err(Error(format!("unrecognized descriptor: {text}"))) };
    let delay = duration::parse(delay).map_err(|why| Error(format!("failed to parse duration {text}: {why}")))?;
    Ok(When::Every(SignedDuration::from_secs(delay.as_secs().max(1))))
}
