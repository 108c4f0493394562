//! PUT: replaces an object, or a part of it: its status, or what another subresource stands for.

use crate::admission::{self, AdmissionContext, Operation, Reservations};
use crate::http::Call;
use crate::http::error::Status;
use crate::http::respond;
use crate::kind::Strategy;
use crate::patch::apply::{put_entries, take_entries};
use crate::verbs::tracking::{self, Tracking};
use crate::verbs::{Preconditions, Step, Target, commit, object_meta};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

/// What of the object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    Status,
    /// The number of replicas, asked for by a Scale.
    Scale,
    /// What a subresource of the kind's own stands for (`Strategy::parts`).
    Own(&'static str),
}

impl Part {
    pub fn of(strategy: &dyn Strategy, subresource: &str) -> Self {
        match strategy.parts().iter().find(|part| part.name == subresource) {
            Some(part) => Part::Own(part.name),
            None if subresource == "status" => Part::Status,
            None => Part::Main,
        }
    }

    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Scale => "scale",
            Part::Own(name) => name,
        }
    }
}

pub async fn update(call: Call) -> Result<Response, Status> {
    call.accept()?;
    let dry_run = call.info.query.dry_run()?;
    let manager = tracking::manager(&call, "UpdateOptions")?;
    let (mut object, warnings) = call.read_object().await?;
    let strategy = &*call.strategy;
    object_meta::check_type(strategy, &mut object)?;
    object_meta::check_name(call.name(), call.namespace(), &object)?;
    strategy.fill_defaults(&mut object);
    let target =
        Target { server: &call.server, strategy, user: &call.user, namespace: call.namespace(), name: call.name(), dry_run };
    let preconditions = object_meta::preconditions(&target, &object)?;
    let part = Part::of(strategy, &call.info.subresource);
    let updated = {
        let (target, object, preconditions) = (&target, &object, &preconditions);
        let tracking = Tracking::By(&manager);
        let mut decide = move |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
            Box::pin(async move {
                preconditions.check(strategy.names(), &old)?;
                replace(target, part, tracking, old, object.clone()).await
            })
        };
        commit(target, &mut decide).await?.object
    };
    respond::object(&call, StatusCode::OK, &updated, &warnings)
}

/// Takes a new object through admission, preparation and validation against the old one.
pub(crate) async fn replace(
    target: &Target<'_>,
    part: Part,
    tracking: Tracking<'_>,
    mut old: Value,
    mut new: Value,
) -> Result<Step, Status> {
    let strategy = target.strategy;
    object_meta::dedup_owners(&mut new);
    if let Tracking::By(manager) = tracking {
        tracking::update_in_every_version(target.server, strategy, (manager, part.subresource()), &old, &mut new).await?;
    }
    let mut reservations = admission::admit(&context(target, part, &old), &mut new).await?;
    // Nothing of it concerns the kind, and it is as large as the rest.
    let (old_owners, owners) = (take_entries(&mut old), take_entries(&mut new));
    let prepared = prepare(target, part, &old, &mut new);
    put_entries(&mut old, old_owners);
    put_entries(&mut new, owners);
    let step = match prepared {
        Ok(()) => accept(&context(target, part, &old), &new, &mut reservations).await.map(|()| finish(target, &old, new)),
        Err(status) => Err(status),
    };
    match step {
        Ok(Step::Put(new)) if !reservations.is_empty() => Ok(Step::PutReserved(new, reservations)),
        step => {
            reservations.release().await;
            step
        }
    }
}

fn context<'a>(target: &Target<'a>, part: Part, old: &'a Value) -> AdmissionContext<'a> {
    AdmissionContext {
        server: target.server,
        user: target.user,
        strategy: target.strategy,
        operation: Operation::Update,
        namespace: target.namespace,
        name: target.name,
        subresource: part.subresource(),
        old: Some(old),
        dry_run: target.dry_run,
    }
}

async fn accept(context: &AdmissionContext<'_>, new: &Value, reservations: &mut Reservations) -> Result<(), Status> {
    admission::validate(context, new).await?;
    admission::charge(context, new, reservations).await
}

/// The kind's own preparation and validation.
fn prepare(target: &Target<'_>, part: Part, old: &Value, new: &mut Value) -> Result<(), Status> {
    let strategy = target.strategy;
    object_meta::prepare_update(new, old);
    let mut errors = vec![];
    match part {
        Part::Main | Part::Scale => {
            strategy.prepare_update(new, old);
            errors.extend(object_meta::validate(strategy, new));
            errors.extend(object_meta::validate_update(new, old));
            // What a custom kind's object may be depends on what it was.
            if strategy.custom().is_none() {
                errors.extend(strategy.validate(new));
            }
            errors.extend(strategy.validate_update(new, old));
        }
        Part::Status => {
            strategy.prepare_status_update(new, old);
            errors.extend(object_meta::validate_update(new, old));
            errors.extend(strategy.validate_status_update(new, old));
        }
        Part::Own(name) => {
            strategy.prepare_part_update(name, new, old);
            errors.extend(object_meta::validate_update(new, old));
            errors.extend(strategy.validate(new));
            errors.extend(strategy.validate_part_update(name, new, old));
        }
    }
    if !errors.is_empty() {
        let mut unique: Vec<crate::http::error::Invalid> = vec![];
        errors.into_iter().for_each(|error| {
            if !unique.contains(&error) {
                unique.push(error)
            }
        });
        return Err(target.invalid(&unique));
    }
    Ok(())
}

/// An object that is being deleted goes when the last that kept it lets go.
fn finish(target: &Target<'_>, old: &Value, new: Value) -> Step {
    let metadata = &old["metadata"];
    let deleting = metadata.get("deletionTimestamp").is_some_and(|time| !time.is_null());
    let grace_over = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
    if deleting && grace_over && !object_meta::has_finalizers(&new) && !target.strategy.is_kept(&new) {
        Step::Delete(new)
    } else {
        Step::Put(new)
    }
}

/// Changes an object within the server: reads it, lets `change` make the new one of it, and writes that if nobody wrote
/// in between, else begins again; so `change` must be repeatable. Neither admission nor the kind's own preparation and
/// validation is run: `change` answers for what it writes. An unchanged object is not written. Answers with the object
/// as it is then, resourceVersion included.
pub async fn guaranteed_update(
    target: &Target<'_>,
    preconditions: &Preconditions,
    change: impl FnMut(Value) -> Result<Value, Status> + Send,
) -> Result<Value, Status> {
    let mut change = change;
    let mut decide = |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
        let step = preconditions
            .check(target.strategy.names(), &old)
            .and_then(|()| change(old.clone()))
            .map(|new| finish(target, &old, new));
        Box::pin(std::future::ready(step))
    };
    Ok(commit(target, &mut decide).await?.object)
}
