//! Moving pods from the old sets to the new one: rolling update, Recreate, and scaling while that is under way.

use std::cmp::Reverse;

use slipway_api::apps::ReplicaSet;

use super::{Pass, condition, revision, size};
use crate::{apply::Failure, plan::Step, pods, resource::Object};

impl Pass<'_> {
    pub(super) fn roll(&mut self, failure: Option<&Failure>) {
        if self.new.is_none() {
            return self.create_new(failure);
        }
        self.note_revision();
        if self.grow_new() || self.shrink_old() {
            return;
        }
        self.clean_up_if_complete();
    }

    pub(super) fn recreate(&mut self, failure: Option<&Failure>) {
        let running: Vec<usize> = (0..self.old.len()).filter(|at| size::replicas(&self.old[*at]) > 0).collect();
        if !running.is_empty() {
            self.note_revision();
            for at in running {
                self.resize_old(at, 0);
            }
            return;
        }
        if self.old_pods_are_left() {
            return self.note_revision();
        }
        if self.new.is_none() {
            return self.create_new(failure);
        }
        self.note_revision();
        self.resize_new(size::wanted(self.deployment));
        self.clean_up_if_complete();
    }

    fn old_pods_are_left(&self) -> bool {
        let of = |set: &ReplicaSet| self.caches.pods.controlled_by(set.namespace(), set.uid());
        self.old.iter().any(|set| size::actual(set) > 0 || of(set).iter().any(|pod| !pods::is_terminal(pod)))
    }

    fn clean_up_if_complete(&mut self) {
        let sets: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).collect();
        let status = condition::counts(self.deployment, &self.status, &sets, self.new.as_ref());
        if condition::is_complete(self.deployment, &status) {
            self.clean_up();
        }
    }

    fn grow_new(&mut self) -> bool {
        let Some(current) = self.new.as_ref().map(size::replicas) else { return false };
        let wanted = size::wanted(self.deployment);
        let next = if current > wanted { wanted } else { size::of_new(self.deployment, &self.old, current) };
        current != next && self.resize_new(next)
    }

    /// First what is broken anyway, then what works, as far as the minimum of available pods allows.
    fn shrink_old(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let old_total: i32 = self.old.iter().map(size::replicas).sum();
        if old_total == 0 {
            return false;
        }
        let least = size::wanted(self.deployment) - size::max_unavailable(self.deployment);
        let not_yet = size::replicas(new) - size::available(new);
        let room = old_total + size::replicas(new) - least - not_yet;
        if room <= 0 {
            return false;
        }
        let available = size::available(new) + self.old.iter().map(size::available).sum::<i32>();
        let mut sizes: Vec<i32> = self.old.iter().map(size::replicas).collect();
        let mut left = room;
        for (set, planned) in self.old.iter().zip(&mut sizes) {
            let unhealthy = (*planned - size::available(set)).clamp(0, left.max(0));
            *planned -= unhealthy;
            left -= unhealthy;
        }
        let mut spare = available - least;
        for planned in &mut sizes {
            let fewer = (*planned).clamp(0, spare.max(0));
            *planned -= fewer;
            spare -= fewer;
        }
        let mut any = false;
        for (at, planned) in sizes.into_iter().enumerate() {
            any |= planned != size::replicas(&self.old[at]) && self.resize_old(at, planned);
        }
        any
    }

    /// Whether `spec.replicas` changed since the sets were last sized.
    pub(super) fn was_resized(&self) -> bool {
        let active = self.old.iter().chain(&self.new).filter(|set| size::replicas(set) > 0);
        active
            .filter_map(|set| set.annotation(size::DESIRED_REPLICAS)?.parse::<i32>().ok())
            .any(|desired| desired != size::wanted(self.deployment))
    }

    /// Scales without moving between versions: the one set there is, or all in proportion to their sizes.
    pub(super) fn scale_proportionally(&mut self) {
        let wanted = size::wanted(self.deployment);
        match self.active_or_latest() {
            Some(Which::New) => drop(self.resize_new(wanted)),
            Some(Which::Old(at)) => drop(self.resize_old(at, wanted)),
            None if self.new.as_ref().is_some_and(|new| self.is_saturated(new)) => {
                for at in 0..self.old.len() {
                    self.resize_old(at, 0);
                }
            }
            // Paused in the middle of a change to Recreate.
            None if super::is_recreate(self.deployment) => {}
            None => self.spread(),
        }
    }

    /// The set that alone is at work, or the latest if none is; `None` if several are.
    pub(super) fn active_or_latest(&self) -> Option<Which> {
        let old = (0..self.old.len()).filter(|at| size::replicas(&self.old[*at]) > 0).map(Which::Old);
        let new = self.new.iter().filter(|new| size::replicas(new) > 0).map(|_| Which::New);
        let mut active = old.chain(new);
        match (active.next(), active.next()) {
            (Some(one), None) => Some(one),
            (None, _) if self.new.is_some() => Some(Which::New),
            (None, _) => self.old.len().checked_sub(1).map(Which::Old),
            _ => None,
        }
    }

    fn is_saturated(&self, new: &ReplicaSet) -> bool {
        let wanted = size::wanted(self.deployment);
        new.annotation(size::DESIRED_REPLICAS).and_then(|text| text.parse().ok()) == Some(wanted)
            && size::replicas(new) == wanted
            && size::available(new) == wanted
    }

    fn spread(&mut self) {
        let sets: Vec<(Which, &ReplicaSet)> = self
            .old
            .iter()
            .enumerate()
            .map(|(at, set)| (Which::Old(at), set))
            .chain(self.new.iter().map(|set| (Which::New, set)))
            .collect();
        let mut active: Vec<(Which, &ReplicaSet)> = sets.into_iter().filter(|(_, set)| size::replicas(set) > 0).collect();
        let total: i32 = active.iter().map(|(_, set)| size::replicas(set)).sum();
        let wanted = size::wanted(self.deployment);
        let allowed = if wanted > 0 { wanted + size::max_surge(self.deployment) } else { 0 };
        let to_add = allowed - total;
        // Larger ones first; among equals the newer one grows, the older one shrinks.
        let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if to_add > 0 {
            active.sort_by_key(|(_, set)| (Reverse(size::replicas(set)), Reverse(age(set))));
        } else {
            active.sort_by_key(|(_, set)| (Reverse(size::replicas(set)), age(set)));
        }
        let mut added = 0;
        let mut sizes = vec![];
        for (which, set) in active {
            let change = size::proportion(set, self.deployment, to_add, added);
            added += change;
            sizes.push((which, size::replicas(set) + change));
        }
        if let Some((_, first)) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (which, planned) in sizes {
            match which {
                Which::New => drop(self.resize_new(planned)),
                Which::Old(at) => drop(self.resize_old(at, planned)),
            }
        }
    }

    fn resize_new(&mut self, to: i32) -> bool {
        let Some(mut set) = self.new.take() else { return false };
        let resized = self.resize(&mut set, to);
        self.new = Some(set);
        resized
    }

    fn resize_old(&mut self, at: usize, to: i32) -> bool {
        let mut set = self.old[at].clone();
        let resized = self.resize(&mut set, to);
        self.old[at] = set;
        resized
    }

    /// Sets the size and the annotations about it; says whether the size changed.
    fn resize(&mut self, set: &mut ReplicaSet, to: i32) -> bool {
        let before = set.clone();
        let from = size::replicas(set);
        set.spec.replicas = Some(to);
        revision::annotate_sizes(set, self.deployment);
        self.plan.steps.extend(Step::update(&before, set));
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name());
            self.plan.push(Step::event(self.deployment, "ScalingReplicaSet", message));
        }
        from != to
    }
}

#[derive(Clone, Copy)]
pub(super) enum Which {
    New,
    Old(usize),
}
