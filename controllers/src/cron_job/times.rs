//! When a job was due, and when the next one is.

use slipway_api::{
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
    schedule::Schedule,
};

/// More times than these must have been missed for a warning.
const MISSED_MAX: i64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    None,
    Few,
    Many,
}

/// A schedule that can be read, and means no time that there is: 30 February.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub struct NeverDue;

pub struct Times<'a> {
    pub schedule: &'a Schedule,
    pub zone: &'a TimeZone,
    pub now: Timestamp,
}

/// What lies between a time and now.
struct Since {
    most_recent: Option<Timestamp>,
    missed: Missed,
}

impl Times<'_> {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.zone)
    }

    /// The latest time that is due since `last`; those before the deadline are not looked for.
    pub fn due(&self, last: Timestamp, deadline_seconds: Option<i64>) -> Result<Option<(Timestamp, Missed)>, NeverDue> {
        let oldest = deadline_seconds.and_then(|seconds| self.now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let since = self.since(oldest.map_or(last, |oldest| oldest.max(last)))?;
        Ok(since.most_recent.map(|at| (at, since.missed)))
    }

    /// The first time that is still to come.
    pub fn upcoming(&self, last: Timestamp) -> Option<Timestamp> {
        let from = match self.since(last) {
            Ok(Since { most_recent: Some(at), .. }) => at,
            Ok(Since { missed: Missed::None, .. }) => last,
            Ok(_) | Err(NeverDue) => self.now,
        };
        self.next(from)
    }

    /// How many times were missed is estimated from the distance of the first two: to go through all of them could take long after
    /// a clock was wrong.
    fn since(&self, last: Timestamp) -> Result<Since, NeverDue> {
        let first = self.next(last).ok_or(NeverDue)?;
        if self.now < first {
            return Ok(Since { most_recent: None, missed: Missed::None });
        }
        let second = self.next(first).filter(|second| *second <= self.now);
        let Some(second) = second else { return Ok(Since { most_recent: Some(first), missed: Missed::None }) };
        let distance = second.duration_since(first).as_secs().max(1);
        let count = self.now.duration_since(first).as_secs() / distance + 1;
        // One distance further back: not all distances are equal. Steps of `@every` stay what they are.
        let back = SignedDuration::from_secs((count - 2) * distance);
        let mut most_recent = None;
        let mut at = first.checked_add(back).unwrap_or(first);
        while let Some(next) = self.next(at).filter(|next| *next <= self.now) {
            most_recent = Some(next);
            at = next;
        }
        Ok(Since { most_recent, missed: if count > MISSED_MAX { Missed::Many } else { Missed::Few } })
    }
}
