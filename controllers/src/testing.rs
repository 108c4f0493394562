//! A cluster in memory that carries out plans: for tests of what controllers plan, and that they come to rest.

use std::collections::BTreeMap;

use expect_test::Expect;
use futures::FutureExt;
use serde_json::{Value, json, value::RawValue};
use slipway_api::jiff::{SignedDuration, Timestamp};

use crate::{
    apply::Failure,
    caches::Caches,
    plan::{Plan, Step},
    resource::{Key, Object, Resource},
    run::{Controller, Situation},
};

/// So many rounds are enough for everything that comes to rest at all.
const ROUNDS_MAX: usize = 60;

/// An object, and who is to look at it.
pub type Work = (&'static dyn Controller, Key);

pub struct World {
    pub caches: Caches,
    pub now: Timestamp,
    pub failure: Option<Failure>,
    objects: BTreeMap<(String, Key), Value>,
    revision: u64,
    names: u64,
    /// How often an object of this place was removed: the next one there is another.
    removed: BTreeMap<(String, Key), usize>,
}

impl Default for World {
    fn default() -> World {
        World {
            caches: Caches::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            failure: None,
            objects: BTreeMap::new(),
            revision: 1,
            names: 0,
            removed: BTreeMap::new(),
        }
    }
}

/// Merges as the API server does (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().unwrap();
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

impl World {
    /// Stores an object written as YAML (or JSON); what the API server sets is set: uid, creation, generation, namespace.
    pub fn put<K: Object>(&mut self, yaml: &str) -> std::sync::Arc<K> {
        let mut object: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
        let resource = K::resource();
        if resource.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        let key = self.store(&resource, object);
        self.get::<K>(&key)
    }

    pub fn edit<K: Object>(&mut self, name: &str, patch: Value) {
        let namespace = if K::resource().namespaced { "default" } else { "" };
        self.merge(&K::resource(), &Key::new(namespace, name), &patch);
    }

    pub fn get<K: Object>(&self, key: &Key) -> std::sync::Arc<K> {
        let object = self.objects.get(&(K::resource().plural.to_string(), key.clone())).unwrap_or_else(|| panic!("no {key}"));
        std::sync::Arc::new(serde_json::from_value(object.clone()).unwrap())
    }

    pub fn list<K: Object>(&self) -> Vec<K> {
        let plural = K::resource().plural.to_string();
        let mine = self.objects.iter().filter(|((kind, _), _)| *kind == plural);
        mine.map(|(_, object)| serde_json::from_value(object.clone()).unwrap()).collect()
    }

    pub fn remove<K: Object>(&mut self, key: &Key) {
        self.take(&K::resource(), key);
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn store(&mut self, resource: &Resource, mut object: Value) -> Key {
        self.revision += 1;
        let metadata = &mut object["metadata"];
        if metadata["name"].is_null() {
            self.names += 1;
            metadata["name"] = json!(format!("{}{}", metadata["generateName"].as_str().unwrap_or_default(), self.names));
        }
        if metadata["uid"].is_null() {
            let name = metadata["name"].as_str().unwrap().to_owned();
            let key = Key::new(metadata["namespace"].as_str().unwrap_or_default(), &name);
            metadata["uid"] = match self.removed.get(&(resource.plural.to_string(), key)) {
                None => json!(format!("uid-{name}")),
                Some(times) => json!(format!("uid-{name}-again-{times}")),
            };
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(self.now.to_string());
        }
        if metadata["generation"].is_null() {
            metadata["generation"] = json!(1);
        }
        metadata["resourceVersion"] = json!(self.revision.to_string());
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let key = Key::new(text(&metadata["namespace"]), text(&metadata["name"]));
        self.objects.insert((resource.plural.to_string(), key.clone()), object.clone());
        if let Some((cache, _)) = self.caches.of(resource) {
            cache.upsert(&raw(&object), self.revision);
        }
        key
    }

    fn merge(&mut self, resource: &Resource, key: &Key, patch: &Value) {
        let Some(old) = self.objects.get(&(resource.plural.to_string(), key.clone())).cloned() else { return };
        let mut object = old.clone();
        merge(&mut object, patch);
        if object["spec"] != old["spec"] {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let metadata = &object["metadata"];
        let finalizers = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if !metadata["deletionTimestamp"].is_null() && !finalizers {
            self.take(resource, key);
        } else {
            self.store(resource, object);
        }
    }

    fn take(&mut self, resource: &Resource, key: &Key) {
        self.revision += 1;
        let place = (resource.plural.to_string(), key.clone());
        let Some(object) = self.objects.remove(&place) else { return };
        *self.removed.entry(place).or_default() += 1;
        if let Some((cache, _)) = self.caches.of(resource) {
            cache.remove(&raw(&object), self.revision);
        }
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(create) => {
                let named = create.object["metadata"]["name"].as_str().map(|name| Key::new(&create.namespace, name));
                if !named.is_some_and(|key| self.objects.contains_key(&(create.resource.plural.to_string(), key))) {
                    self.store(&create.resource, create.object.clone());
                }
            }
            Step::Delete(delete) => {
                let place = (delete.resource.plural.to_string(), delete.key.clone());
                let Some(object) = self.objects.get(&place).cloned() else { return };
                if object["metadata"]["uid"] != json!(delete.uid) {
                    return;
                }
                if object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
                    let at = json!({"metadata": {"deletionTimestamp": self.now.to_string()}});
                    self.merge(&delete.resource, &delete.key, &at);
                } else {
                    self.take(&delete.resource, &delete.key);
                }
            }
            Step::Patch(patch) => self.merge(&patch.resource, &patch.key, &patch.patch),
            Step::DeleteCollection(all) => {
                let mine = |(plural, key): &&(String, Key)| *plural == all.resource.plural && key.namespace == all.namespace;
                let keys: Vec<Key> = self.objects.keys().filter(mine).map(|(_, key)| key.clone()).collect();
                keys.iter().for_each(|key| self.take(&all.resource, key));
            }
            Step::Replace(replace) => {
                self.store(&replace.resource, replace.object.clone());
            }
            Step::Evict(evict) => self.take(&slipway_api::core::Pod::resource(), &evict.key),
            Step::Event(_) => {}
        }
    }

    pub fn plan(&self, controller: &dyn Controller, key: &Key) -> Plan {
        let situation = Situation { caches: &self.caches, now: self.now, failure: self.failure.clone() };
        let planned = controller.plan(key, situation).now_or_never().expect("plans over caches do not wait");
        planned.expect("plans over caches do not fail")
    }

    /// Compares the plan, and changes nothing.
    pub fn check(&self, controller: &dyn Controller, key: &Key, expected: Expect) {
        expected.assert_eq(&self.plan(controller, key).to_string());
    }

    /// Compares the plan, carries it out, and finds that nothing is left to do.
    pub fn settle(&mut self, controller: &dyn Controller, key: &Key, expected: Expect) {
        self.step(controller, key, expected);
        let again = self.plan(controller, key);
        assert!(again.is_empty(), "a plan that was carried out leaves nothing to do, but:\n{again}");
    }

    /// Compares the plan, and carries it out.
    pub fn step(&mut self, controller: &dyn Controller, key: &Key, expected: Expect) {
        let plan = self.plan(controller, key);
        expected.assert_eq(&plan.to_string());
        plan.steps.iter().for_each(|step| self.apply(step));
    }

    /// Plans and applies for all of `work` until nothing changes; `between` plays the rest of the cluster. Of the nth plan only
    /// the first `cuts[n]` steps are carried out, as if the process had died there.
    pub fn converge(&mut self, work: &dyn Fn(&World) -> Vec<Work>, between: &dyn Fn(&mut World), cuts: &[usize]) {
        let mut cuts = cuts.iter();
        for _ in 0..ROUNDS_MAX {
            let (before, whole) = (self.revision, cuts.len() == 0);
            for (controller, key) in work(self) {
                let plan = self.plan(controller, &key);
                let cut = cuts.next().copied().unwrap_or(usize::MAX);
                plan.steps.iter().take(cut).for_each(|step| self.apply(step));
            }
            between(self);
            self.pass(1);
            if self.revision == before && whole {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds");
    }
}

fn raw(object: &Value) -> Box<RawValue> {
    RawValue::from_string(object.to_string()).unwrap()
}
