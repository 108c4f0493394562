//! The reviews: resources that are asked and never stored. (`bindings` is here too: it is only ever created.)

use super::{access_review, binding, token_review};
use crate::http::Call;
use crate::http::authenticate::User;
use crate::http::error::{Invalid, Status};
use crate::http::respond;
use crate::openapi::{self, Expected};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// A resource that can only be created, and of which nothing remains.
#[derive(Debug, Clone, Copy)]
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

pub const ALL: &[Review] = &[
    Review { group: "", version: "v1", plural: "bindings", singular: "binding", kind: "Binding", namespaced: true },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        namespaced: false,
    },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        plural: "tokenreviews",
        singular: "tokenreview",
        kind: "TokenReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        kind: "LocalSubjectAccessReview",
        namespaced: true,
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        kind: "SelfSubjectRulesReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        kind: "SubjectAccessReview",
        namespaced: false,
    },
];

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    ALL.iter().find(|review| (review.group, review.version, review.plural) == (group, version, plural))
}

/// Serves a POST of a review. `call.strategy` is that of pods, which is what a Binding is about.
pub async fn create(call: Call, review: &Review) -> Result<Response, Status> {
    if call.info.verb != crate::http::request_info::Verb::Create || call.info.name.is_some() {
        return Err(Status::method_not_allowed());
    }
    if review.namespaced != call.info.namespace.is_some() {
        return Err(Status::no_such_path());
    }
    match review.plural {
        "bindings" => binding::create_by_body(call).await,
        "selfsubjectreviews" => self_subject(call).await,
        "tokenreviews" => token_review::create(call, review).await,
        "selfsubjectrulesreviews" => access_review::rules(call, review).await,
        _ => access_review::create(call, review).await,
    }
}

/// The review that is asked, held to its schema, and the warnings.
pub(super) async fn read(call: &Call, review: &Review) -> Result<(Value, Vec<String>), Status> {
    let group = review.group.strip_suffix(".k8s.io").unwrap_or(review.group);
    let (version, kind) = (review.version, review.kind);
    let expected = Expected { group: review.group, version, kind, schema: format!("io.k8s.api.{group}.{version}.{kind}") };
    call.info.query.dry_run()?;
    let body = call.read_body().await?;
    let (mut object, warnings) = openapi::decode_as(&expected, &body, call.content_type(), call.field_validation()?)?;
    let metadata = &object["metadata"];
    let own = metadata["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    if let (Some(own), Some(asked)) = (own, &call.info.namespace)
        && own != asked
    {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    let foreign = |(field, value): (&String, &Value)| {
        let expected = field == "creationTimestamp" || (field == "namespace" && own == value.as_str());
        !expected && value != ""
    };
    if metadata.as_object().into_iter().flatten().any(foreign) || (own.is_some() && !review.namespaced) {
        let why = if review.namespaced { "must be empty except for namespace" } else { "must be empty" };
        return Err(Status::invalid(review.group, kind, "", &[Invalid::value("metadata", metadata, why)]));
    }
    object["kind"] = kind.into();
    object["apiVersion"] = format!("{}/{version}", review.group).into();
    object["metadata"] = match &call.info.namespace {
        Some(namespace) => json!({"namespace": namespace}),
        None => json!({}),
    };
    Ok((object, warnings))
}

/// The review with its answer.
pub(super) fn respond(call: &Call, object: Value, warnings: &[String]) -> Result<Response, Status> {
    let mut response = respond::value(call.accept()?, StatusCode::CREATED, &object);
    warnings.iter().for_each(|warning| respond::warn(&mut response, warning));
    Ok(response)
}

/// Says who the caller is.
async fn self_subject(call: Call) -> Result<Response, Status> {
    let accept = call.accept()?;
    let review = json!({
        "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": crate::verbs::object_meta::timestamp(call.server.now())},
        "status": {"userInfo": user_info(&call.user)},
    });
    Ok(respond::value(accept, StatusCode::CREATED, &review))
}

/// `authentication.k8s.io/v1 UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
