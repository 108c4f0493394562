//! `authentication.k8s.io/v1 TokenReview`: whose token it is, asked by what checks tokens for others.

use super::review::{self, user_info};
use crate::http::Call;
use crate::http::authenticate;
use crate::http::error::Status;
use axum::response::Response;
use serde_json::{Value, json};

pub async fn create(call: Call, review: &review::Review) -> Result<Response, Status> {
    let (mut object, warnings) = review::read(&call, review).await?;
    let token = object["spec"]["token"].as_str().unwrap_or_default().to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> = texts(&object["spec"]["audiences"]);
    let known = authenticate::of_token(&call.server, &token, &asked).await;
    object["status"] = match known {
        Ok(known) => json!({"authenticated": true, "user": user_info(&known.user), "audiences": known.audiences}),
        Err(why) => json!({"user": {}, "error": why}),
    };
    review::respond(&call, object, &warnings)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
