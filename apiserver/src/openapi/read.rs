//! Reads bytes that are JSON or YAML, within limits of depth and number, and notes which fields stand twice.

use crate::stack::with_stack;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Objects within objects. Kubernetes' own limit is higher, and no type of the API comes near this.
pub(crate) const DEPTH_MAX: usize = 100;
/// What reading YAML takes for each of them, in a debug build.
const YAML_STACK: usize = DEPTH_MAX * 160 * 1024;
/// Values in one body: in memory each takes many times the two bytes that it may take in the body, and more with what a kind
/// fills in. As many as YAML's reader lets through.
pub(super) const VALUES_MAX: usize = 250_000;
/// More warnings help nobody.
const DUPLICATES_MAX: usize = 50;

pub(super) fn read_json(body: &[u8], duplicates: &RefCell<Vec<String>>) -> Result<Value, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let (note, values) = (|path: &Path, again: bool| note_duplicate(duplicates, path, again), Cell::new(0));
    let value = Reader { path: &Path::Root, note: &note, values: &values }.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        let why = match error.classify() {
            serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
            _ => error.to_string(),
        };
        format!("couldn't get version/kind; json parse error: {why}")
    })
}

pub(super) fn read_yaml(body: &[u8], duplicates: &RefCell<Vec<String>>) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    let read = || {
        let options = serde_saphyr::options! {
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
            budget: serde_saphyr::budget! { max_depth: DEPTH_MAX + 1 },
            // Errors are told to others than the client too, and what it sent may be secret.
            with_snippet: false,
        };
        let duplicates = RefCell::new(vec![]);
        let note = |path: &Path, again: bool| note_duplicate(&duplicates, path, again);
        let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            Reader { path: &Path::Root, note: &note, values: &Cell::new(0) }.deserialize(deserializer)
        });
        value.map_err(|error| format!("yaml: {error}")).map(|value| (value, duplicates.take()))
    };
    let (value, found) = with_stack(YAML_STACK, read).map_err(|error| format!("yaml: {error}")).flatten()?;
    duplicates.borrow_mut().extend(found);
    Ok(value)
}

fn note_duplicate(duplicates: &RefCell<Vec<String>>, path: &Path, again: bool) {
    if again {
        let mut duplicates = duplicates.borrow_mut();
        let note = format!("duplicate field \"{path}\"");
        if duplicates.len() < DUPLICATES_MAX && !duplicates.contains(&note) {
            duplicates.push(note);
        }
    }
}

/// What was found in a body that is JSON, in its order. Of a field that is unknown it does not matter how often it stands there.
pub(super) fn in_document_order(body: &[u8], found: &[String]) -> Vec<String> {
    let ordered = RefCell::new(vec![]);
    let note = |path: &Path, again: bool| {
        let unknown = format!("unknown field \"{path}\"");
        let finding = if !again || found.contains(&unknown) { unknown } else { format!("duplicate field \"{path}\"") };
        let mut ordered = ordered.borrow_mut();
        if found.contains(&finding) && !ordered.contains(&finding) {
            ordered.push(finding);
        }
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match (Reader { path: &Path::Root, note: &note, values: &Cell::new(0) }).deserialize(&mut deserializer) {
        Ok(_) => ordered.into_inner(),
        Err(_) => found.to_vec(),
    }
}

/// Reads a body that is JSON or YAML, whichever it is, and what stands twice in it.
pub(crate) fn read_document(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let duplicates = RefCell::new(vec![]);
    if body.first() == Some(&b'{')
        && let Ok(value) = read_json(body, &duplicates)
    {
        return Ok((value, duplicates.into_inner()));
    }
    duplicates.borrow_mut().clear();
    let value = read_yaml(body, &duplicates)?;
    Ok((value, duplicates.into_inner()))
}

/// The same of a body that is YAML.
pub(crate) fn read_yaml_document(body: &[u8]) -> Result<Value, String> {
    read_yaml(body, &RefCell::new(vec![]))
}

/// The same of a body that is JSON.
pub(crate) fn read_json_document(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let duplicates = RefCell::new(vec![]);
    let value = read_json(body, &duplicates)?;
    Ok((value, duplicates.into_inner()))
}

/// Where the reader is: a list whose head is the innermost step.
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn depth(&self) -> usize {
        match self {
            Path::Root => 0,
            Path::Field(outer, _) | Path::Item(outer, _) => outer.depth() + 1,
        }
    }

    fn within(&self) -> bool {
        self.depth() <= DEPTH_MAX
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(outer, name) => write!(f, "{outer}.{name}"),
            Path::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

/// Reads a value and tells of each key, and whether it has stood in its object before. The last one counts.
struct Reader<'r> {
    path: &'r Path<'r>,
    note: &'r dyn Fn(&Path, bool),
    /// How many have been read.
    values: &'r Cell<usize>,
}

impl<'r> Reader<'r> {
    fn at(&self, path: &'r Path<'r>) -> Self {
        Reader { path, ..*self }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > VALUES_MAX {
            return Err(D::Error::custom(format!("there are more than {VALUES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        if !self.path.within() {
            return Err(A::Error::custom("exceeded max depth"));
        }
        let mut list = vec![];
        while let Some(item) = items.next_element_seed(self.at(&Path::Item(self.path, list.len())))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        if !self.path.within() {
            return Err(A::Error::custom("exceeded max depth"));
        }
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            (self.note)(&path, map.contains_key(&key));
            let value = entries.next_value_seed(self.at(&path))?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
