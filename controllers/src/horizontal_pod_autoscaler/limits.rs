//! How far and how fast the number of replicas may change: between minimum and maximum, by the policies of the behavior, and by what was
//! recommended lately.

use slipway_api::{
    autoscaling_v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior},
    jiff::{SignedDuration, Timestamp},
    selector::Selector,
};

/// On the way down the highest number of this time counts, unless the autoscaler says otherwise.
const STABILIZATION: SignedDuration = SignedDuration::from_mins(5);
/// Without a behavior: at most twice as many, and so many in any case.
const UP_FACTOR: f64 = 2.0;
const UP_MINIMUM: f64 = 4.0;
/// More than an hour of them, the longest time that anybody may ask for.
const KEPT_MAX: usize = 1024;

/// What one autoscaler did before.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Whose pods the target has.
    pub selector: Option<Selector>,
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<Change>,
    downs: Vec<Change>,
    /// Asked for, and not yet seen.
    pub pending: Option<Rescale>,
}

/// How many replicas came, or went, and when.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Timestamp,
    replicas: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rescale {
    pub at: Timestamp,
    pub from: i32,
    pub to: i32,
    pub reason: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub min: i32,
    pub max: i32,
}

impl Bounds {
    /// Where replicas outside of the bounds are to go, and why.
    pub fn outside(self, replicas: i32) -> Option<(i32, &'static str)> {
        match replicas {
            0 => None,
            count if count > self.max => Some((self.max, "Current number of replicas above Spec.MaxReplicas")),
            count if count < self.min => Some((self.min, "Current number of replicas below Spec.MinReplicas")),
            _ => None,
        }
    }
}

/// Reason and message of a condition.
pub type Words = (&'static str, &'static str);

/// What becomes of a recommendation.
pub struct Normalized {
    pub replicas: i32,
    /// Of AbleToScale.
    pub stability: Words,
    /// Of ScalingLimited, and whether it is.
    pub limit: Words,
    pub is_limited: bool,
}

impl History {
    /// Before anything is recommended, what there is counts as recommended.
    pub fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, replicas));
        }
    }

    /// Notes a change that was carried out.
    pub fn changed(&mut self, rescale: &Rescale, behavior: Option<&HorizontalPodAutoscalerBehavior>) {
        let Some(behavior) = behavior else { return };
        let (changes, rules) = match rescale.to > rescale.from {
            true => (&mut self.ups, &behavior.scale_up),
            false => (&mut self.downs, &behavior.scale_down),
        };
        let longest = rules.iter().flat_map(policies).map(|policy| policy.period_seconds).max().unwrap_or(0);
        let oldest = rescale.at - SignedDuration::from_secs(longest.into());
        changes.retain(|change| change.at >= oldest);
        changes.push(Change { at: rescale.at, replicas: (rescale.to - rescale.from).abs() });
        let surplus = changes.len().saturating_sub(KEPT_MAX);
        changes.drain(..surplus);
    }

    pub fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        bounds: Bounds,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> Normalized {
        match behavior {
            None => self.normalize_plainly(bounds, current, wanted, now),
            Some(behavior) => self.normalize_by_rules(behavior, bounds, current, wanted, now),
        }
    }

    fn normalize_plainly(&mut self, bounds: Bounds, current: i32, wanted: i32, now: Timestamp) -> Normalized {
        let oldest = now - STABILIZATION;
        let recent = self.recommendations.iter().filter(|(at, _)| *at >= oldest).map(|(_, replicas)| *replicas);
        let stable = recent.chain([wanted]).max().unwrap_or(wanted);
        self.recommend(wanted, now, STABILIZATION);
        let stability = if stable == wanted { READY } else { DOWN_STABILIZED };
        let up_limit = (UP_FACTOR * f64::from(current)).max(UP_MINIMUM) as i32;
        let (max, too_many) = if bounds.max > up_limit { (up_limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
        let (replicas, limit) = if stable < bounds.min {
            (bounds.min, TOO_FEW)
        } else if stable > max {
            (max, too_many)
        } else {
            (stable, WITHIN)
        };
        Normalized { replicas, stability, limit, is_limited: replicas != stable }
    }

    fn normalize_by_rules(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: Bounds,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> Normalized {
        let window = |rules: Option<&HPAScalingRules>, default: SignedDuration| {
            let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
            seconds.map_or(default, |seconds| SignedDuration::from_secs(seconds.into()))
        };
        let (up, down) = (behavior.scale_up.as_ref(), behavior.scale_down.as_ref());
        let (up_window, down_window) = (window(up, SignedDuration::ZERO), window(down, STABILIZATION));
        let since = |window: SignedDuration| {
            let after = now - window;
            self.recommendations.iter().filter(move |(at, _)| *at > after).map(|(_, replicas)| *replicas)
        };
        let lowest = since(up_window).chain([wanted]).min().unwrap_or(wanted);
        let highest = since(down_window).chain([wanted]).max().unwrap_or(wanted);
        let stable = current.max(lowest).min(highest);
        self.recommend(wanted, now, up_window.max(down_window));
        let stability = match () {
            () if stable == wanted => READY,
            () if wanted >= current => UP_STABILIZED,
            () => DOWN_STABILIZED,
        };
        let (replicas, limit) = self.at_rate(behavior, bounds, current, stable, now);
        Normalized { replicas, stability, limit, is_limited: replicas != stable }
    }

    /// As far as the policies let it go now.
    fn at_rate(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: Bounds,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> (i32, Words) {
        if wanted > current {
            let limit = behavior.scale_up.as_ref().map_or(i32::MAX, |rules| self.up_limit(rules, current, now)).max(current);
            let (max, words) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if wanted > max {
                return (max, words);
            }
        } else if wanted < current {
            let limit = behavior.scale_down.as_ref().map_or(0, |rules| self.down_limit(rules, current, now)).min(current);
            let (min, words) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if wanted < min {
                return (min, words);
            }
        }
        (wanted, WITHIN)
    }

    fn up_limit(&self, rules: &HPAScalingRules, current: i32, now: Timestamp) -> i32 {
        let proposed = policies(rules).iter().map(|policy| {
            let start = self.at_start_of(policy.period_seconds, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                // Rounded up: else a part of few pods would be none for ever.
                _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            Some("Min") => proposed.min().unwrap_or(current),
            _ => proposed.max().unwrap_or(current),
        }
    }

    fn down_limit(&self, rules: &HPAScalingRules, current: i32, now: Timestamp) -> i32 {
        let proposed = policies(rules).iter().map(|policy| {
            let start = self.at_start_of(policy.period_seconds, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            Some("Min") => proposed.max().unwrap_or(current),
            _ => proposed.min().unwrap_or(current),
        }
    }

    /// How many there were so long ago.
    fn at_start_of(&self, seconds: i32, current: i32, now: Timestamp) -> i32 {
        let after = now - SignedDuration::from_secs(seconds.into());
        let sum =
            |changes: &[Change]| changes.iter().filter(|change| change.at > after).map(|change| change.replicas).sum::<i32>();
        current - sum(&self.ups) + sum(&self.downs)
    }

    fn recommend(&mut self, replicas: i32, now: Timestamp, window: SignedDuration) {
        let oldest = now - window;
        self.recommendations.retain(|(at, _)| *at >= oldest);
        self.recommendations.push((now, replicas));
        let surplus = self.recommendations.len().saturating_sub(KEPT_MAX);
        self.recommendations.drain(..surplus);
    }
}

fn policies(rules: &HPAScalingRules) -> &[slipway_api::autoscaling_v2::HPAScalingPolicy] {
    rules.policies.as_deref().unwrap_or(&[])
}

const READY: Words = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: Words =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const DOWN_STABILIZED: Words =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const UP_LIMIT: Words = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Words = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Words = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Words = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const WITHIN: Words = ("DesiredWithinRange", "the desired count is within the acceptable range");
