//! What the client wants to read: the Accept header, and the forms in which an object can be shown.

use crate::http::error::Status;
use http::{HeaderMap, StatusCode, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object as it is.
    Object,
    /// `as=Table`: rows for printing, made by `crate::table`.
    Table,
    /// `as=PartialObjectMetadata` or `as=PartialObjectMetadataList`.
    Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub form: Form,
}

impl Accept {
    pub const JSON: Accept = Accept { media: Media::Json, form: Form::Object };

    /// The first alternative that is served (by weight, then in order); 406 if there is none. `Form`s of an unknown
    /// group or version are passed over, as is protobuf.
    pub fn parse(headers: &HeaderMap) -> Result<Accept, Status> {
        let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if values.peek().is_none() {
            return Ok(Accept::JSON);
        }
        let mut alternatives: Vec<(f32, Accept)> = values.flat_map(|value| value.split(',')).filter_map(alternative).collect();
        alternatives.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        alternatives.first().map(|(_, accept)| *accept).ok_or_else(not_acceptable)
    }
}

fn alternative(text: &str) -> Option<(f32, Accept)> {
    let mut parts = text.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Media::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Media::Yaml,
        _ => return None,
    };
    let (mut weight, mut kind, mut group, mut version) = (1.0, "", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("q", q)) => weight = q.parse().unwrap_or(1.0),
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    let form = match kind {
        "" => Form::Object,
        "Table" if group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") => Form::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList"
            if group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") =>
        {
            Form::Metadata
        }
        _ => return None,
    };
    Some((weight, Accept { media, form }))
}

fn not_acceptable() -> Status {
    Status::new(
        StatusCode::NOT_ACCEPTABLE,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(accept: &str) -> Result<Accept, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Accept::parse(&headers).map_err(|status| status.code.as_u16())
    }

    #[test]
    fn the_first_served_alternative_is_chosen() {
        let json = |form| Ok(Accept { media: Media::Json, form });
        assert_eq!(Accept::parse(&HeaderMap::new()).unwrap(), Accept::JSON);
        assert_eq!(
            parse(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            json(Form::Table)
        );
        assert_eq!(parse("application/vnd.kubernetes.protobuf,application/json"), json(Form::Object));
        assert_eq!(parse("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), json(Form::Metadata));
        assert_eq!(parse("application/json;as=Table;v=v7;g=meta.k8s.io,application/json"), json(Form::Object));
        assert_eq!(parse("*/*"), json(Form::Object));
        assert_eq!(parse("application/json;q=0.2, application/yaml"), Ok(Accept { media: Media::Yaml, form: Form::Object }));
        assert_eq!(parse("text/html"), Err(406));
    }
}
