//! `format.dns1123Label().validate(name)`: the formats that Kubernetes checks names by.

use super::opaque::Opaque;
use super::{Line, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use slipway_api::name;

pub const LIBRARY: &[Line] = &[
    ("format.named(string):optional<kubernetes.NamedFormat>", |_, args| {
        let name = text(args, 0)?;
        let known = NAMES.iter().find(|known| **known == name);
        Ok(known.map_or(Value::Optional(None), |known| Value::some(of(known))))
    }),
    ("format.dns1123Label():kubernetes.NamedFormat", |_, _| Ok(of("dns1123Label"))),
    ("format.dns1123Subdomain():kubernetes.NamedFormat", |_, _| Ok(of("dns1123Subdomain"))),
    ("format.dns1035Label():kubernetes.NamedFormat", |_, _| Ok(of("dns1035Label"))),
    ("format.qualifiedName():kubernetes.NamedFormat", |_, _| Ok(of("qualifiedName"))),
    ("format.dns1123LabelPrefix():kubernetes.NamedFormat", |_, _| Ok(of("dns1123LabelPrefix"))),
    ("format.dns1123SubdomainPrefix():kubernetes.NamedFormat", |_, _| Ok(of("dns1123SubdomainPrefix"))),
    ("format.dns1035LabelPrefix():kubernetes.NamedFormat", |_, _| Ok(of("dns1035LabelPrefix"))),
    ("format.labelValue():kubernetes.NamedFormat", |_, _| Ok(of("labelValue"))),
    ("format.uri():kubernetes.NamedFormat", |_, _| Ok(of("uri"))),
    ("format.uuid():kubernetes.NamedFormat", |_, _| Ok(of("uuid"))),
    ("format.byte():kubernetes.NamedFormat", |_, _| Ok(of("byte"))),
    ("format.date():kubernetes.NamedFormat", |_, _| Ok(of("date"))),
    ("format.datetime():kubernetes.NamedFormat", |_, _| Ok(of("datetime"))),
    (".validate(kubernetes.NamedFormat,string):optional<list<string>>", |frame, args| {
        let Value::Opaque(Opaque::Format(format)) = &args[0] else { return Err(Error::no_overload()) };
        let given = text(args, 1)?;
        frame.charge_text(given.len() * 4)?;
        let errors = errors(format, given);
        Ok(if errors.is_empty() {
            Value::Optional(None)
        } else {
            Value::some(Value::list(errors.into_iter().map(Value::string).collect()))
        })
    }),
];

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn of<'a>(name: &'static str) -> Value<'a> {
    Value::Opaque(Opaque::Format(name))
}

/// A name that something is added to may end in a dash.
fn prefix(text: &str) -> &str {
    text.strip_suffix('-').unwrap_or(text)
}

fn errors(format: &str, text: &str) -> Vec<String> {
    let unless = |good: bool, why: &str| if good { vec![] } else { vec![why.to_owned()] };
    match format {
        "dns1123Label" => name::dns1123_label(text),
        "dns1123Subdomain" => name::dns1123_subdomain(text),
        "dns1035Label" => name::dns1035_label(text),
        "qualifiedName" => name::qualified_name(text),
        "dns1123LabelPrefix" => name::dns1123_label(prefix(text)),
        "dns1123SubdomainPrefix" => name::dns1123_subdomain(prefix(text)),
        "dns1035LabelPrefix" => name::dns1035_label(prefix(text)),
        "labelValue" => name::label_value(text),
        "uri" => unless(super::url::Url::parse(text).is_some(), "invalid URI for request"),
        "uuid" => unless(is_uuid(text), "does not match the UUID format"),
        "byte" => unless(STANDARD.decode(text).is_ok(), "invalid base64"),
        "date" => unless(super::time::parse_date(text).is_some(), "invalid date"),
        _ => unless(super::time::parse_timestamp(text).is_some(), "invalid datetime"),
    }
}

fn is_uuid(text: &str) -> bool {
    let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain || text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}
