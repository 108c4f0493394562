//! Conversion webhooks: servers that bring objects from one version of a custom kind into another, asked by a
//! ConversionReview.

use crate::admission::webhook::Target;
use crate::http::error::{Invalid, Status};
use crate::openapi::go_type_of;
use crate::server::ApiServer;
use crate::verbs::object_meta;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::time::Duration;

const GROUP: &str = "apiextensions.k8s.io";
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is sent at once: a webhook answers with as much, within its time and in memory on both sides.
const BATCH_OBJECTS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The longest answer to a batch: objects may grow by conversion.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// `spec.conversion.webhook`.
#[derive(Debug)]
pub struct Webhook {
    target: Target,
    /// Of the ConversionReview that it is sent: the first one that is known here.
    version: Option<&'static str>,
}

/// What a conversion that failed is answered with.
pub fn failed(message: impl Into<String>) -> Status {
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

impl Webhook {
    pub fn of(definition: &Value) -> Option<Webhook> {
        let conversion = &definition["spec"]["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let mut known = versions.filter_map(|version| ["v1", "v1beta1"].into_iter().find(|known| version == known));
        Some(Webhook { target: Target::of(&webhook["clientConfig"], TIMEOUT.as_secs()), version: known.next() })
    }

    /// Brings objects of this kind into another version, in their order. All of them are of others.
    pub async fn convert(&self, server: &ApiServer, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Status> {
        let version = self.version.ok_or_else(|| failed("no supported conversion review versions"))?;
        let mut converted = Vec::with_capacity(objects.len());
        let mut rest = objects.into_iter().map(|object| (Sent::text(&object), object)).peekable();
        while rest.peek().is_some() {
            let (mut batch, mut texts, mut bytes) = (vec![], vec![], 0);
            while let Some((text, object)) = rest
                .next_if(|(text, _)| batch.is_empty() || batch.len() < BATCH_OBJECTS_MAX && bytes + text.len() <= BATCH_BYTES_MAX)
            {
                bytes += text.len();
                texts.push(text);
                batch.push(object);
            }
            converted.extend(self.batch(server, version, batch, &texts, api_version).await?);
        }
        Ok(converted)
    }

    async fn batch(
        &self,
        server: &ApiServer,
        version: &'static str,
        originals: Vec<Value>,
        texts: &[String],
        wanted: &str,
    ) -> Result<Vec<Value>, Status> {
        let sent = Sent { uid: uuid::Uuid::new_v4().to_string(), version, of: gvk(&originals[0]), single: originals.len() == 1 };
        let body = sent.body(texts, wanted);
        let clients = &server.registrations.clients;
        let answer = clients.call(server, &self.target, TIMEOUT, body.into(), ANSWER_BYTES_MAX).await;
        let objects = answer.and_then(|body| sent.objects(&body));
        let objects = objects.map_err(|why| failed(format!("conversion webhook for {} failed: {why}", sent.of)))?;
        if objects.len() != originals.len() {
            let (got, expected) = (objects.len(), originals.len());
            return Err(failed(format!("conversion webhook for {} returned {got} objects, expected {expected}", sent.of)));
        }
        let all = originals.into_iter().zip(objects).enumerate();
        all.map(|(index, (original, object))| sent.accept(index, &original, object, wanted).map_err(failed)).collect()
    }
}

/// `stable.example.com/v1, Kind=CronTab`
fn gvk(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

/// One ConversionReview.
struct Sent {
    uid: String,
    version: &'static str,
    /// The kind of its objects, for messages.
    of: String,
    single: bool,
}

impl Sent {
    /// An object as it is sent. Its revision is nothing that is converted.
    fn text(object: &Value) -> String {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        object.to_string()
    }

    fn body(&self, texts: &[String], wanted: &str) -> String {
        let (uid, wanted) = (json!(self.uid), json!(wanted));
        format!(
            "{{\"kind\":\"ConversionReview\",\"apiVersion\":\"{GROUP}/{}\",\"request\":{{\"uid\":{uid},\"desiredAPIVersion\":{wanted},\"objects\":[{}]}}}}",
            self.version,
            texts.join(",")
        )
    }

    /// What comes back, if it is an answer to this review and a success.
    fn objects(&self, body: &[u8]) -> Result<Vec<Value>, String> {
        let mut review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if self.version == "v1" {
            let (kind, version) = (text(&review["kind"]), text(&review["apiVersion"]));
            if kind != "ConversionReview" || version != format!("{GROUP}/v1") {
                let slash = if version.contains('/') { "" } else { "/" };
                return Err(format!(
                    "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {slash}{version}, Kind={kind}"
                ));
            }
        }
        let response = &mut review["response"];
        if !response.is_object() {
            return Err("no response provided".into());
        }
        let uid = text(&response["uid"]);
        if self.version == "v1" && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let result = &response["result"];
        if result["status"] != "Success" {
            return Err(match text(&result["message"]) {
                message if message.is_empty() => {
                    format!("response.result.status was '{}', not 'Success'", text(&result["status"]))
                }
                message => message,
            });
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(vec![]),
        }
    }

    /// The converted object, with the metadata that it had: labels and annotations alone are the webhook's to change.
    fn accept(&self, index: usize, original: &Value, mut object: Value, wanted: &str) -> Result<Value, String> {
        let at = |what: &str, why: &str| match (self.single, what) {
            (true, "object") => format!("conversion webhook for {} returned invalid object: {why}", self.of),
            (true, _) => format!("conversion webhook for {} returned invalid metadata: {why}", self.of),
            (false, "object") => {
                format!("conversion webhook for {} returned invalid converted object at index {index}: {why}", self.of)
            }
            (false, _) => {
                format!("conversion webhook for {} returned invalid metadata in object at index {index}: {why}", self.of)
            }
        };
        let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object, "apiVersion"), text(&object, "kind"));
        let what = if self.single { "object" } else { "converted object" };
        let of = &self.of;
        if version != wanted {
            let why = format!("invalid groupVersion (expected {wanted}, received {version})");
            return Err(format!("conversion webhook for {of} returned invalid {what} at index {index}: {why}"));
        }
        if kind != text(original, "kind") {
            let why = format!("invalid kind (expected {}, received {kind})", text(original, "kind"));
            return Err(format!("conversion webhook for {of} returned invalid {what} at index {index}: {why}"));
        }
        for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
            let (had, has) = (text(&original["metadata"], field), text(&object["metadata"], field));
            if had != has {
                return Err(at("object", &format!("must have the same {shown}: {had} != {has}")));
            }
        }
        let given = object["metadata"].take();
        object["metadata"] = restored(&original["metadata"], &given).map_err(|why| at("metadata", &why))?;
        Ok(object)
    }
}

fn restored(original: &Value, given: &Value) -> Result<Value, String> {
    let Value::Object(given) = given else {
        return Err(if given.is_null() {
            "missing metadata in converted object".into()
        } else {
            format!("invalid metadata of type {} in converted object", go_type_of(given))
        });
    };
    let mut metadata = original.as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(Value::Object(texts)) => {
                check(field, texts, metadata.get(field))?;
                metadata.insert(field.into(), Value::Object(texts.clone()));
            }
            Some(other) => return Err(format!("invalid metadata.{field} of type {} in converted object", go_type_of(other))),
        }
    }
    Ok(Value::Object(metadata))
}

fn check(field: &str, texts: &Map<String, Value>, before: Option<&Value>) -> Result<(), String> {
    if let Some((name, other)) = texts.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{name}] must be a string, but is {} in converted object", go_type_of(other)));
    }
    if before.and_then(Value::as_object) == Some(texts) {
        return Ok(());
    }
    let texts = Value::Object(texts.clone());
    let errors: Vec<Invalid> = match field {
        "labels" => object_meta::validate_labels("metadata.labels", &texts),
        _ => object_meta::validate_annotations(&texts),
    };
    let words: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    match words.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(single: bool) -> Sent {
        Sent { uid: "u".into(), version: "v1", of: "a.b/v1, Kind=K".into(), single }
    }

    fn object(version: &str) -> Value {
        json!({"apiVersion": version, "kind": "K", "metadata": {"name": "n", "uid": "1", "generation": 3, "labels": {"a": "b"}}})
    }

    #[test]
    fn an_answer_is_one_to_the_review_that_was_sent() {
        let objects = |review: Value| sent(true).objects(review.to_string().as_bytes());
        let answer =
            |response: Value| json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
        let good = json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [1]});
        assert_eq!(objects(answer(good)).unwrap(), [json!(1)]);
        assert_eq!(objects(answer(Value::Null)).unwrap_err(), "no response provided");
        assert_eq!(
            objects(json!({"kind": "Pod", "apiVersion": "v1"})).unwrap_err(),
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /v1, Kind=Pod"
        );
        assert_eq!(objects(answer(json!({"uid": "x"}))).unwrap_err(), "expected response.uid=\"u\", got \"x\"");
        let failed = json!({"uid": "u", "result": {"status": "Failure", "message": "no"}});
        assert_eq!(objects(answer(failed)).unwrap_err(), "no");
        assert_eq!(objects(answer(json!({"uid": "u"}))).unwrap_err(), "response.result.status was '', not 'Success'");
    }

    #[test]
    fn metadata_is_kept_but_for_labels_and_annotations() {
        let mut converted = object("a.b/v2");
        converted["metadata"] = json!({"name": "n", "uid": "1", "generation": 9, "annotations": {"x": "y"}});
        let accepted = sent(true).accept(0, &object("a.b/v1"), converted.clone(), "a.b/v2").unwrap();
        assert_eq!(accepted["metadata"], json!({"name": "n", "uid": "1", "generation": 3, "annotations": {"x": "y"}}));
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut object_ = converted.clone();
            change(&mut object_);
            sent(true).accept(0, &object("a.b/v1"), object_, "a.b/v2").unwrap_err()
        };
        let begins = "conversion webhook for a.b/v1, Kind=K returned invalid";
        assert_eq!(
            refused(&|object| object["apiVersion"] = json!("a.b/v3")),
            format!("{begins} object at index 0: invalid groupVersion (expected a.b/v2, received a.b/v3)")
        );
        assert_eq!(
            refused(&|object| object["kind"] = json!("L")),
            format!("{begins} object at index 0: invalid kind (expected K, received L)")
        );
        assert_eq!(
            refused(&|object| object["metadata"]["uid"] = json!("2")),
            format!("{begins} object: must have the same UID: 1 != 2")
        );
        assert_eq!(
            refused(&|object| object["metadata"]["labels"] = json!({"a": 1})),
            format!("{begins} metadata: metadata.labels[a] must be a string, but is int64 in converted object")
        );
        assert!(
            refused(&|object| object["metadata"]["labels"] = json!({"a b": "c"}))
                .starts_with(&format!("{begins} metadata: metadata.labels: "))
        );
        let many = sent(false).accept(1, &object("a.b/v1"), json!({"apiVersion": "a.b/v2", "kind": "K"}), "a.b/v2").unwrap_err();
        assert_eq!(
            many,
            "conversion webhook for a.b/v1, Kind=K returned invalid converted object at index 1: must have the same name: n != "
        );
    }
}
