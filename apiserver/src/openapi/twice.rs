//! Which keys stand twice in a YAML document, and in which lines, as Kubernetes' reader tells it.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::HashSet;
use std::fmt;

/// More than these help nobody.
const TWICE_MAX: usize = 50;

/// As `line 11: key "foo" already set in map`.
pub fn keys(body: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(body) else { return vec![] };
    let mut twice = vec![];
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough };
    // What cannot be read was refused before.
    let _ = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Keys { twice: &mut twice }.deserialize(deserializer)
    });
    twice
}

struct Keys<'k> {
    twice: &'k mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Keys { twice: self.twice })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            if seen.contains(&key.value) && self.twice.len() < TWICE_MAX {
                self.twice.push(format!("line {}: key {:?} already set in map", key.referenced.line(), key.value));
            }
            seen.insert(key.value);
            if self.twice.len() < TWICE_MAX {
                entries.next_value_seed(Keys { twice: self.twice })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn the_line_of_the_second_is_told() {
        let text = "a: 1\nb:\n  - c: {d: 1}\n    c: 2\n  - c: 1\na: 2\n";
        assert_eq!(keys(text.as_bytes()), ["line 4: key \"c\" already set in map", "line 6: key \"a\" already set in map"]);
        assert_eq!(keys(b"{\"a\": 1, \"a\": 2}"), ["line 1: key \"a\" already set in map"]);
        assert!(keys(b"a: [1, {b: c}]\n").is_empty() && keys(b"a: [").is_empty());
    }
}
