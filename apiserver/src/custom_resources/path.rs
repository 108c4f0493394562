//! The JSONPath of printer columns, scale subresources and selectable fields: fields, places in lists, `[*]`, and filters as
//! `[?(@.type=="Ready")]`.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter { path: Vec<Step>, equal: bool, value: Value },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Step>);

impl Path {
    /// As `.spec.replicas`, with or without braces. `Err`: what is wrong with it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text.trim());
        steps(inner.strip_prefix('$').unwrap_or(inner)).map(Path)
    }

    /// The field names, if it has no other steps.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// The first value that it leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        find(&self.0, value)
    }

    /// Writes there, making the objects on the way. Only for paths of fields.
    pub fn set(&self, object: &mut Value, value: Value) {
        let mut place = object;
        for name in self.fields().unwrap_or_default() {
            if !place.is_object() {
                *place = Value::Object(serde_json::Map::new());
            }
            place = &mut place[name];
        }
        *place = value;
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(index) => {
            let items = value.as_array()?;
            let place = if *index < 0 { items.len().checked_sub(index.unsigned_abs() as usize)? } else { *index as usize };
            find(rest, items.get(place)?)
        }
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| find(rest, item)),
            Value::Object(map) => map.values().find_map(|item| find(rest, item)),
            _ => None,
        },
        Step::Filter { path, equal, value: wanted } => {
            let holds = |item: &&Value| find(path, item).is_some_and(|found| (found == wanted) == *equal);
            value.as_array()?.iter().filter(holds).find_map(|item| find(rest, item))
        }
    }
}

fn steps(mut text: &str) -> Result<Vec<Step>, String> {
    let mut all = vec![];
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('.') {
            let end = name_end(rest);
            if end == 0 && !rest.starts_with('[') && !rest.is_empty() {
                return Err(format!("unrecognized character in action: {:?}", rest.chars().next().unwrap_or('.')));
            }
            match &rest[..end] {
                "" => {}
                "*" => all.push(Step::All),
                name => all.push(Step::Field(name.replace("\\.", "."))),
            }
            text = &rest[end..];
        } else if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest).ok_or("unterminated array")?;
            all.push(bracket(&rest[..end])?);
            text = &rest[end + 1..];
        } else {
            return Err(format!("invalid path: must begin with a dot: {text:?}"));
        }
    }
    Ok(all)
}

/// Up to the next dot or bracket that no backslash precedes.
fn name_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|at| matches!(bytes[*at], b'.' | b'[') && (*at == 0 || bytes[*at - 1] != b'\\')).unwrap_or(bytes.len())
}

/// Where the bracket ends that has just begun.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" || inner == ":" {
        return Ok(Step::All);
    }
    if let Some(name) = quoted(inner) {
        return Ok(Step::Field(name.replace("\\.", ".")));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        let (path, equal, value) = match (filter.split_once("=="), filter.split_once("!=")) {
            (Some((path, value)), _) => (path, true, value),
            (None, Some((path, value))) => (path, false, value),
            (None, None) => return Err(format!("unrecognized filter: {filter}")),
        };
        let path = path.trim().strip_prefix('@').ok_or_else(|| format!("unrecognized filter: {filter}"))?;
        let value = value.trim();
        let value = match quoted(value) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(value).map_err(|_| format!("unrecognized filter: {filter}"))?,
        };
        return Ok(Step::Filter { path: steps(path)?, equal, value });
    }
    inner.parse().map(Step::Index).map_err(|_| format!("invalid array index {inner}"))
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({"spec": {"replicas": 3, "a.b": "dot", "list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]}});
        let first = |path: &str| Path::parse(path).unwrap().first(&object).cloned();
        assert_eq!(first(".spec.replicas"), Some(json!(3)));
        assert_eq!(first("{.spec.list[1].n}"), Some(json!(2)));
        assert_eq!(first(".spec.list[-1].n"), Some(json!(2)));
        assert_eq!(first(".spec.list[*].n"), Some(json!(1)));
        assert_eq!(first(".spec['a.b']"), Some(json!("dot")));
        assert_eq!(first(".spec.a\\.b"), Some(json!("dot")));
        assert_eq!(first(r#".status.conditions[?(@.type=="Ready")].status"#), Some(json!("True")));
        assert_eq!(first(".spec.none.x"), None);
        assert!(Path::parse("spec").is_err() && Path::parse(".a[").is_err() && Path::parse(".a[x]").is_err());
        let mut made = json!({});
        Path::parse(".spec.replicas").unwrap().set(&mut made, json!(1));
        assert_eq!(made, json!({"spec": {"replicas": 1}}));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[.a\\[\\]'\"*?(@=) 0-9{}$\\\\-]{0,40}") {
            if let Ok(path) = Path::parse(&text) {
                path.first(&json!({"a": [{"a": 1}]}));
            }
        }
    }
}
