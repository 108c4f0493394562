//! Taints and tolerations.

use crate::core::{Taint, Toleration};

/// Whether the toleration lets a pod onto (or stay on) a node with the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
    let same = |mine: &Option<String>, theirs: &str| mine.as_deref().is_none_or(|mine| mine.is_empty() || mine == theirs);
    if !same(&toleration.effect, &taint.effect) || !same(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => given(&toleration.value) == given(&taint.value),
        Some(_) => false,
    }
}

/// The first taint with one of the effects that none of the tolerations covers.
pub fn first_untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let mut hard = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    hard.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint {
            key: key.into(),
            value: Some(value.into()).filter(|v: &String| !v.is_empty()),
            effect: effect.into(),
            ..Taint::default()
        }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn matches_the_triple() {
        let gpu = taint("gpu", "yes", "NoSchedule");
        for (expected, key, operator, value, effect) in [
            (true, "gpu", "Equal", "yes", "NoSchedule"),
            (true, "gpu", "", "yes", ""),
            (true, "gpu", "Exists", "", ""),
            (true, "", "Exists", "", ""),
            (true, "", "Exists", "", "NoSchedule"),
            (false, "gpu", "Equal", "no", "NoSchedule"),
            (false, "gpu", "", "", ""),
            (false, "gpu", "Exists", "", "NoExecute"),
            (false, "cpu", "Exists", "", ""),
            (false, "gpu", "Near", "yes", ""),
        ] {
            assert_eq!(tolerates(&toleration(key, operator, value, effect), &gpu), expected, "{key} {operator} {value} {effect}");
        }
        assert!(tolerates(&toleration("gpu", "Equal", "", ""), &taint("gpu", "", "NoExecute")));
    }

    #[test]
    fn finds_the_taint_that_is_not_tolerated() {
        let taints = [taint("soft", "", "PreferNoSchedule"), taint("a", "", "NoSchedule"), taint("b", "", "NoExecute")];
        let found = first_untolerated(&taints, &[toleration("a", "Exists", "", "")], &["NoSchedule", "NoExecute"]);
        assert_eq!(found.map(|taint| taint.key.as_str()), Some("b"));
        assert_eq!(first_untolerated(&taints, &[toleration("", "Exists", "", "")], &["NoSchedule", "NoExecute"]), None);
    }
}
