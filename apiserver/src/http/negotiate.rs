//! What the client wants to read: the Accept header, and the forms in which an object can be shown.

use crate::http::error::Status;
use crate::http::protobuf;
use http::{HeaderMap, StatusCode, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => protobuf::CONTENT_TYPE,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object as it is.
    Object,
    /// `as=Table`: rows for printing, made by `crate::table`.
    Table,
    /// `as=PartialObjectMetadata`.
    Metadata,
    /// `as=PartialObjectMetadataList`.
    MetadataList,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub form: Form,
    /// Whether another form than the object is wanted in `meta.k8s.io/v1beta1` instead of `v1`.
    pub beta: bool,
}

/// What an endpoint can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    pub protobuf: bool,
    /// Objects without columns have no Table.
    pub table: bool,
    /// A watch is not to be had in YAML.
    pub stream: bool,
}

impl Offer {
    /// What is no stored object: discovery, a Status.
    pub const PLAIN: Offer = Offer { protobuf: true, table: false, stream: false };
}

impl Accept {
    pub const JSON: Accept = Accept { media: Media::Json, form: Form::Object, beta: false };

    /// The first alternative that is offered; 406 if there is none. They are tried by weight, then what names its type
    /// before what leaves it open, then in order.
    pub fn parse(headers: &HeaderMap, offer: Offer) -> Result<Accept, Status> {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut values = values.filter(|value| !value.trim().is_empty()).peekable();
        if values.peek().is_none() {
            return Ok(Accept::JSON);
        }
        let mut alternatives: Vec<(f32, u8, &str)> = values.flat_map(|value| value.split(',')).map(ranked).collect();
        alternatives.sort_by(|(weight, rank, _), (other, other_rank, _)| other.total_cmp(weight).then(rank.cmp(other_rank)));
        alternatives.into_iter().find_map(|(_, _, text)| alternative(text, offer)).ok_or_else(|| not_acceptable(offer))
    }
}

/// An alternative with its weight, and how open it is.
fn ranked(text: &str) -> (f32, u8, &str) {
    let mut parts = text.split(';').map(str::trim);
    let open = match parts.next().unwrap_or_default() {
        "*/*" => 2,
        media if media.ends_with("/*") => 1,
        _ => 0,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
    (weight, open, text)
}

fn alternative(text: &str, offer: Offer) -> Option<Accept> {
    let mut parts = text.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Media::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" if !offer.stream => Media::Yaml,
        protobuf::CONTENT_TYPE if offer.protobuf => Media::Protobuf,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            Some(("stream", value)) if value != "watch" => return None,
            _ => {}
        }
    }
    let known = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
    let form = match kind {
        "" if group.is_empty() && version.is_empty() => Form::Object,
        // Cells are of any type, which protobuf has no word for.
        "Table" if known && offer.table && media != Media::Protobuf => Form::Table,
        "PartialObjectMetadata" if known => Form::Metadata,
        "PartialObjectMetadataList" if known => Form::MetadataList,
        _ => return None,
    };
    Some(Accept { media, form, beta: version == "v1beta1" })
}

fn not_acceptable(offer: Offer) -> Status {
    let mut accepted = vec!["application/json"];
    if !offer.stream {
        accepted.push("application/yaml");
    }
    if offer.protobuf {
        accepted.push(protobuf::CONTENT_TYPE);
    }
    refused(format!("only the following media types are accepted: {}", accepted.join(", ")))
}

/// 406.
pub fn refused(message: impl Into<String>) -> Status {
    Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Offer = Offer { protobuf: true, table: true, stream: false };

    fn parse_for(accept: &str, offer: Offer) -> Result<Accept, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Accept::parse(&headers, offer).map_err(|status| status.code.as_u16())
    }

    fn parse(accept: &str) -> Result<Accept, u16> {
        parse_for(accept, ALL)
    }

    fn json(form: Form) -> Result<Accept, u16> {
        Ok(Accept { form, ..Accept::JSON })
    }

    #[test]
    fn the_first_served_alternative_is_chosen() {
        assert_eq!(Accept::parse(&HeaderMap::new(), ALL).unwrap(), Accept::JSON);
        assert_eq!(parse(""), json(Form::Object));
        assert_eq!(
            parse(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            json(Form::Table)
        );
        assert_eq!(parse("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), json(Form::MetadataList));
        assert_eq!(parse("application/json;as=Table;v=v7;g=meta.k8s.io,application/json"), json(Form::Object));
        assert_eq!(parse("application/json;as=Table;v=v7;g=meta.k8s.io"), Err(406));
        assert_eq!(parse("application/json;as=Table;g=meta.k8s.io"), Err(406));
        assert_eq!(parse("application/json;as=Table"), Err(406));
        assert_eq!(parse("application/json;as=Other;v=v1;g=meta.k8s.io"), Err(406));
        assert!(parse("application/json;as=Table;v=v1beta1;g=meta.k8s.io").unwrap().beta);
        assert_eq!(parse("*/*"), json(Form::Object));
        assert_eq!(parse("application/json;q=0.2, application/yaml").unwrap().media, Media::Yaml);
        assert_eq!(parse("*/*, application/yaml").unwrap().media, Media::Yaml);
        assert_eq!(parse("text/html"), Err(406));
    }

    #[test]
    fn protobuf_is_had_where_it_is_offered_and_never_as_a_table() {
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(parse(go).unwrap().media, Media::Protobuf);
        let custom = Offer { protobuf: false, ..ALL };
        assert_eq!(parse_for(go, custom), json(Form::Object));
        assert_eq!(parse_for("application/vnd.kubernetes.protobuf", custom), Err(406));
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(parse(table), Err(406));
        assert_eq!(parse(&format!("{table},application/json")), json(Form::Object));
        let partial = parse("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").unwrap();
        assert_eq!((partial.media, partial.form), (Media::Protobuf, Form::Metadata));
    }

    #[test]
    fn a_stream_is_json_or_protobuf() {
        let stream = Offer { stream: true, ..ALL };
        assert_eq!(parse_for("application/yaml", stream), Err(406));
        assert_eq!(parse_for("application/yaml, application/json;stream=watch", stream), json(Form::Object));
        assert_eq!(parse_for("application/json;stream=other", stream), Err(406));
        assert_eq!(parse_for("application/vnd.kubernetes.protobuf;stream=watch", stream).unwrap().media, Media::Protobuf);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,80}") {
            let _ = parse(&text);
        }
    }
}
