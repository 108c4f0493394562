//! An operator as others write them with kube-rs: it brings its own kind in two versions, webhooks that default, refuse and
//! convert it, and a controller. It runs in a pod, with a service account's rights (`tests/e2e/operator.rs`).
//!
//! A `Site` becomes a ConfigMap with its greeting and a Deployment of so many replicas. What is left behind when it goes is a
//! ConfigMap that says so.

mod definitions;
mod webhooks;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use slipway_api::apps::Deployment;
use slipway_api::core::ConfigMap;
use std::sync::Arc;
use std::time::Duration;

/// Its field manager.
const OPERATOR: &str = "site-operator";
const FINALIZER: &str = "sites.example.test/farewell";

struct Context {
    client: Client,
    kind: ApiResource,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let client = Client::try_default().await?;
    let namespace = std::env::var("POD_NAMESPACE")?;
    let image = std::env::var("SITE_IMAGE")?;
    let identity = webhooks::Identity::new(&format!("site-operator.{namespace}.svc"))?;
    let ca = identity.ca_pem.clone();
    // The webhooks are there before anybody is told of them.
    tokio::spawn(webhooks::serve(identity));
    definitions::apply(&client, &namespace, &ca).await?;
    let context = Arc::new(Context { client: client.clone(), kind: definitions::site() });
    let sites: Api<DynamicObject> = Api::all_with(client.clone(), &context.kind);
    let deployments: Api<Deployment> = Api::all(client);
    Controller::new_with(sites, watcher::Config::default(), context.kind.clone())
        .owns(deployments, watcher::Config::default())
        .run(
            move |site, context| {
                let image = image.clone();
                async move { reconcile(site, context, &image).await }
            },
            |site, error, _| {
                eprintln!("{}: {error:#}", site.name_any());
                Action::requeue(Duration::from_secs(1))
            },
            context,
        )
        .for_each(|_| async {})
        .await;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API refused: {0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Finalizer(#[source] Box<kube::runtime::finalizer::Error<Error>>),
}

async fn reconcile(site: Arc<DynamicObject>, context: Arc<Context>, image: &str) -> Result<Action, Error> {
    let namespace = site.namespace().unwrap_or_default();
    let sites = Api::namespaced_with(context.client.clone(), &namespace, &context.kind);
    let done = finalizer(&sites, FINALIZER, site, async |event| match event {
        Event::Apply(site) => raise(&site, &context, &namespace, image).await,
        Event::Cleanup(site) => farewell(&site, &context, &namespace).await,
    });
    done.await.map_err(|error| Error::Finalizer(Box::new(error)))
}

/// Makes what the site asks for, and says in its status how far that got.
async fn raise(site: &DynamicObject, context: &Context, namespace: &str, image: &str) -> Result<Action, Error> {
    let (name, spec) = (site.name_any(), &site.data["spec"]);
    let owner = json!([{
        "apiVersion": definitions::API_VERSION, "kind": "Site", "name": name, "uid": site.uid(),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let metadata = json!({"name": name, "ownerReferences": owner});
    let params = PatchParams::apply(OPERATOR).force();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"greeting": spec["greeting"]}});
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    maps.patch(&name, &params, &Patch::Apply(map)).await?;
    let labels = json!({"site": name});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {"replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "web", "image": image}]},
        }},
    });
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let deployment = deployments.patch(&name, &params, &Patch::Apply(deployment)).await?;
    let ready = deployment.status.and_then(|status| status.available_replicas).unwrap_or(0);
    let status = json!({"status": {"ready": ready, "observedGeneration": site.metadata.generation}});
    if site.data["status"] != status["status"] {
        let sites: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &context.kind);
        let params = PatchParams { field_manager: Some(OPERATOR.into()), ..PatchParams::default() };
        sites.patch_status(&name, &params, &Patch::Merge(status)).await?;
    }
    Ok(Action::await_change())
}

async fn farewell(site: &DynamicObject, context: &Context, namespace: &str) -> Result<Action, Error> {
    let name = format!("{}-closed", site.name_any());
    let greeting: &Value = &site.data["spec"]["greeting"];
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"last": greeting}});
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    maps.patch(&name, &PatchParams::apply(OPERATOR), &Patch::Apply(map)).await?;
    Ok(Action::await_change())
}
