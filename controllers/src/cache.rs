//! The shared view of the cluster: every kind is watched once, and each object is held once, for all controllers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use serde_json::value::RawValue;
use slipway_api::meta::ObjectMeta;
use tokio::sync::watch;
use tracing::warn;

use crate::resource::{Key, Object, Resource, controller_of};

type Listener<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;
pub type MetadataListener = Arc<dyn Fn(&Resource, Option<&ObjectMeta>, Option<&ObjectMeta>) + Send + Sync>;

/// The live objects of one kind, as far as the watch has come.
pub struct Cache<K> {
    pub resource: Resource,
    state: RwLock<State<K>>,
    revision: watch::Sender<u64>,
    synced: watch::Sender<bool>,
    listeners: OnceLock<Vec<Listener<K>>>,
    joining: parking_lot::Mutex<Vec<Listener<K>>>,
    metadata_listener: OnceLock<MetadataListener>,
    index: Option<fn(&K) -> Option<String>>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// By namespace and the uid of the controlling owner (empty: none).
    by_controller: HashMap<(String, String), BTreeSet<Key>>,
    by_index: HashMap<String, BTreeSet<Key>>,
}

impl<K: Object> Cache<K> {
    pub fn new(index: Option<fn(&K) -> Option<String>>) -> Cache<K> {
        Cache {
            resource: K::resource(),
            state: RwLock::new(State { objects: BTreeMap::new(), by_controller: HashMap::new(), by_index: HashMap::new() }),
            revision: watch::Sender::new(0),
            synced: watch::Sender::new(false),
            listeners: OnceLock::new(),
            joining: parking_lot::Mutex::new(vec![]),
            metadata_listener: OnceLock::new(),
            index,
        }
    }

    /// Calls `listener` with the old and the new object at each change. Only before the watch begins.
    pub fn on_change(&self, listener: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.joining.lock().push(Box::new(listener));
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn any(&self, test: impl Fn(&K) -> bool) -> bool {
        self.state.read().objects.values().any(|object| test(object))
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let from = Key::new(namespace, "");
        let range = state.objects.range((Bound::Included(from), Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// The objects that the owner with this uid controls; with an empty uid those that nobody controls.
    pub fn controlled_by(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.by_controller.get(&(namespace.to_owned(), uid.to_owned()));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// The objects with this value of the cache's own index.
    pub fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state.by_index.get(value).into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    fn set(&self, key: Key, new: Option<Arc<K>>) {
        let old = {
            let mut state = self.state.write();
            let old = match &new {
                Some(object) => state.objects.insert(key.clone(), object.clone()),
                None => state.objects.remove(&key),
            };
            if let Some(old) = &old {
                state.unlink(&key, old, self.index);
            }
            if let Some(new) = &new {
                state.link(&key, new, self.index);
            }
            old
        };
        if old.is_none() && new.is_none() {
            return;
        }
        let listeners = self.listeners.get_or_init(|| std::mem::take(&mut *self.joining.lock()));
        for listener in listeners {
            listener(old.as_ref(), new.as_ref());
        }
        if let Some(listener) = self.metadata_listener.get() {
            listener(&self.resource, old.as_ref().map(|o| o.metadata()), new.as_ref().map(|o| o.metadata()));
        }
    }

    fn decode(&self, json: &RawValue) -> Option<K> {
        match serde_json::from_str::<K>(json.get()) {
            Ok(mut object) => {
                // Nobody here reads them, and they are often half of an object.
                object.metadata_mut().managed_fields = None;
                Some(object)
            }
            Err(error) => {
                warn!(kind = K::KIND, %error, "skipping an object that cannot be decoded");
                None
            }
        }
    }

    fn advance(&self, revision: u64) {
        // Waiters are woken even without a later revision: they may wait for a deletion, too.
        self.revision.send_modify(|current| *current = revision.max(*current));
    }
}

impl<K: Object> State<K> {
    fn link(&mut self, key: &Key, object: &K, index: Option<fn(&K) -> Option<String>>) {
        self.by_controller.entry(controller_index(object)).or_default().insert(key.clone());
        if let Some(value) = index.and_then(|index| index(object)) {
            self.by_index.entry(value).or_default().insert(key.clone());
        }
    }

    fn unlink(&mut self, key: &Key, object: &K, index: Option<fn(&K) -> Option<String>>) {
        remove_from(&mut self.by_controller, &controller_index(object), key);
        if let Some(value) = index.and_then(|index| index(object)) {
            remove_from(&mut self.by_index, &value, key);
        }
    }
}

fn controller_index(object: &impl Object) -> (String, String) {
    let uid = controller_of(object.metadata()).map(|owner| owner.uid.clone()).unwrap_or_default();
    (object.namespace().to_owned(), uid)
}

fn remove_from<I: std::hash::Hash + Eq>(index: &mut HashMap<I, BTreeSet<Key>>, value: &I, key: &Key) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

/// What a list and watch feeds.
pub trait Sink: Send + Sync {
    /// Everything there is at `revision`.
    fn replace(&self, objects: Vec<Box<RawValue>>, revision: u64);
    fn upsert(&self, object: &RawValue, revision: u64);
    fn remove(&self, object: &RawValue, revision: u64);
    /// Nothing before `revision` is missing any more (a bookmark).
    fn reached(&self, revision: u64);
}

impl<K: Object> Sink for Cache<K> {
    fn replace(&self, objects: Vec<Box<RawValue>>, revision: u64) {
        let mut gone: BTreeSet<Key> = self.state.read().objects.keys().cloned().collect();
        for object in objects.into_iter().filter_map(|object| self.decode(&object)) {
            let key = object.key();
            gone.remove(&key);
            let known = self.get(&key).and_then(|known| known.metadata().resource_version.clone());
            if known.is_none() || known != object.metadata().resource_version {
                self.set(key, Some(Arc::new(object)));
            }
        }
        for key in gone {
            self.set(key, None);
        }
        self.advance(revision);
        self.synced.send_replace(true);
    }

    fn upsert(&self, object: &RawValue, revision: u64) {
        if let Some(object) = self.decode(object) {
            self.set(object.key(), Some(Arc::new(object)));
        }
        self.advance(revision);
    }

    fn remove(&self, object: &RawValue, revision: u64) {
        if let Some(object) = self.decode(object) {
            self.set(object.key(), None);
        }
        self.advance(revision);
    }

    fn reached(&self, revision: u64) {
        self.advance(revision);
    }
}

/// A cache with its type forgotten: what is needed to start it and to wait for it.
pub trait AnyCache: Sink {
    fn resource(&self) -> &Resource;
    fn revision(&self) -> watch::Receiver<u64>;
    fn synced(&self) -> watch::Receiver<bool>;
    /// Whether the object with this uid is gone, or known to be on its way out.
    fn is_gone(&self, key: &Key, uid: &str) -> bool;
    fn metadata(&self, key: &Key) -> Option<ObjectMeta>;
    fn listen_to_metadata(&self, listener: MetadataListener);
}

impl<K: Object> AnyCache for Cache<K> {
    fn resource(&self) -> &Resource {
        &self.resource
    }
    fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
    fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }
    fn is_gone(&self, key: &Key, uid: &str) -> bool {
        self.get(key).is_none_or(|object| object.uid() != uid || object.is_deleted())
    }
    fn metadata(&self, key: &Key) -> Option<ObjectMeta> {
        self.get(key).map(|object| object.metadata().clone())
    }
    fn listen_to_metadata(&self, listener: MetadataListener) {
        assert!(self.metadata_listener.set(listener).is_ok(), "one component follows all metadata");
    }
}
