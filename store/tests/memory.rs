//! The twin in memory keeps the contract, and does what a plain model does.

// Helpers of tests are tests too, which clippy does not see.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use slipway_store::contract::{self, delete, put};
use slipway_store::memory::Memory;
use slipway_store::{Expect, Range, Revision, Store, Write};
use std::collections::BTreeMap;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    contract::all(&|| {
        let store: Arc<dyn Store> = Memory::new();
        Box::pin(async move { (store.clone(), store) })
    })
    .await;
}

/// Every state there ever was, by its revision: key to (mod_revision, value).
type Model = Vec<BTreeMap<String, (Revision, String)>>;

#[derive(Debug, Clone)]
enum Step {
    Write(Write),
    Compact(Revision),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expect = prop_oneof![Just(Expect::Any), Just(Expect::Absent), (0i64..40).prop_map(Expect::Revision)];
    let write = (0u8..4, expect, any::<Option<u8>>()).prop_map(|(key, expect, value)| {
        let key = format!("/{key}");
        Step::Write(value.map_or_else(|| delete(&key, expect), |value| put(&key, expect, value.to_string())))
    });
    proptest::collection::vec(prop_oneof![9 => write, 1 => (0i64..40).prop_map(Step::Compact)], 1..60)
}

fn apply(model: &mut Model, write: &Write) -> bool {
    let mut state = model.last().unwrap().clone();
    let revision = model.len() as Revision;
    let current = state.get(&*write.key).map(|(revision, _)| *revision);
    let expected = match write.expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(expected) => current == Some(expected),
    };
    let value = match &write.change {
        slipway_store::Change::Put(value) => Some(String::from_utf8(value.to_vec()).unwrap()),
        slipway_store::Change::Delete => None,
    };
    if !expected || (value.is_none() && current.is_none()) {
        return false;
    }
    match value {
        Some(value) => state.insert(write.key.to_string(), (revision, value)),
        None => state.remove(&*write.key),
    };
    model.push(state);
    true
}

proptest! {
    #[test]
    fn does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Memory::new();
            let mut model: Model = vec![BTreeMap::new()];
            let mut oldest = 0;
            for step in steps {
                match step {
                    Step::Write(write) => assert_eq!(store.write(write.clone()).await.is_ok(), apply(&mut model, &write)),
                    Step::Compact(at) => {
                        let may = at >= oldest && at < model.len() as Revision;
                        assert_eq!(store.compact(at).await.is_ok(), may);
                        oldest = if may { at } else { oldest };
                    }
                }
            }
            for (at, state) in model.iter().enumerate() {
                let range = Range { start: "/".into(), end: "0".into(), at: Some(at as Revision), limit: 0 };
                let page = store.range(range).await;
                if (at as Revision) < oldest {
                    assert!(page.is_err() && store.watch(at as Revision).await.is_err());
                    continue;
                }
                let found: BTreeMap<_, _> = page.unwrap().records.into_iter().map(|record| {
                    let value = String::from_utf8(record.value.to_vec()).unwrap();
                    (record.key.to_string(), (record.mod_revision, value))
                }).collect();
                assert_eq!(&found, state);
                assert!(store.watch(at as Revision).await.is_ok());
            }
        });
    }
}
