//! Sets of places in an object: which fields somebody owns, or which ones a write changes.

use super::element::Element;
use std::cmp::Ordering;
use std::fmt;

/// Places below one place, in the order of their elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<Node>,
}

/// A place that is in the set, or has places below it that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub element: Element,
    /// Whether the place itself is in the set.
    pub member: bool,
    pub below: Set,
}

impl Set {
    pub const EMPTY: &'static Set = &Set { nodes: vec![] };

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds what lies below an element that is not in the set yet, if it is anything. `sort` must follow.
    pub(super) fn push(&mut self, element: Element, member: bool, below: Set) {
        if member || !below.is_empty() {
            self.nodes.push(Node { element, member, below });
        }
    }

    /// Sorts what was pushed. Most objects come in order already.
    pub(super) fn sort(&mut self) {
        if !self.nodes.is_sorted_by(|one, other| one.element < other.element) {
            self.nodes.sort_unstable_by(|one, other| one.element.cmp(&other.element));
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Node) -> bool) {
        self.nodes.retain_mut(|node| keep(node) && (node.member || !node.below.is_empty()));
    }

    pub fn get(&self, element: &Element) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        self.nodes.get(at)
    }

    /// What lies below an element.
    pub fn below(&self, element: &Element) -> &Set {
        self.get(element).map_or(Set::EMPTY, |node| &node.below)
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.below(first).has(rest),
        }
    }

    pub fn insert(&mut self, path: &[Element]) {
        let [first, rest @ ..] = path else { return };
        let at = match self.nodes.binary_search_by(|node| node.element.cmp(first)) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { element: first.clone(), member: false, below: Set::default() });
                at
            }
        };
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].below.insert(rest);
        }
    }

    /// Of one path of fields.
    pub fn of_fields(names: &[&str]) -> Set {
        let mut set = Set::default();
        set.insert(&names.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
        set
    }

    pub fn union(&self, other: &Set) -> Set {
        join(self, other, |one, other| match (one, other) {
            (Some(one), Some(other)) => (one.member || other.member, one.below.union(&other.below)),
            (Some(one), None) | (None, Some(one)) => (one.member, one.below.clone()),
            (None, None) => (false, Set::default()),
        })
    }

    pub fn intersection(&self, other: &Set) -> Set {
        join(self, other, |one, other| match (one, other) {
            (Some(one), Some(other)) => (one.member && other.member, one.below.intersection(&other.below)),
            _ => (false, Set::default()),
        })
    }

    pub fn difference(&self, other: &Set) -> Set {
        join(self, other, |one, other| match (one, other) {
            (Some(one), Some(other)) => (one.member && !other.member, one.below.difference(&other.below)),
            (Some(one), None) => (one.member, one.below.clone()),
            (None, _) => (false, Set::default()),
        })
    }

    /// Whether both have a place in common.
    pub fn meets(&self, other: &Set) -> bool {
        let (mut one, mut two) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        while let (Some(left), Some(right)) = (one.peek(), two.peek()) {
            match left.element.cmp(&right.element) {
                Ordering::Less => _ = one.next(),
                Ordering::Greater => _ = two.next(),
                Ordering::Equal => {
                    if left.member && right.member || left.below.meets(&right.below) {
                        return true;
                    }
                    one.next();
                    two.next();
                }
            }
        }
        false
    }

    /// Calls `each` with every place: those of one depth before those below them.
    pub fn for_each(&self, each: &mut impl FnMut(&[&Element])) {
        fn visit<'s>(set: &'s Set, path: &mut Vec<&'s Element>, each: &mut impl FnMut(&[&Element])) {
            for node in set.nodes.iter().filter(|node| node.member) {
                path.push(&node.element);
                each(path);
                path.pop();
            }
            for node in &set.nodes {
                path.push(&node.element);
                visit(&node.below, path, each);
                path.pop();
            }
        }
        visit(self, &mut vec![], each);
    }
}

/// Goes through both sets in order; `decide` says what is to be had of an element.
fn join(one: &Set, other: &Set, mut decide: impl FnMut(Option<&Node>, Option<&Node>) -> (bool, Set)) -> Set {
    let mut joined = Set { nodes: Vec::with_capacity(one.nodes.len().max(other.nodes.len())) };
    let (mut one, mut two) = (one.nodes.iter().peekable(), other.nodes.iter().peekable());
    loop {
        let (left, right) = match (one.peek(), two.peek()) {
            (None, None) => return joined,
            (Some(_), None) => (one.next(), None),
            (None, Some(_)) => (None, two.next()),
            (Some(left), Some(right)) => match left.element.cmp(&right.element) {
                Ordering::Less => (one.next(), None),
                Ordering::Greater => (None, two.next()),
                Ordering::Equal => (one.next(), two.next()),
            },
        };
        let Some(node) = left.or(right) else { return joined };
        let (member, below) = decide(left, right);
        joined.push(node.element.clone(), member, below);
    }
}

/// A path a line.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![];
        self.for_each(&mut |path| lines.push(show(path)));
        f.write_str(&lines.join("\n"))
    }
}

/// A path as a conflict shows it.
pub fn show(path: &[&Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn paths() -> impl Strategy<Value = Vec<Vec<Element>>> {
        let element = prop_oneof![
            "[a-c]".prop_map(|name| Element::field(&name)),
            (0..2i64).prop_map(|value| Element::key(vec![("k".into(), json!(value))])),
            (0..2i64).prop_map(|value| Element::Item(json!(value))),
        ];
        prop::collection::vec(prop::collection::vec(element, 1..4), 0..12)
    }

    fn set(paths: &[Vec<Element>]) -> Set {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(one in paths(), two in paths(), probe in paths()) {
            let (a, b) = (set(&one), set(&two));
            for path in one.iter().chain(&two).chain(&probe) {
                prop_assert_eq!(a.has(path), one.contains(path));
                prop_assert_eq!(a.union(&b).has(path), a.has(path) || b.has(path));
                prop_assert_eq!(a.intersection(&b).has(path), a.has(path) && b.has(path));
                prop_assert_eq!(a.difference(&b).has(path), a.has(path) && !b.has(path));
            }
            prop_assert_eq!(a.meets(&b), !a.intersection(&b).is_empty());
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert_eq!(fields::read(&fields::write(&a)).unwrap(), a);
        }
    }

    #[test]
    fn shallow_places_are_told_before_deep_ones() {
        let set = fields::read(&json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}, "k:{\"n\":1}": {"v:2": {}}})).unwrap();
        assert_eq!(set.to_string(), ".a\n.b\n.a.x\n[n=1][=2]");
    }
}
