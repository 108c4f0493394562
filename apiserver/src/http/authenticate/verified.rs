//! Tokens that were verified a moment ago: a signature is not checked again for each of a client's requests.
//!
//! What a token depends on is looked at each time: its end, and whether the objects that it is bound to are still just
//! those that were looked at.

use super::Known;
use crate::stored::Snapshot;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// As long as kube-apiserver keeps them.
const LIFE: SignedDuration = SignedDuration::from_secs(10);
/// As many as one server has callers in ten seconds; beyond that all are verified anew.
const KEPT_MAX: usize = 20_000;

type Hash = [u8; 32];

#[derive(Default)]
pub struct Verified(Mutex<HashMap<Hash, (Timestamp, Known)>>);

/// Neither tokens nor parts of them are kept.
pub(super) fn hash(token: &str, audiences: &[String]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(token);
    for audience in audiences {
        hash.update([0]);
        hash.update(audience);
    }
    hash.finalize().into()
}

impl Verified {
    pub(super) fn find(&self, hash: &Hash, snapshot: &Snapshot, now: Timestamp) -> Option<Known> {
        let kept = self.0.lock();
        let (at, known) = kept.get(hash)?;
        let young = (SignedDuration::ZERO..LIFE).contains(&now.duration_since(*at));
        let ended = known.until.is_some_and(|until| until <= now);
        let same = |(key, revision): &(String, i64)| {
            snapshot.objects.get(key.as_str()).is_some_and(|entry| entry.mod_revision == *revision)
        };
        (young && !ended && known.bound.iter().all(same)).then(|| known.clone())
    }

    pub(super) fn keep(&self, hash: Hash, known: &Known, now: Timestamp) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| now.duration_since(*at) < LIFE);
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
        }
        kept.insert(hash, (now, known.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_counts_for_ten_seconds_and_not_beyond_the_tokens_end() {
        let (verified, snapshot) = (Verified::default(), Snapshot { revision: 0, objects: Default::default() });
        let at = |second| Timestamp::from_second(second).unwrap();
        let known = Known { until: Some(at(105)), ..Known::default() };
        verified.keep(hash("t", &[]), &known, at(100));
        let found = |token, second| verified.find(&hash(token, &[]), &snapshot, at(second)).is_some();
        assert!(found("t", 104) && !found("t", 105) && !found("u", 104) && !found("t", 99));
        verified.keep(hash("long", &[]), &Known::default(), at(100));
        assert!(found("long", 109) && !found("long", 110));
        let bound = Known { bound: vec![("/core/pods/a/b".into(), 3)], ..Known::default() };
        verified.keep(hash("bound", &[]), &bound, at(100));
        assert!(!found("bound", 100), "what it is bound to is gone");
        assert_ne!(hash("t", &["a".into()]), hash("t", &[]));
    }
}
