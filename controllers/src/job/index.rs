//! Indexed jobs: each completion has a number, and each number one pod at a time.

use std::{collections::BTreeSet, sync::Arc};

use slipway_api::{
    batch::JobSpec,
    core::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};

use super::counting::Count;
use crate::resource::Object;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub fn of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok()
}

/// The lowest numbers that are neither done nor at work.
pub fn free(spec: &JobSpec, count: &Count) -> impl Iterator<Item = i32> + use<> {
    let mut taken = count.completed.clone();
    taken.extend(count.active.iter().filter_map(|pod| of(pod)));
    (0..spec.completions.unwrap_or(0)).filter(move |index| !taken.contains(index))
}

/// Pods that are not needed: their number is done, too large, or has another pod.
pub fn duplicates(spec: &JobSpec, count: &Count) -> Vec<Arc<Pod>> {
    let mut seen = count.completed.clone();
    let mut pods: Vec<&Arc<Pod>> = count.active.iter().collect();
    pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name().to_owned()));
    let needed = |pod: &Pod, seen: &mut BTreeSet<i32>| {
        of(pod).is_some_and(|index| index < spec.completions.unwrap_or(0) && seen.insert(index))
    };
    pods.into_iter().filter(|pod| !needed(pod, &mut seen)).cloned().collect()
}

/// Tells the pod its number: annotation, label, hostname and environment.
pub fn assign(pod: &mut Pod, job: &str, index: i32) {
    let metadata = &mut pod.metadata;
    metadata.generate_name = Some(format!("{job}-{index}-"));
    metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    let variable = |container: &mut Container| {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|known| known.name != VARIABLE) {
            let field = format!("metadata.labels['{INDEX}']");
            let field_ref = Some(ObjectFieldSelector { field_path: field, api_version: None });
            let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
            env.push(EnvVar { name: VARIABLE.into(), value_from, value: None });
        }
    };
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(variable);
}

/// `0,2-4` as numbers.
pub fn parse(text: &str) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first..=last);
        }
    }
    indexes
}

/// The shortest text: three or more in a row as a range.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = vec![];
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last + 1) {
            last = next;
        }
        match last - first {
            0 => parts.push(first.to_string()),
            1 => parts.push(format!("{first},{last}")),
            _ => parts.push(format!("{first}-{last}")),
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        for text in ["", "3", "0,2", "0-2", "0,1,5-7,9"] {
            assert_eq!(format(&parse(text)), text);
        }
    }
}
