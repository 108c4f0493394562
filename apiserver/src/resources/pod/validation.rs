//! What a pod's spec must be like.

use crate::http::error::Invalid;
use crate::resources::rules;
use slipway_api::core::PodSpec;

pub fn spec(at: &str, spec: &PodSpec, errors: &mut Vec<Invalid>) {
    if spec.containers.is_empty() {
        errors.push(Invalid::required(format!("{at}.containers"), ""));
    }
    rules::one_of(&format!("{at}.restartPolicy"), spec.restart_policy.as_deref(), &["Always", "Never", "OnFailure"], errors);
}
