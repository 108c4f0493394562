//! Where the face's keys are in the store, and what a value carries besides itself.
//!
//! etcd's keys are bytes, the store's are text. Each byte becomes one or two characters so that the order stays and what
//! is printable ASCII can be read in SQL: `/etcd/registry/pods/default/web`.

use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// What the users' keys begin with.
pub(super) const PREFIX: &str = "/etcd/";
/// The least text that is greater than each of the users' keys.
const PAST: &str = "/etcd0";
/// Written as the first of a transaction's changes if there are several: how many follow that share a revision.
pub(super) const TRANSACTION: &str = "/etcd!transaction";
/// What the users have compacted up to.
pub(super) const COMPACTED: &str = "/etcd!compacted";
pub(super) const CLUSTER_ID: &str = "/etcd!cluster-id";
pub(super) const LEASES: &str = "/etcd!lease/";
/// From and to all that is the face's.
pub(super) const ALL: (&str, &str) = ("/etcd!", PAST);
/// The longest key, as it is stored: what is longer has no room in an index of Postgres.
pub(super) const KEY_BYTES_MAX: usize = 2_048;

/// Bytes 0 and 1 become U+0001 and another, since Postgres' text has no U+0000; all others become their character.
fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        match byte {
            0 => text.push_str("\u{1}\u{1}"),
            1 => text.push_str("\u{1}\u{2}"),
            _ => text.push(char::from(*byte)),
        }
    }
}

pub(super) fn stored(key: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + key.len());
    text.push_str(PREFIX);
    escape(key, &mut text);
    text
}

/// The user's key, if this is one.
pub(super) fn original(stored: &str) -> Option<Vec<u8>> {
    let mut characters = stored.strip_prefix(PREFIX)?.chars();
    let mut key = Vec::with_capacity(stored.len() - PREFIX.len());
    while let Some(character) = characters.next() {
        key.push(match character {
            '\u{1}' => u8::try_from(characters.next()?).ok()?.checked_sub(1)?,
            _ => u8::try_from(character).ok()?,
        });
    }
    Some(key)
}

/// Stored keys from `start` (inclusive) to `end` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Arc<str>,
    pub(super) end: Arc<str>,
}

impl Span {
    /// As etcd reads them: no `range_end` is the one key, a zero byte is all keys from `key` on.
    pub(super) fn new(key: &[u8], range_end: &[u8]) -> Span {
        let start = stored(key);
        match range_end {
            [] => Span::one(&start),
            [0] => Span { start: start.into(), end: PAST.into() },
            _ => Span { start: start.into(), end: stored(range_end).into() },
        }
    }

    pub(super) fn one(stored: &str) -> Span {
        Span { start: stored.into(), end: format!("{stored}\u{1}").into() }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        &*self.start <= key && key < &*self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// What is stored: the lease, and how many changes of the same transaction come after this one, before the user's value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) value: Bytes,
    /// 0 for none.
    pub(super) lease: i64,
    pub(super) tail: u32,
}

const HAS_LEASE: u8 = 1;
const HAS_TAIL: u8 = 2;

impl Value {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.value.len() + 13);
        let flag = |condition: bool, flag: u8| if condition { flag } else { 0 };
        bytes.put_u8(flag(self.lease != 0, HAS_LEASE) | flag(self.tail != 0, HAS_TAIL));
        if self.lease != 0 {
            bytes.put_i64(self.lease);
        }
        if self.tail != 0 {
            bytes.put_u32(self.tail);
        }
        bytes.put_slice(&self.value);
        bytes.freeze()
    }

    /// What somebody else has written there is taken as it is.
    pub(super) fn decode(stored: &Bytes) -> Value {
        let mut value = stored.clone();
        let mut take = |length: usize| (value.len() >= length).then(|| value.split_to(length));
        let decoded = (|| {
            let flags = take(1)?[0];
            let lease = if flags & HAS_LEASE != 0 { i64::from_be_bytes(take(8)?[..].try_into().ok()?) } else { 0 };
            let tail = if flags & HAS_TAIL != 0 { u32::from_be_bytes(take(4)?[..].try_into().ok()?) } else { 0 };
            Some((lease, tail))
        })();
        match decoded {
            Some((lease, tail)) => Value { value, lease, tail },
            None => Value { value: stored.clone(), ..Value::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_come_back_and_keep_their_order(a in key(), b in key()) {
            prop_assert_eq!(original(&stored(&a)), Some(a.clone()));
            prop_assert_eq!(a.cmp(&b), stored(&a).cmp(&stored(&b)));
            prop_assert!(!stored(&a).contains('\0'));
            prop_assert!(Span::new(b"\0", b"\0").contains(&stored(&a)));
            prop_assert_eq!(Span::new(&a, b"").contains(&stored(&b)), a == b);
            prop_assert_eq!(Span::new(&a, b"\0").contains(&stored(&b)), b >= a);
            prop_assert!(crate::is_foreign(&stored(&a)));
        }

        #[test]
        fn values_come_back(value in any::<Vec<u8>>(), lease in any::<i64>(), tail in any::<u32>()) {
            let value = Value { value: value.into(), lease, tail };
            prop_assert_eq!(Value::decode(&value.encode()), value);
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Few different bytes, so that keys often begin alike.
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(b'a'), Just(b'/'), Just(0x80), Just(0xff)], 1..5)
    }

    #[test]
    fn the_faces_own_keys_are_out_of_reach() {
        let all = Span::new(b"\0", b"\0");
        for own in [TRANSACTION, COMPACTED, CLUSTER_ID, LEASES, "/core/pods/default/web"] {
            assert!(!all.contains(own), "{own}");
        }
        assert_eq!(stored(b"/registry/pods/default/web"), "/etcd//registry/pods/default/web");
    }
}
