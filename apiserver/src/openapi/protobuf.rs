//! The version 2 document as a protocol buffer, which older kubectl ask for and take nothing else: gnostic's
//! `openapi.v2.Document`, as far as our documents have its fields.

use serde_json::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl Message {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.number(field << 3 | BYTES);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, list: Option<&Value>) {
        for text in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, flag: Option<&Value>) {
        if flag == Some(&Value::Bool(true)) {
            self.number(field << 3 | VARINT);
            self.number(1);
        }
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A `NamedX`: a name, and a message.
    fn named(&mut self, field: u64, name: &str, write: impl FnOnce(&mut Message)) {
        self.message(field, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, write);
        });
    }

    /// `x-…` fields, as YAML (which JSON is).
    fn extensions(&mut self, field: u64, map: &Map<String, Value>) {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, |any| any.bytes(2, value.to_string().as_bytes()));
        }
    }
}

/// `document` is what `Source::v2` makes.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    out.message(2, |info| {
        info.text(1, document["info"].get("title"));
        info.text(2, document["info"].get("version"));
    });
    out.message(8, |paths| {
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, one) in document["definitions"].as_object().into_iter().flatten() {
            definitions.named(1, name, |out| schema(out, one));
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(one) = item.get(method).and_then(Value::as_object) {
            out.message(field, |out| operation(out, one));
        }
    }
    parameters(out, 9, item.get("parameters"));
}

fn operation(out: &mut Message, operation: &Map<String, Value>) {
    out.texts(1, operation.get("tags"));
    out.text(3, operation.get("description"));
    out.text(5, operation.get("operationId"));
    out.texts(6, operation.get("produces"));
    out.texts(7, operation.get("consumes"));
    parameters(out, 8, operation.get("parameters"));
    out.message(9, |responses| {
        for (code, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, response.get("description"));
                    if let Some(one) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema(out, one)));
                    }
                });
            });
        }
    });
    out.texts(10, operation.get("schemes"));
    out.extensions(13, operation);
}

fn parameters(out: &mut Message, field: u64, list: Option<&Value>) {
    for one in list.and_then(Value::as_array).into_iter().flatten() {
        out.message(field, |item| item.message(1, |out| parameter(out, one)));
    }
}

fn parameter(out: &mut Message, one: &Value) {
    match one.get("in").and_then(Value::as_str) {
        Some("body") => out.message(1, |out| {
            out.text(1, one.get("description"));
            out.text(2, one.get("name"));
            out.text(3, one.get("in"));
            out.flag(4, one.get("required"));
            out.message(5, |out| schema(out, &one["schema"]));
        }),
        Some(place) => {
            // A query parameter has a field more (`allowEmptyValue`) before its type.
            let (field, kind) = if place == "query" { (3, 6) } else { (4, 5) };
            out.message(2, |out| {
                out.message(field, |out| {
                    out.flag(1, one.get("required"));
                    out.text(2, one.get("in"));
                    out.text(3, one.get("description"));
                    out.text(4, one.get("name"));
                    out.text(kind, one.get("type"));
                });
            });
        }
        None => {}
    }
}

fn schema(out: &mut Message, one: &Value) {
    let Some(map) = one.as_object() else { return };
    out.text(1, map.get("$ref"));
    out.text(2, map.get("format"));
    out.text(4, map.get("description"));
    out.texts(19, map.get("required"));
    for choice in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.message(20, |any| any.bytes(2, choice.to_string().as_bytes()));
    }
    if let Some(values) = map.get("additionalProperties").filter(|values| values.is_object()) {
        out.message(21, |item| item.message(1, |out| schema(out, values)));
    }
    if let Some(kind) = map.get("type").and_then(Value::as_str) {
        out.message(22, |item| item.bytes(1, kind.as_bytes()));
    }
    if let Some(items) = map.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, items)));
    }
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        out.message(25, |list| {
            for (name, property) in properties {
                list.named(1, name, |out| schema(out, property));
            }
        });
    }
    out.extensions(31, map);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_lengths() {
        let mut message = Message::default();
        message.text(1, Some(&json!("ab")));
        message.flag(4, Some(&json!(true)));
        message.named(2, "n", |inner| inner.bytes(1, &[7; 200]));
        let mut expected =
            vec![0x0a, 2, b'a', b'b', 0x20, 1, 0x12, 0xd1, 0x01, 0x0a, 1, b'n', 0x12, 0xcb, 0x01, 0x0a, 0xc8, 0x01];
        expected.extend([7; 200]);
        assert_eq!(message.0, expected);
    }
}
