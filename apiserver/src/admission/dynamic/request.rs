//! One write, as webhooks and policies are told of it.

use crate::admission::{AdmissionContext, Operation};
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::stored;
use crate::subresources::scale;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl GroupVersionKind {
    fn new(group: &str, version: &str, kind: &str) -> Self {
        GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
    }

    fn json(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }

    /// `apps/v1, Kind=Deployment`
    pub fn text(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!("{}/", self.group) };
        format!("{group}{}, Kind={}", self.version, self.kind)
    }
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

pub struct Request<'a> {
    pub context: &'a AdmissionContext<'a>,
    /// `None`: it is deleted.
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub name: String,
    /// That of a Namespace is its own name.
    pub namespace: String,
}

/// The kind of what is sent to a subresource, where it is not that of the object.
fn own_kind(plural: &str, subresource: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match (plural, subresource) {
        (_, "scale") => ("autoscaling", "v1", "Scale"),
        ("pods", "binding") => ("", "v1", "Binding"),
        ("pods", "eviction") => ("policy", "v1", "Eviction"),
        ("pods", "exec") => ("", "v1", "PodExecOptions"),
        ("pods", "attach") => ("", "v1", "PodAttachOptions"),
        ("pods", "portforward") => ("", "v1", "PodPortForwardOptions"),
        ("pods", "proxy") => ("", "v1", "PodProxyOptions"),
        ("services", "proxy") => ("", "v1", "ServiceProxyOptions"),
        ("nodes", "proxy") => ("", "v1", "NodeProxyOptions"),
        ("serviceaccounts", "token") => ("authentication.k8s.io", "v1", "TokenRequest"),
        _ => return None,
    })
}

pub fn is_of_the_kind(context: &AdmissionContext<'_>) -> bool {
    own_kind(context.strategy.names().plural, context.subresource).is_none()
}

/// The object in the form in which it was sent: a write to `scale` shows a Scale.
pub fn shown(context: &AdmissionContext<'_>, object: &Value) -> Value {
    if context.subresource == "scale" { scale::of(context.strategy, object) } else { object.clone() }
}

/// What was changed of the shown form.
pub fn put_back(context: &AdmissionContext<'_>, object: &mut Value, shown: Value) {
    if context.subresource == "scale" {
        object["spec"]["replicas"] = shown["spec"]["replicas"].as_i64().unwrap_or(0).into();
    } else {
        *object = shown;
    }
}

/// An object of one group or version in the form of another.
pub async fn convert(
    context: &AdmissionContext<'_>,
    object: &Value,
    (from, to): (&dyn Strategy, &dyn Strategy),
) -> Result<Value, Status> {
    if let Some(custom) = to.custom() {
        return crate::custom_resources::converted(context.server, object, custom).await;
    }
    let mut object = object.clone();
    from.to_stored(&mut object);
    to.from_stored(&mut object);
    let names = to.names();
    object["kind"] = names.kind.into();
    object["apiVersion"] = names.api_version().into();
    Ok(object)
}

impl<'a> Request<'a> {
    pub fn new(context: &'a AdmissionContext<'a>, object: Option<&'a Value>, old: Option<&'a Value>) -> Self {
        let named =
            |object: Option<&Value>| object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let name = if context.name.is_empty() { named(object.or(old)) } else { context.name.to_owned() };
        let names = context.strategy.names();
        let is_namespace = names.group.is_empty() && names.plural == "namespaces";
        let namespace = if is_namespace { name.clone() } else { context.namespace.to_owned() };
        Request { context, object, old, name, namespace }
    }

    pub fn kind(&self) -> GroupVersionKind {
        self.kind_as(self.context.strategy)
    }

    /// The kind if the resource is looked at in another group or version.
    pub fn kind_as(&self, strategy: &dyn Strategy) -> GroupVersionKind {
        let names = strategy.names();
        match own_kind(names.plural, self.context.subresource) {
            Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
            None => GroupVersionKind::new(names.group, names.version, names.kind),
        }
    }

    /// The other groups and versions in which the same objects are served.
    pub fn equivalents(&self) -> Vec<Arc<dyn Strategy>> {
        let names = self.context.strategy.names();
        let prefix = stored::prefix(names, None);
        let all = self.context.server.strategies();
        let same = all.into_iter().filter(|other| {
            let other = other.names();
            (other.group, other.version) != (names.group, names.version) && stored::prefix(other, None) == prefix
        });
        same.collect()
    }

    /// An object in the form of another group or version.
    pub async fn converted(&self, object: &Value, to: &dyn Strategy) -> Result<Value, Status> {
        match is_of_the_kind(self.context) {
            true => convert(self.context, object, (self.context.strategy, to)).await,
            false => Ok(object.clone()),
        }
    }

    /// An object in the form that is asked for, if it is another one.
    pub async fn shown(&self, object: Option<&Value>, form: Option<&dyn Strategy>) -> Result<Option<Value>, Status> {
        match (object, form) {
            (None, _) => Ok(None),
            (Some(object), None) => Ok(Some(object.clone())),
            (Some(object), Some(form)) => self.converted(object, form).await.map(Some),
        }
    }

    /// `request` of an AdmissionReview and of expressions, without the objects and the UID. `as_`: in which group and version
    /// it is shown.
    pub fn review(&self, as_: &dyn Strategy) -> Value {
        let (context, asked, shown) = (self.context, self.context.strategy.names(), as_.names());
        let user = context.user;
        let mut info = json!({"username": user.name, "groups": user.groups});
        if !user.uid.is_empty() {
            info["uid"] = user.uid.as_str().into();
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        let resource = |group: &str, version: &str, plural: &str| json!({"group": group, "version": version, "resource": plural});
        let mut review = json!({
            "kind": self.kind_as(as_).json(),
            "resource": resource(shown.group, shown.version, shown.plural),
            "requestKind": self.kind().json(),
            "requestResource": resource(asked.group, asked.version, asked.plural),
            "operation": context.operation.as_str(),
            "userInfo": info,
            "dryRun": context.dry_run,
        });
        for (field, text) in [("name", &self.name), ("namespace", &self.namespace)] {
            if !text.is_empty() {
                review[field] = text.as_str().into();
            }
        }
        if !context.subresource.is_empty() {
            review["subResource"] = context.subresource.into();
            review["requestSubResource"] = context.subresource.into();
        }
        let options = match context.operation {
            Operation::Create => Some("CreateOptions"),
            Operation::Update => Some("UpdateOptions"),
            Operation::Delete => Some("DeleteOptions"),
            Operation::Connect => None,
        };
        review["options"] = options.map_or(Value::Null, |kind| {
            let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
            if context.dry_run {
                options["dryRun"] = json!(["All"]);
            }
            options
        });
        review
    }
}
