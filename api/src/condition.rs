//! Conditions: reading and setting the `conditions` of a status.
//!
//! `lastTransitionTime` moves only when the status does, and is kept in whole seconds, as the API stores it.

use crate::apps::{DaemonSetCondition, DeploymentCondition, ReplicaSetCondition, StatefulSetCondition};
use crate::autoscaling_v2::HorizontalPodAutoscalerCondition;
use crate::batch::JobCondition;
use crate::core::{NamespaceCondition, NodeCondition, PodCondition};
use crate::meta::Time;
use jiff::Timestamp;

/// What all kinds' conditions have in common.
pub trait Condition {
    fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self;
    fn kind(&self) -> &str;
    fn status(&self) -> &str;
    fn reason(&self) -> &str;
    fn message(&self) -> &str;
    fn last_transition(&self) -> Option<Timestamp>;
    /// Takes over all but, if the status stays the same, the time of the last transition.
    fn update(&mut self, status: &str, reason: &str, message: &str, now: Timestamp);
}

pub fn status_of(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

pub fn get<'a, C: Condition>(conditions: Option<&'a [C]>, kind: &str) -> Option<&'a C> {
    conditions?.iter().find(|condition| condition.kind() == kind)
}

pub fn is_true<C: Condition>(conditions: Option<&[C]>, kind: &str) -> bool {
    get(conditions, kind).is_some_and(|condition| condition.status() == "True")
}

/// Sets a condition and says whether that changed anything.
pub fn set<C: Condition>(
    conditions: &mut Option<Vec<C>>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    set_in(conditions.get_or_insert_default(), kind, status, reason, message, now)
}

/// [`set`], for the kinds whose conditions are a plain list.
pub fn set_in<C: Condition>(
    conditions: &mut Vec<C>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let now = in_seconds(now);
    match conditions.iter_mut().find(|condition| condition.kind() == kind) {
        None => conditions.push(C::new(kind, status, reason, message, now)),
        Some(old) if old.status() == status && old.reason() == reason && old.message() == message => return false,
        Some(old) => old.update(status, reason, message, now),
    }
    true
}

/// Removes a condition and says whether it was there.
pub fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, kind: &str) -> bool {
    let Some(conditions) = conditions else { return false };
    let before = conditions.len();
    conditions.retain(|condition| condition.kind() != kind);
    conditions.len() != before
}

/// The API's times have no fractions of a second.
pub fn in_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The generated types have some of these fields required and others not.
trait Word {
    fn read(&self) -> &str;
    fn write(text: &str) -> Self;
}

impl Word for String {
    fn read(&self) -> &str {
        self
    }
    fn write(text: &str) -> String {
        text.to_owned()
    }
}

impl Word for Option<String> {
    fn read(&self) -> &str {
        self.as_deref().unwrap_or_default()
    }
    fn write(text: &str) -> Option<String> {
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }
}

macro_rules! condition {
    ($type:ty $(, $touched:ident)?) => {
        impl Condition for $type {
            fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self {
                let mut new = <$type>::default();
                new.type_ = Word::write(kind);
                new.last_transition_time = Some(Time(now));
                new.update(status, reason, message, now);
                new
            }
            fn kind(&self) -> &str {
                self.type_.read()
            }
            fn status(&self) -> &str {
                self.status.read()
            }
            fn reason(&self) -> &str {
                self.reason.read()
            }
            fn message(&self) -> &str {
                self.message.read()
            }
            fn last_transition(&self) -> Option<Timestamp> {
                self.last_transition_time.as_ref().map(|time| time.0)
            }
            fn update(&mut self, status: &str, reason: &str, message: &str, now: Timestamp) {
                if self.status() != status {
                    self.last_transition_time = Some(Time(now));
                }
                $(self.$touched = Some(Time(now));)?
                self.status = Word::write(status);
                self.reason = Word::write(reason);
                self.message = Word::write(message);
            }
        }
    };
}

condition!(PodCondition);
condition!(NodeCondition, last_heartbeat_time);
condition!(NamespaceCondition);
condition!(DeploymentCondition, last_update_time);
condition!(ReplicaSetCondition);
condition!(DaemonSetCondition);
condition!(StatefulSetCondition);
condition!(JobCondition, last_probe_time);
condition!(HorizontalPodAutoscalerCondition);

impl Condition for crate::meta::Condition {
    fn new(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Self {
        crate::meta::Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(now),
            observed_generation: None,
        }
    }
    fn kind(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn reason(&self) -> &str {
        &self.reason
    }
    fn message(&self) -> &str {
        &self.message
    }
    fn last_transition(&self) -> Option<Timestamp> {
        Some(self.last_transition_time.0)
    }
    fn update(&mut self, status: &str, reason: &str, message: &str, now: Timestamp) {
        if self.status != status {
            self.last_transition_time = Time(now);
        }
        (self.status, self.reason, self.message) = (status.to_owned(), reason.to_owned(), message.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut conditions: Option<Vec<PodCondition>> = None;
        assert!(set(&mut conditions, "Ready", "False", "Starting", "", at(10)));
        assert!(!set(&mut conditions, "Ready", "False", "Starting", "", at(11)));
        assert!(set(&mut conditions, "Ready", "False", "Starting", "still", at(12)));
        assert_eq!(get(conditions.as_deref(), "Ready").unwrap().last_transition(), Some(at(10)));
        assert!(set(&mut conditions, "Ready", "True", "", "", at(13)));
        assert_eq!(get(conditions.as_deref(), "Ready").unwrap().last_transition(), Some(at(13)));
        assert!(is_true(conditions.as_deref(), "Ready") && !is_true(conditions.as_deref(), "Initialized"));
        assert!(remove(&mut conditions, "Ready") && !remove(&mut conditions, "Ready"));
    }

    #[test]
    fn a_deployments_update_time_moves_with_every_change() {
        let mut conditions: Option<Vec<DeploymentCondition>> = None;
        set(&mut conditions, "Progressing", "True", "NewReplicaSetCreated", "a", at(10));
        set(&mut conditions, "Progressing", "True", "ReplicaSetUpdated", "b", at(20));
        let condition = &conditions.unwrap()[0];
        assert_eq!(condition.last_update_time, Some(Time(at(20))));
        assert_eq!(condition.last_transition_time, Some(Time(at(10))));
    }

    #[test]
    fn times_have_whole_seconds() {
        let mut conditions: Option<Vec<NodeCondition>> = None;
        set(&mut conditions, "Ready", "True", "", "", Timestamp::from_millisecond(1_999).unwrap());
        assert_eq!(conditions.unwrap()[0].last_transition(), Some(at(1)));
    }
}
