//! Admission webhooks: servers that are asked about writes by an AdmissionReview.

pub(crate) mod client;
pub(crate) mod resolve;
mod review;

pub use client::{Clients, Target};

use super::dynamic::matching::{Matched, Matcher};
use super::dynamic::{self, Compiled, Request, Round, internal};
use super::policy::{Condition, conditions};
use super::{AdmissionContext, policy};
use crate::http::error::Status;
use crate::http::notes;
use crate::kind::Strategy;
use client::ANSWER_BYTES_MAX;
use futures::future::join_all;
use review::{Answer, Review};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One webhook of a configuration.
pub struct Webhook {
    pub name: String,
    /// The configuration that it stands in.
    configuration: String,
    matcher: Matcher,
    conditions: Vec<Condition>,
    target: Target,
    timeout: Duration,
    fails_open: bool,
    /// Whether a dry run may ask it.
    dry: bool,
    reinvoked: bool,
    /// Of the AdmissionReview that it is sent.
    version: &'static str,
}

impl Webhook {
    /// Those of a configuration, in their order.
    pub fn all(configuration: &Value) -> Vec<Webhook> {
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
        webhooks.map(|webhook| Webhook::of(name, webhook)).collect()
    }

    fn of(configuration: &str, webhook: &Value) -> Webhook {
        let text = |field: &str| webhook[field].as_str().unwrap_or_default().to_owned();
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
        let versions = webhook["admissionReviewVersions"].as_array().into_iter().flatten();
        let known = versions.filter_map(|version| ["v1", "v1beta1"].into_iter().find(|known| version == known));
        Webhook {
            name: text("name"),
            configuration: configuration.to_owned(),
            matcher: Matcher::of(webhook),
            conditions: conditions(webhook, false),
            target: Target::of(&webhook["clientConfig"], seconds),
            timeout: Duration::from_secs(seconds),
            fails_open: webhook["failurePolicy"] == "Ignore",
            dry: matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            reinvoked: webhook["reinvocationPolicy"] == "IfNeeded",
            version: known.into_iter().next().unwrap_or("v1"),
        }
    }

    /// In which form the webhook is to be asked about the request; `None`: not at all.
    async fn wants(&self, request: &Request<'_>) -> Result<Option<Option<Arc<dyn Strategy>>>, Status> {
        let form = match self.matcher.matches(request, true)? {
            Matched::No => return Ok(None),
            Matched::AsItIs => None,
            Matched::As(strategy) => Some(strategy),
        };
        if !self.conditions.is_empty() {
            match policy::conditions_hold(&self.conditions, request, form.as_deref()).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if self.fails_open => return Ok(None),
                Err(why) => {
                    let nothing = Value::Null;
                    let object = request.object.or(request.old).unwrap_or(&nothing);
                    return Err(request.context.forbidden(object, &why));
                }
            }
        }
        if request.context.dry_run && !self.dry {
            let why = format!("admission webhook \"{}\" does not support dry run", self.name);
            return Err(Status::bad_request(why));
        }
        Ok(Some(form))
    }

    /// Asks, and answers with what is to become of the request; `None`: the webhook failed and may be passed over.
    async fn ask(&self, request: &Request<'_>, form: Option<&dyn Strategy>) -> Result<Option<Answer>, Status> {
        let review = Review::new(self.version, request, form).await?;
        let server = request.context.server;
        let sent = server.registrations.clients.call(server, &self.target, self.timeout, review.body(), ANSWER_BYTES_MAX);
        let answer = match sent.await {
            Ok(body) => review.answer(&body).map_err(|why| format!("received invalid webhook response: {why}")),
            Err(why) => Err(format!("failed to call webhook: {why}")),
        };
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(why) if self.fails_open => {
                tracing::warn!(webhook = self.name, why, "a webhook failed and is passed over");
                Ok(None)
            }
            Err(why) => Err(internal(format!("failed calling webhook \"{}\": {why}", self.name))),
        }
    }

    /// What of an answer is told to the client and to the audit log; and the refusal, if it is one.
    fn note(&self, answer: &Answer) -> Result<(), Status> {
        answer.warnings.iter().for_each(|warning| notes::warn(warning.as_str()));
        for (key, value) in &answer.annotations {
            notes::annotate(format!("{}/{key}", self.name), value.as_str());
        }
        if answer.allowed { Ok(()) } else { Err(answer.denial(&self.name)) }
    }
}

/// Asks the mutating webhooks one after the other. `object` is `None` for a deletion, of which they are told.
pub async fn mutate(
    context: &AdmissionContext<'_>,
    mut object: Option<&mut Value>,
    old: Option<&Value>,
    compiled: &Compiled,
    round: &mut Round,
) -> Result<(), Status> {
    let again = round.number > 0;
    let others_changed = again && round.left.as_ref() != object.as_deref();
    let last_changed = round.last_changed;
    for (index, webhook) in compiled.mutating_webhooks.iter().enumerate() {
        // Asked again are those that want to be, if something has changed after them.
        let concerned = webhook.reinvoked && round.asked.contains(&index) && (others_changed || last_changed > Some(index));
        if again && !concerned {
            continue;
        }
        let before = object.as_deref().cloned();
        let request = Request::new(context, before.as_ref(), old);
        let Some(form) = webhook.wants(&request).await? else { continue };
        round.asked.push(index);
        let Some(answer) = webhook.ask(&request, form.as_deref()).await? else {
            notes::annotate(
                format!("failed-open.mutation.webhook.admission.k8s.io/round_{}_index_{index}", round.number),
                webhook.name.as_str(),
            );
            continue;
        };
        webhook.note(&answer)?;
        let changed = match (object.as_deref_mut(), &answer.patch) {
            (Some(object), Some(patch)) => patch_object(context, webhook, object, patch, form.as_deref()).await?,
            _ => false,
        };
        annotate(webhook, round.number, index, changed);
        if changed {
            round.webhook_changed = true;
            round.last_changed = Some(index);
        }
    }
    round.left = object.as_deref().cloned();
    Ok(())
}

fn annotate(webhook: &Webhook, round: usize, index: usize, mutated: bool) {
    let value = json!({"configuration": webhook.configuration, "webhook": webhook.name, "mutated": mutated});
    notes::annotate(format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"), value.to_string());
}

/// Whether the patch changed anything.
async fn patch_object(
    context: &AdmissionContext<'_>,
    webhook: &Webhook,
    object: &mut Value,
    patch: &Value,
    form: Option<&dyn Strategy>,
) -> Result<bool, Status> {
    let before = object.clone();
    let mut patched = match form {
        Some(strategy) => {
            let request = Request::new(context, Some(&before), None);
            request.converted(&before, strategy).await?
        }
        None => before.clone(),
    };
    let failed = |why: &dyn std::fmt::Display| {
        internal(format!("failed calling webhook \"{}\": failed to apply patch: {why}", webhook.name))
    };
    crate::patch::json::apply(&mut patched, patch).map_err(|error| failed(&error))?;
    if let Some(strategy) = form {
        patched = dynamic::request::convert(context, &patched, (strategy, context.strategy)).await?;
    }
    dynamic::settle(context, &mut patched)?;
    *object = patched;
    Ok(*object != before)
}

/// Asks the validating webhooks all at once; the first refusal in their order counts.
pub async fn validate(request: &Request<'_>, compiled: &Compiled) -> Result<(), Status> {
    let mut wanted = vec![];
    for (index, webhook) in compiled.validating_webhooks.iter().enumerate() {
        if let Some(form) = webhook.wants(request).await? {
            wanted.push((index, webhook, form));
        }
    }
    let asked = wanted.iter().map(|(index, webhook, form)| async move {
        match webhook.ask(request, form.as_deref()).await? {
            Some(answer) => webhook.note(&answer),
            None => {
                notes::annotate(
                    format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}"),
                    webhook.name.as_str(),
                );
                Ok(())
            }
        }
    });
    join_all(asked).await.into_iter().collect()
}
