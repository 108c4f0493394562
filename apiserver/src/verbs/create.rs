//! POST: creates an object.

use crate::admission::{self, AdmissionContext, Operation, Reservations};
use crate::http::Call;
use crate::http::error::Status;
use crate::http::respond;
use crate::kind::NameRule;
use crate::patch::apply::{put_entries, take_entries};
use crate::server::{ApiServer, find};
use crate::stored::{self, Entry};
use crate::verbs::tracking::{self, Tracking};
use crate::verbs::{Target, encode, object_meta, status_of};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use rand::RngExt;
use serde_json::{Value, json};
use slipway_store::{Change, Expect, Write};

/// How often another name is made up when a generated one is taken, as in Kubernetes.
const GENERATE_ATTEMPTS_MAX: usize = 8;
/// Without vowels and look-alikes, so that no words come out.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;
/// So that a generated name is still a label.
const GENERATED_NAME_MAX: usize = 63;

pub async fn create(call: Call) -> Result<Response, Status> {
    call.accept()?;
    let dry_run = call.info.query.dry_run()?;
    let manager = tracking::manager(&call, "CreateOptions")?;
    let (object, warnings) = call.read_object().await?;
    let target = Target {
        server: &call.server,
        strategy: &*call.strategy,
        user: &call.user,
        namespace: call.namespace(),
        name: "",
        dry_run,
    };
    let Created { object, bytes } = create_written(&target, Tracking::By(&manager), object).await?;
    respond::written(&call, StatusCode::CREATED, &object, bytes, &warnings)
}

/// A new object, and the bytes that it is read as from now on, where those are known.
struct Created {
    object: Value,
    bytes: Option<Bytes>,
}

/// Creates a decoded object: defaults, admission, the kind's preparation and validation, and the store. `target.name`
/// is not looked at: the name is the object's own, or made of its `generateName`.
pub async fn create_object(target: &Target<'_>, object: Value) -> Result<Value, Status> {
    create_tracked(target, Tracking::By(tracking::SERVER), object).await
}

/// `create_object`, by somebody else than the server itself.
pub(crate) async fn create_tracked(target: &Target<'_>, tracking: Tracking<'_>, object: Value) -> Result<Value, Status> {
    Ok(create_written(target, tracking, object).await?.object)
}

async fn create_written(target: &Target<'_>, tracking: Tracking<'_>, mut object: Value) -> Result<Created, Status> {
    let strategy = target.strategy;
    object_meta::check_type(strategy, &mut object)?;
    object_meta::take_namespace(strategy, target.namespace, &mut object)?;
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty() && version != "0") {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if strategy.custom().is_some_and(|custom| custom.definition.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", why));
    }
    if strategy.names().namespaced {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        check_namespace(target, name).await?;
    }
    strategy.fill_defaults(&mut object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let context = AdmissionContext {
        server: target.server,
        user: target.user,
        strategy,
        operation: Operation::Create,
        namespace: target.namespace,
        name: &name,
        subresource: "",
        old: None,
        dry_run: target.dry_run,
    };
    let generated = name.is_empty() && object["metadata"]["generateName"].as_str().is_some_and(|base| !base.is_empty());
    if generated {
        object["metadata"]["name"] = json!(generate_name(object["metadata"]["generateName"].as_str().unwrap_or_default()));
    }
    object_meta::dedup_owners(&mut object);
    if let Tracking::By(manager) = tracking {
        tracking::update(target.server, strategy, (manager, ""), None, &mut object);
    }
    let mut reservations = admission::admit(&context, &mut object).await?;
    let created = store(target, &context, object, generated, &mut reservations).await;
    match &created {
        Ok(_) if !target.dry_run => reservations.keep(),
        _ => reservations.release().await,
    }
    created
}

/// What follows admission: the kind's preparation and validation, and the store.
async fn store(
    target: &Target<'_>,
    context: &AdmissionContext<'_>,
    mut object: Value,
    generated: bool,
    reservations: &mut Reservations,
) -> Result<Created, Status> {
    let strategy = target.strategy;
    strategy.fill_defaults(&mut object);
    object_meta::prepare_create(&mut object, target.server.now());
    strategy.prepare_create(&mut object);
    for attempt in 0..GENERATE_ATTEMPTS_MAX {
        if generated && attempt > 0 {
            object["metadata"]["name"] = json!(generate_name(object["metadata"]["generateName"].as_str().unwrap_or_default()));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let target = Target { name: &name, ..*target };
        let owners = take_entries(&mut object);
        let mut errors = object_meta::validate(strategy, &object);
        errors.extend(strategy.validate_new(&object));
        put_entries(&mut object, owners);
        if !errors.is_empty() {
            return Err(target.invalid(&errors));
        }
        admission::validate(context, &object).await?;
        admission::charge(context, &object, reservations).await?;
        match write(&target, &mut object).await {
            Err(status) if generated && status.reason == "AlreadyExists" => {}
            Err(status) => return Err(status),
            Ok(bytes) => return Ok(Created { object, bytes }),
        }
    }
    let names = strategy.names();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut status = Status::already_exists(names.group, names.plural, name);
    status.message += ", the server was not able to generate a unique name for the object";
    Err(status)
}

/// Answers with the bytes that the object is read as from now on, where those are known.
async fn write(target: &Target<'_>, object: &mut Value) -> Result<Option<Bytes>, Status> {
    let names = target.strategy.names();
    let key = target.key();
    if target.dry_run {
        let snapshot = target.server.cache.fresh().await.map_err(|error| status_of(error, names, target.name))?;
        return match snapshot.objects.contains_key(key.as_str()) {
            true => Err(Status::already_exists(names.group, names.plural, target.name)),
            false => Ok(None),
        };
    }
    let (bytes, shown) = encode(target, object).await?;
    let is_read_as_written = target.strategy.custom().is_none() && names.stored_as.is_none();
    let read_as = is_read_as_written.then(|| bytes.clone());
    if let Some(shown) = shown {
        *object = shown;
    }
    let change = Change::Put(bytes);
    let written = target.server.store.write(Write { key: key.into(), expect: Expect::Absent, change }).await;
    let revision = written.map_err(|error| status_of(error, names, target.name))?;
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    target.server.ruled.stored(names, revision);
    let in_force = admission::dynamic::in_force(target.server, names, revision).await;
    in_force.map_err(|error| status_of(error, names, target.name))?;
    Ok(read_as.map(|bytes| stored::with_revision(&bytes, revision)))
}

/// The base, cut so that the whole stays a label, and five random characters.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED_NAME_MAX - SUFFIX_CHARS);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..SUFFIX_CHARS).map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())]));
    base[..end].chars().chain(suffix).collect()
}

/// The namespace must exist and must not be on its way out.
async fn check_namespace(target: &Target<'_>, name: &str) -> Result<(), Status> {
    let Some(namespaces) = target.server.strategy("", "v1", "namespaces") else { return Ok(()) };
    let mut snapshot = target.server.snapshot();
    if find(&snapshot, &*namespaces, "", target.namespace).is_none() {
        let fresh = target.server.cache.fresh().await;
        snapshot = fresh.map_err(|error| status_of(error, namespaces.names(), target.namespace))?;
    }
    let namespace = find(&snapshot, &*namespaces, "", target.namespace)
        .ok_or_else(|| Status::not_found("", "namespaces", target.namespace))?;
    stored::check_readable(namespace)?;
    if !is_terminating(namespace) {
        return Ok(());
    }
    let (names, namespace) = (target.strategy.names(), target.namespace);
    let resource = crate::http::error::qualified(names.plural, names.group);
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut details = json!({"name": name, "kind": names.plural, "causes": [{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]});
    if !names.group.is_empty() {
        details["group"] = names.group.into();
    }
    Err(Status::forbidden(format!("{resource} \"{name}\" is forbidden: {why}")).with_details(details))
}

/// Whether a name may be given to an object of this rule; used by kinds that name others.
pub fn is_name(rule: NameRule, name: &str) -> bool {
    object_meta::name_errors(rule, name).is_empty()
}

impl ApiServer {
    /// Whether the namespace is in the cache and not being deleted.
    pub fn has_namespace(&self, name: &str) -> bool {
        let Some(namespaces) = self.strategy("", "v1", "namespaces") else { return true };
        let snapshot = self.snapshot();
        let namespace = find(&snapshot, &*namespaces, "", name);
        namespace.is_some_and(|namespace| namespace.attributes.unreadable.is_none() && !is_terminating(namespace))
    }
}

fn is_terminating(namespace: &Entry) -> bool {
    // Most have no such word in them, and are not read.
    memchr::memmem::find(&namespace.bytes, b"deletionTimestamp").is_some()
        && serde_json::from_slice::<Value>(&namespace.bytes)
            .is_ok_and(|namespace| namespace["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_is_a_label() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), GENERATED_NAME_MAX);
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9);
        assert!(name.bytes().skip(4).all(|c| SUFFIX_ALPHABET.contains(&c)));
    }
}
