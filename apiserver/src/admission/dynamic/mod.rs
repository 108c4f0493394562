//! Admission that objects describe: webhooks and policies. Mutating policies and webhooks are asked after the built-in plugins
//! that change objects, validating ones after everything else has agreed.

pub mod matching;
mod registrations;
pub mod request;

pub use registrations::{Compiled, Registrations};
pub use request::Request;

use super::{AdmissionContext, Operation, Plugin, Reservations, policy, webhook};
use crate::http::error::Status;
use crate::kind::Names;
use crate::openapi::FieldValidation;
use crate::resources::admission_registration::GROUP;
use crate::server::ApiServer;
use async_trait::async_trait;
use serde_json::{Value, json};
use slipway_store::Revision;

/// MutatingAdmissionPolicy and MutatingAdmissionWebhook.
pub struct Mutating;

/// ValidatingAdmissionPolicy and ValidatingAdmissionWebhook.
pub struct Validating;

#[async_trait]
impl Plugin for Mutating {
    async fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut Value,
        reservations: &mut Reservations,
    ) -> Result<(), Status> {
        let compiled = context.server.registrations.current(context.server);
        if compiled.mutates_nothing() || !matching::may_be_asked(context) {
            return Ok(());
        }
        let mut round = Round::default();
        mutate(context, &compiled, Some(&mut *object), &mut round).await?;
        if !round.webhook_changed && !round.policy_changed {
            return Ok(());
        }
        // What changed may concern those that were asked before.
        for plugin in super::PLUGINS.iter().take_while(|plugin| !plugin.is_dynamic()) {
            plugin.admit(context, object, reservations).await?;
        }
        round.number = 1;
        mutate(context, &compiled, Some(object), &mut round).await
    }

    /// A deletion changes nothing, but mutating webhooks are told of it.
    async fn validate(&self, context: &AdmissionContext<'_>, _object: &Value) -> Result<(), Status> {
        let compiled = context.server.registrations.current(context.server);
        if context.operation != Operation::Delete || compiled.mutates_nothing() || !matching::may_be_asked(context) {
            return Ok(());
        }
        mutate(context, &compiled, None, &mut Round::default()).await
    }

    fn is_dynamic(&self) -> bool {
        true
    }
}

#[async_trait]
impl Plugin for Validating {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let compiled = context.server.registrations.current(context.server);
        if compiled.validates_nothing() || !matching::may_be_asked(context) {
            return Ok(());
        }
        let shown = (context.operation != Operation::Delete).then(|| request::shown(context, object));
        let old = context.old.map(|old| request::shown(context, old));
        let request = Request::new(context, shown.as_ref(), old.as_ref());
        policy::validate(&request, &compiled).await?;
        webhook::validate(&request, &compiled).await
    }

    fn is_dynamic(&self) -> bool {
        true
    }
}

/// Which time the mutating ones are asked, and what they did.
#[derive(Default)]
pub struct Round {
    /// 0, or 1 when they are asked again.
    pub number: usize,
    pub webhook_changed: bool,
    pub policy_changed: bool,
    /// The position of the last webhook that changed something.
    pub last_changed: Option<usize>,
    /// The object as the webhooks left it.
    pub left: Option<Value>,
    /// Those that were asked the first time.
    pub asked: Vec<usize>,
}

async fn mutate(
    context: &AdmissionContext<'_>,
    compiled: &Compiled,
    object: Option<&mut Value>,
    round: &mut Round,
) -> Result<(), Status> {
    let old = context.old.map(|old| request::shown(context, old));
    let Some(object) = object else {
        return webhook::mutate(context, None, old.as_ref(), compiled, round).await;
    };
    let mut shown = request::shown(context, object);
    policy::mutate(context, &mut shown, old.as_ref(), compiled, round).await?;
    webhook::mutate(context, Some(&mut shown), old.as_ref(), compiled, round).await?;
    request::put_back(context, object, shown);
    Ok(())
}

/// A changed object is brought back into its kind's form, and what the change left out is filled in.
pub fn settle(context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
    if !request::is_of_the_kind(context) {
        return Ok(());
    }
    crate::openapi::conform(context.strategy, object, FieldValidation::Ignore)?;
    context.strategy.fill_defaults(object);
    Ok(())
}

/// Asks about what is sent to a subresource that has a kind of its own (a Binding, an Eviction, the options of exec).
pub async fn subresource(context: &AdmissionContext<'_>, object: &mut Value) -> Result<(), Status> {
    let compiled = context.server.registrations.current(context.server);
    if compiled.mutates_nothing() && compiled.validates_nothing() {
        return Ok(());
    }
    if !compiled.mutates_nothing() {
        mutate(context, &compiled, Some(&mut *object), &mut Round::default()).await?;
    }
    let request = Request::new(context, Some(object), None);
    policy::validate(&request, &compiled).await?;
    webhook::validate(&request, &compiled).await
}

/// Who has written a webhook or a policy is answered when it counts: from then on, this server asks it.
pub async fn in_force(server: &ApiServer, names: &Names, revision: Revision) -> Result<(), slipway_store::Error> {
    if names.group == GROUP {
        server.cache.at_least(revision).await?;
    }
    Ok(())
}

/// An internal error in Kubernetes' words.
pub fn internal(message: impl std::fmt::Display) -> Status {
    let message = format!("{message}");
    Status::new(http::StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal error occurred: {message}"))
        .with_details(json!({"causes": [{"message": message}]}))
}
