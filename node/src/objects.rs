//! The ConfigMaps, Secrets and Services that this node's pods refer to, kept fresh by watches on just these.

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use slipway_api::core::{ConfigMap, Secret, Service};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// A pod waits this long for an object's first look-up, then tries again later.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Wakes the workers of pods, by uid.
#[derive(Debug, Clone, Default)]
pub struct Wakers(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

impl Wakers {
    pub fn add(&self, uid: &str) -> Arc<Notify> {
        self.0.lock().entry(uid.to_owned()).or_default().clone()
    }

    pub fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub fn knows(&self, uid: &str) -> bool {
        self.0.lock().contains_key(uid)
    }

    pub fn wake(&self, uid: &str) {
        if let Some(notify) = self.0.lock().get(uid) {
            notify.notify_one();
        }
    }

    pub fn wake_all(&self) {
        self.0.lock().values().for_each(|notify| notify.notify_one());
    }
}

type Key = (String, String);

struct Entry<K> {
    /// `None` until the first look, then the object if there is one.
    value: watch::Receiver<Option<Option<Arc<K>>>>,
    users: HashSet<String>,
    task: AbortHandle,
}

struct Watched<K> {
    entries: Arc<Mutex<HashMap<Key, Entry<K>>>>,
}

impl<K> Watched<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
{
    fn new() -> Self {
        Watched { entries: Arc::default() }
    }

    async fn get(
        &self,
        client: &Client,
        wakers: &Wakers,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut value = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(key.clone()).or_insert_with(|| {
                let (sender, value) = watch::channel(None);
                let follow = follow(client.clone(), key.clone(), sender, self.entries.clone(), wakers.clone());
                Entry { value, users: HashSet::new(), task: tokio::spawn(follow).abort_handle() }
            });
            entry.users.insert(uid.to_owned());
            entry.value.clone()
        };
        match tokio::time::timeout(FIRST_LOOK, value.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => Ok(found.clone().flatten()),
            _ => Err(format!("timed out waiting for {} {namespace}/{name}", K::kind(&()).to_lowercase())),
        }
    }

    fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.remove(uid);
            if entry.users.is_empty() {
                entry.task.abort();
            }
            !entry.users.is_empty()
        });
    }
}

async fn follow<K>(
    client: Client,
    key: Key,
    sender: watch::Sender<Option<Option<Arc<K>>>>,
    entries: Arc<Mutex<HashMap<Key, Entry<K>>>>,
    wakers: Wakers,
) where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
{
    let api: Api<K> = Api::namespaced(client, &key.0);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        let value = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(Arc::new(object));
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(object)) => Some(Arc::new(object)),
            Ok(watcher::Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(namespace = key.0, name = key.1, %error, "watching an object that a pod refers to");
                continue;
            }
        };
        let first = sender.borrow().is_none();
        sender.send_replace(Some(value));
        if !first {
            let users: Vec<String> =
                entries.lock().get(&key).map(|entry| entry.users.iter().cloned().collect()).unwrap_or_default();
            users.iter().for_each(|uid| wakers.wake(uid));
        }
    }
}

pub struct Objects {
    pub client: Client,
    pub wakers: Wakers,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
    services: reflector::Store<Service>,
    services_task: AbortHandle,
}

impl Objects {
    pub fn new(client: Client) -> Objects {
        let (services, writer) = reflector::store();
        let stream = watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff();
        let following = reflector(writer, stream).for_each(|_| std::future::ready(()));
        Objects {
            client,
            wakers: Wakers::default(),
            config_maps: Watched::new(),
            secrets: Watched::new(),
            services,
            services_task: tokio::spawn(following).abort_handle(),
        }
    }

    pub async fn config_map(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        self.config_maps.get(&self.client, &self.wakers, namespace, name, uid).await
    }

    pub async fn secret(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<Arc<Secret>>, String> {
        self.secrets.get(&self.client, &self.wakers, namespace, name, uid).await
    }

    /// The services that a pod of this namespace may know of.
    pub async fn services(&self) -> Result<Vec<Arc<Service>>, String> {
        match tokio::time::timeout(FIRST_LOOK, self.services.wait_until_ready()).await {
            Ok(Ok(())) => Ok(self.services.state()),
            _ => Err("services have not yet been read at least once, cannot construct envvars".into()),
        }
    }

    /// Forgets what only this pod referred to.
    pub fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.services_task.abort();
    }
}
