//! The watches that keep the state up to date. After a watch had to start over, what is no longer there is said to be gone.

use crate::preemption::Budget;
use crate::snapshot::Key;
use crate::state::Input;
use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_api::core::{Namespace, Node, Pod};
use slipway_api::policy::PodDisruptionBudget;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a watch says.
#[derive(Debug)]
pub enum Notice {
    Input(Input),
    /// Everything that there was at the start has been said.
    Synced(&'static str),
    Ended(&'static str),
}

/// How many notices may wait. Beyond that the watches wait, and with them the API server's connections.
const NOTICES_MAX: usize = 4096;

/// How many kinds are watched, and must have been heard of before the first decision.
pub const KINDS: usize = 4;

pub fn all(client: &Client) -> mpsc::Receiver<Notice> {
    let (sender, receiver) = mpsc::channel(NOTICES_MAX);
    // Pods that have ended take nothing of a node.
    let running = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let every = watcher::Config::default;
    let pods: Kind<Pod> = ("pods", |pod| Input::Pod(Box::new(pod)), Input::PodGone);
    let nodes: Kind<Node> = ("nodes", |node| Input::Node(Box::new(node)), |key| Input::NodeGone(key[1..].to_owned()));
    let budgets: Kind<PodDisruptionBudget> =
        ("poddisruptionbudgets", |budget| Input::Budget(key_of(&budget), Budget::of(&budget)), Input::BudgetGone);
    let namespaces: Kind<Namespace> = (
        "namespaces",
        |namespace| Input::Namespace(namespace.name_any(), namespace.metadata.labels.unwrap_or_default()),
        |key| Input::NamespaceGone(key[1..].to_owned()),
    );
    follow(Api::all(client.clone()), running, pods, sender.clone());
    follow(Api::all(client.clone()), every(), nodes, sender.clone());
    follow(Api::all(client.clone()), every(), budgets, sender.clone());
    follow(Api::all(client.clone()), every(), namespaces, sender);
    receiver
}

/// Its plural, and what is said when one is there and when one is gone.
type Kind<K> = (&'static str, fn(K) -> Input, fn(Key) -> Input);

fn key_of<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()).into()
}

fn follow<K>(api: Api<K>, config: watcher::Config, kind: Kind<K>, sender: mpsc::Sender<Notice>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, config).default_backoff();
    tokio::spawn(async move {
        let name = kind.0;
        if relay(Box::pin(events), kind, &sender).await.is_some() {
            let _ = sender.send(Notice::Ended(name)).await;
        }
    });
}

/// Ends with `None` when nobody listens any more.
async fn relay<K: Resource>(
    mut events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Unpin,
    (name, there, gone): Kind<K>,
    sender: &mpsc::Sender<Notice>,
) -> Option<()> {
    let (mut known, mut listed) = (HashSet::<Key>::new(), HashSet::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(key_of(&object));
                sender.send(Notice::Input(there(object))).await.ok()?;
            }
            Ok(watcher::Event::InitDone) => {
                for key in known.difference(&listed) {
                    sender.send(Notice::Input(gone(Arc::clone(key)))).await.ok()?;
                }
                known = std::mem::take(&mut listed);
                sender.send(Notice::Synced(name)).await.ok()?;
            }
            Ok(watcher::Event::Apply(object)) => {
                known.insert(key_of(&object));
                sender.send(Notice::Input(there(object))).await.ok()?;
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = key_of(&object);
                known.remove(&key);
                sender.send(Notice::Input(gone(key))).await.ok()?;
            }
            Err(error) if is_not_served(&error) => {
                tracing::debug!(kind = name, "not served: there are none of these");
                sender.send(Notice::Synced(name)).await.ok()?;
            }
            Err(error) => tracing::warn!(kind = name, %error, "watch failed, trying again"),
        }
    }
    Some(())
}

fn is_not_served(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
