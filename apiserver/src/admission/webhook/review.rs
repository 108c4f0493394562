//! AdmissionReview: what is asked, and what is answered.

use crate::admission::Operation;
use crate::admission::dynamic::Request;
use crate::http::error::Status;
use crate::kind::Strategy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

const GROUP: &str = "admission.k8s.io";

pub struct Review {
    uid: String,
    version: &'static str,
    body: Bytes,
}

/// What a webhook says.
pub struct Answer {
    pub allowed: bool,
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
    status: Value,
}

impl Review {
    pub async fn new(version: &'static str, request: &Request<'_>, form: Option<&dyn Strategy>) -> Result<Self, Status> {
        let uid = uuid::Uuid::new_v4().to_string();
        let shown = form.unwrap_or(request.context.strategy);
        let mut asked = request.review(shown);
        asked["uid"] = uid.as_str().into();
        asked["object"] = request.shown(request.object, form).await?.unwrap_or_default();
        if request.context.operation != Operation::Connect {
            asked["oldObject"] = request.shown(request.old, form).await?.unwrap_or_default();
        } else {
            asked["oldObject"] = Value::Null;
        }
        let review = json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": asked});
        Ok(Review { uid, version, body: review.to_string().into() })
    }

    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Reads and checks an answer.
    pub fn answer(&self, body: &[u8]) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let response = &review["response"];
        if !response.is_object() {
            return Err("webhook response was absent".into());
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // A version from before it had to be said may leave out kind and UID.
        if self.version == "v1" {
            let (kind, version) = (text(&review["kind"]), text(&review["apiVersion"]));
            if kind != "AdmissionReview" || version != format!("{GROUP}/{}", self.version) {
                return Err(format!(
                    "expected webhook response of {GROUP}/{}, Kind=AdmissionReview, got {version}, Kind={kind}",
                    self.version
                ));
            }
            let uid = text(&response["uid"]);
            if uid != self.uid {
                return Err(format!("expected response.uid=\"{}\", got \"{uid}\"", self.uid));
            }
        }
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        Ok(Answer {
            allowed: response["allowed"] == true,
            patch: self.patch(response)?,
            warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
            annotations: annotations.map(|(key, value)| (key.clone(), text(value))).collect(),
            status: response["status"].clone(),
        })
    }

    fn patch(&self, response: &Value) -> Result<Option<Value>, String> {
        let encoded = response["patch"].as_str().unwrap_or_default();
        let kind = response["patchType"].as_str().unwrap_or_default();
        match (encoded.is_empty(), kind) {
            (true, "") => return Ok(None),
            (true, _) if self.version == "v1" => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, _) => return Ok(None),
            (false, "JSONPatch") => {}
            (false, "") if self.version == "v1" => {
                return Err("webhook returned response.patch but not response.patchType".into());
            }
            (false, "") => {}
            (false, other) => return Err(format!("webhook returned invalid response.patchType of \"{other}\"")),
        }
        let bytes = STANDARD.decode(encoded).map_err(|error| format!("response.patch: {error}"))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("response.patch: {error}"))
    }
}

impl Answer {
    /// The refusal, with the status that the webhook chose.
    pub fn denial(&self, webhook: &str) -> Status {
        let text = |field: &str| self.status[field].as_str().unwrap_or_default();
        let denied = format!("admission webhook \"{webhook}\" denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code = self.status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
        let status = Status::new(code.unwrap_or(StatusCode::BAD_REQUEST), reason(text("reason")), message);
        if self.status["details"].is_object() { status.with_details(self.status["details"].clone()) } else { status }
    }
}

/// The reasons that Kubernetes knows; another is not passed on.
fn reason(given: &str) -> &'static str {
    const KNOWN: [&str; 21] = [
        "Unauthorized",
        "Forbidden",
        "NotFound",
        "AlreadyExists",
        "Conflict",
        "Gone",
        "Invalid",
        "ServerTimeout",
        "StoreReadError",
        "Timeout",
        "TooManyRequests",
        "BadRequest",
        "MethodNotAllowed",
        "NotAcceptable",
        "RequestEntityTooLarge",
        "UnsupportedMediaType",
        "InternalError",
        "Expired",
        "ServiceUnavailable",
        "Unknown",
        "UnprocessableEntity",
    ];
    KNOWN.into_iter().find(|known| *known == given).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(version: &'static str, body: Value) -> Result<Answer, String> {
        Review { uid: "u".into(), version, body: Bytes::new() }.answer(body.to_string().as_bytes())
    }

    fn refused(body: Value) -> String {
        answered("v1", body).err().unwrap_or_default()
    }

    #[test]
    fn an_answer_must_fit_the_question() {
        let review =
            |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        assert!(answered("v1", review(json!({"uid": "u", "allowed": true}))).unwrap().allowed);
        assert_eq!(refused(review(Value::Null)), "webhook response was absent");
        assert_eq!(refused(review(json!({"uid": "x"}))), "expected response.uid=\"u\", got \"x\"");
        assert!(
            refused(json!({"response": {"uid": "u"}}))
                .starts_with("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview")
        );
        assert!(answered("v1beta1", json!({"response": {"allowed": true}})).unwrap().allowed);
        let patch = STANDARD.encode("[]");
        assert_eq!(
            refused(review(json!({"uid": "u", "allowed": true, "patch": patch}))),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(
            refused(review(json!({"uid": "u", "patch": patch, "patchType": "x"}))),
            "webhook returned invalid response.patchType of \"x\""
        );
        assert!(refused(review(json!({"uid": "u", "patch": "%", "patchType": "JSONPatch"}))).starts_with("response.patch: "));
    }

    #[test]
    fn a_refusal_has_the_status_of_the_webhook() {
        let denial = |status: Value| {
            let status = Answer { allowed: false, patch: None, warnings: vec![], annotations: vec![], status }.denial("w");
            (status.code.as_u16(), status.reason, status.message)
        };
        assert_eq!(denial(Value::Null), (400, "", "admission webhook \"w\" denied the request without explanation".into()));
        let given = json!({"code": 403, "reason": "Forbidden", "message": "no"});
        assert_eq!(denial(given), (403, "Forbidden", "admission webhook \"w\" denied the request: no".into()));
        assert_eq!(
            denial(json!({"code": 200, "reason": "X"})),
            (400, "", "admission webhook \"w\" denied the request: X".into())
        );
    }
}
