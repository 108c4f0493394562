//! How many objects there are of the kinds that some quota counts and that no controller watches anyway.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;
use slipway_api::{core::ResourceQuota, meta::ObjectMeta};
use tokio::sync::Notify;

use crate::{queue::Queue, resource::Key};

/// Kinds that are counted by what they are watched for anyway.
const WATCHED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];
const BY_PLURAL: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// A kind, without its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted {
    pub group: String,
    pub plural: String,
}

impl Counted {
    /// The kinds that the quota counts.
    pub fn of(quota: &ResourceQuota) -> BTreeSet<Counted> {
        let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
        hard.filter_map(|(resource, _)| Counted::parse(resource)).collect()
    }

    fn parse(resource: &str) -> Option<Counted> {
        let name = match resource.strip_prefix("count/") {
            Some(name) => name,
            None if BY_PLURAL.contains(&resource) => resource,
            None => return None,
        };
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        let watched = group.is_empty() && WATCHED.contains(&plural);
        (!watched).then(|| Counted { group: group.to_owned(), plural: plural.to_owned() })
    }
}

#[derive(Default)]
pub struct Counts {
    kinds: RwLock<HashMap<Counted, Kind>>,
    queue: RwLock<Option<Arc<Queue>>>,
    quotas_changed: Notify,
}

#[derive(Default)]
struct Kind {
    synced: bool,
    names: HashMap<String, HashSet<String>>,
}

impl Counts {
    pub fn tell(&self, queue: Arc<Queue>) {
        *self.queue.write() = Some(queue);
    }

    /// Quotas have changed: other kinds may have to be counted.
    pub fn wake(&self) {
        self.quotas_changed.notify_one();
    }

    pub async fn woken(&self) {
        self.quotas_changed.notified().await;
    }

    /// `None` while nobody knows.
    pub fn number(&self, kind: &Counted, namespace: &str) -> Option<usize> {
        let kinds = self.kinds.read();
        let kind = kinds.get(kind).filter(|kind| kind.synced)?;
        Some(kind.names.get(namespace).map_or(0, HashSet::len))
    }

    pub fn forget(&self, kind: &Counted) {
        self.kinds.write().remove(kind);
    }

    /// All there are.
    pub fn replace<'a>(
        &self,
        kind: &Counted,
        objects: impl Iterator<Item = &'a ObjectMeta>,
        quotas: impl Iterator<Item = String>,
    ) {
        let mut names: HashMap<String, HashSet<String>> = HashMap::new();
        for key in objects.map(Key::of) {
            names.entry(key.namespace).or_default().insert(key.name);
        }
        self.kinds.write().insert(kind.clone(), Kind { synced: true, names });
        quotas.for_each(|namespace| self.look_at(namespace));
    }

    pub fn observe(&self, kind: &Counted, object: &ObjectMeta, there: bool) {
        let Key { namespace, name } = Key::of(object);
        let changed = {
            let mut kinds = self.kinds.write();
            let names = kinds.entry(kind.clone()).or_default().names.entry(namespace.clone()).or_default();
            if there { names.insert(name) } else { names.remove(&name) }
        };
        if changed {
            self.look_at(namespace);
        }
    }

    fn look_at(&self, namespace: String) {
        if let Some(queue) = &*self.queue.read() {
            queue.add(Key::new("", namespace));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_name_kinds() {
        let quota: ResourceQuota = serde_saphyr::from_str(
            "{metadata: {name: q}, spec: {hard: {count/widgets.example.com: '1', count/pods: '1', secrets: '1', count/configmaps: '1', cpu: '1'}}}",
        )
        .unwrap();
        let kinds: Vec<String> = Counted::of(&quota).into_iter().map(|kind| format!("{}/{}", kind.group, kind.plural)).collect();
        assert_eq!(kinds, ["/configmaps", "/secrets", "example.com/widgets"]);
    }

    #[test]
    fn a_kind_is_counted_once_all_of_it_is_known() {
        let counts = Counts::default();
        let kind = Counted { group: String::new(), plural: "secrets".into() };
        let object = |name: &str| ObjectMeta { name: Some(name.into()), namespace: Some("team".into()), ..Default::default() };
        assert_eq!(counts.number(&kind, "team"), None);
        counts.replace(&kind, [object("a"), object("b")].iter(), std::iter::empty());
        assert_eq!((counts.number(&kind, "team"), counts.number(&kind, "other")), (Some(2), Some(0)));
        counts.observe(&kind, &object("b"), true);
        counts.observe(&kind, &object("a"), false);
        assert_eq!(counts.number(&kind, "team"), Some(1));
    }
}
