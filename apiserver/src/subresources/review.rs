//! The reviews: resources that are asked and never stored. (`bindings` is here too: it is only ever created.)

use super::binding;
use crate::http::Call;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::http::respond;
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
        _ => self_subject(call).await,
    }
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
