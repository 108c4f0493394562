//! What the operator tells the API server: its kind, and its webhooks.

use crate::OPERATOR;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use std::time::Duration;

pub const GROUP: &str = "example.test";
pub const API_VERSION: &str = "example.test/v1";
/// How long the API server may take until it knows of the webhooks' Service.
const ATTEMPTS: usize = 60;

pub fn site() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", "Site"), "sites")
}

/// Applies the definition and the webhooks' configurations, with the authority that their certificate comes from.
pub async fn apply(client: &Client, namespace: &str, ca_pem: &str) -> anyhow::Result<()> {
    let ca = STANDARD.encode(ca_pem);
    let call = |path: &str| json!({"service": {"namespace": namespace, "name": "site-operator", "path": path, "port": 443}, "caBundle": ca});
    let rules =
        json!([{"apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["sites"]}]);
    let webhook = |name: &str, path: &str| {
        json!([{
            "name": name, "clientConfig": call(path), "rules": rules, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 10,
        }])
    };
    let registration = |kind: &str, webhooks: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "sites.example.test"}, "webhooks": webhooks});
    let all = [
        ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", definition(call("/convert"))),
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            registration("MutatingWebhookConfiguration", webhook("default.sites.example.test", "/default")),
        ),
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            registration("ValidatingWebhookConfiguration", webhook("check.sites.example.test", "/check")),
        ),
    ];
    for (group, kind, plural, object) in all {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        api.patch(&name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(object)).await?;
    }
    let sites: Api<DynamicObject> = Api::all_with(client.clone(), &site());
    for _ in 0..ATTEMPTS {
        if sites.list(&Default::default()).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    anyhow::bail!("the sites are not served")
}

/// `v1alpha1` calls the greeting a message.
fn definition(convert: Value) -> Value {
    let version = |name: &str, storage: bool, text: &str| {
        json!({
            "name": name, "served": true, "storage": storage,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.ready"}},
            "additionalPrinterColumns": [
                {"name": "Greeting", "type": "string", "jsonPath": format!(".spec.{text}")},
                {"name": "Ready", "type": "integer", "jsonPath": ".status.ready"},
            ],
            "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                "spec": {
                    "type": "object", "required": [text],
                    "properties": {text: {"type": "string", "minLength": 1}, "replicas": {"type": "integer", "minimum": 0}},
                    "x-kubernetes-validations": [
                        {"rule": format!("self.{text} == oldSelf.{text} || oldSelf.{text} != 'carved in stone'"), "message": "it is carved in stone"},
                    ],
                },
                "status": {"type": "object", "properties": {"ready": {"type": "integer"}, "observedGeneration": {"type": "integer"}}},
            }}},
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "sites.example.test"},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"kind": "Site", "plural": "sites", "singular": "site", "shortNames": ["st"], "categories": ["places"]},
            "versions": [version("v1", true, "greeting"), version("v1alpha1", false, "message")],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": convert}},
        },
    })
}
