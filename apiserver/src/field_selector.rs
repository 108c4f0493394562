//! Field selectors: `metadata.name=web,spec.nodeName!=n1`.

use crate::http::error::Status;
use crate::kind::Strategy;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// 400 for what cannot be read and for fields that the kind does not offer.
    pub fn parse(text: &str, strategy: &dyn Strategy) -> Result<Self, Status> {
        let mut requirements = vec![];
        for term in split_terms(text) {
            let requirement = parse_term(&term)
                .ok_or_else(|| Status::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            check(&requirement.field, strategy)?;
            requirements.push(requirement);
        }
        Ok(FieldSelector { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn len(&self) -> usize {
        self.requirements.len()
    }

    /// The name that alone can match, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    pub fn namespace(&self) -> Option<&str> {
        self.exact("metadata.namespace")
    }

    fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// `fields` are those of `Strategy::selectable_fields`; one that is absent counts as empty.
    pub fn matches(&self, namespace: &str, name: &str, fields: &[(&'static str, String)]) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = match requirement.field.as_str() {
                "metadata.name" => name,
                "metadata.namespace" => namespace,
                field => fields.iter().find(|(known, _)| *known == field).map_or("", |(_, value)| value.as_str()),
            };
            (value == requirement.value) == requirement.equal
        })
    }
}

/// The value that a selector demands of a field, whatever kind it is for; `None` too for what cannot be read. Rights are
/// decided by it, so it must see in the text just what the selection sees.
pub fn required(text: &str, field: &str) -> Option<String> {
    let terms: Option<Vec<Requirement>> = split_terms(text).iter().map(|term| parse_term(term)).collect();
    terms?.into_iter().find(|term| term.equal && term.field == field).map(|term| term.value)
}

fn check(field: &str, strategy: &dyn Strategy) -> Result<(), Status> {
    if matches!(field, "metadata.name" | "metadata.namespace") || strategy.selectable().contains(&field) {
        return Ok(());
    }
    Err(Status::bad_request(if strategy.selectable().is_empty() {
        format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => terms.push(String::new()),
            _ => terms.last_mut().expect("there is always a term").push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    terms.retain(|term| !term.is_empty());
    terms
}

fn parse_term(term: &str) -> Option<Requirement> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==") {
        (true, value)
    } else {
        (true, rest.strip_prefix('=')?)
    };
    Some(Requirement { field: field.to_owned(), value: unescape(value)?, equal })
}

/// `\\`, `\,` and `\=` stand for themselves; a bare `=` or any other escape is an error.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Builtin;
    use proptest::prelude::*;
    use slipway_api::core::ConfigMap;

    fn parse(text: &str) -> Result<FieldSelector, String> {
        FieldSelector::parse(text, &Builtin::<ConfigMap>::new()).map_err(|status| status.message)
    }

    #[test]
    fn requirements() {
        let selector = parse("metadata.name==web,metadata.namespace!=kube-system").unwrap();
        assert_eq!(selector.name(), Some("web"));
        assert!(selector.matches("default", "web", &[]));
        assert!(!selector.matches("kube-system", "web", &[]));
        assert!(!selector.matches("default", "other", &[]));
        assert_eq!(parse(r"metadata.name=a\,b\=c\\").unwrap().name(), Some(r"a,b=c\"));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(parse("metadata.name").unwrap_err(), "invalid selector: 'metadata.name'; can't understand 'metadata.name'");
        assert_eq!(
            parse("spec.nodeName=x").unwrap_err(),
            "\"spec.nodeName\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert!(parse(r"metadata.name=a\b").is_err());
        assert!(parse("metadata.name=a=b").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") { let _ = parse(&text); }

        #[test]
        fn never_panics_on_likely_text(text in "(metadata\\.name|[=!,\\\\a])*") { let _ = parse(&text); }
    }
}
