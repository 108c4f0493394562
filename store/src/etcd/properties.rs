//! Whatever a client asks, it is answered or refused; and nothing but the face's own keys is read or changed.

use super::proto::{
    Compare, DeleteRangeRequest, KvService, PutRequest, RangeRequest, Request as Op, RequestOp, TargetUnion, TxnRequest,
};
use super::{Face, Options, kv};
use crate::memory::Memory;
use crate::{Change, Expect, Store, Write};
use proptest::prelude::*;
use proptest::sample::select;
use tonic::Request;

const OBJECT: &str = "/core/secrets/default/s";

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(select(vec![0u8, 1, b'a', b'/', 0xff]), 0..5),
        select(vec![OBJECT.as_bytes().to_vec(), b"/core/".to_vec(), b"\0".to_vec()]),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![-2..20i64, select(vec![i64::MIN, i64::MAX])]
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let numbers = (number(), number(), number(), number(), number(), number());
    (key(), key(), numbers, -1..5i32, -1..7i32, any::<bool>(), any::<bool>()).prop_map(
        |(key, range_end, (limit, revision, a, b, c, d), sort_order, sort_target, keys_only, count_only)| RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision: a,
            max_mod_revision: b,
            min_create_revision: c,
            max_create_revision: d,
            ..RangeRequest::default()
        },
    )
}

fn put() -> impl Strategy<Value = PutRequest> {
    (key(), key(), number(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), key(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest { key, range_end, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = prop_oneof![
        number().prop_map(TargetUnion::ModRevision),
        number().prop_map(TargetUnion::Version),
        key().prop_map(TargetUnion::Value)
    ];
    (key(), key(), -1..5i32, -1..6i32, prop::option::of(union))
        .prop_map(|(key, range_end, result, target, target_union)| Compare { key, range_end, result, target, target_union })
}

fn transaction() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        range().prop_map(Op::RequestRange),
        put().prop_map(Op::RequestPut),
        delete().prop_map(Op::RequestDeleteRange)
    ];
    let of = |ops: Vec<Option<Op>>| ops.into_iter().map(|request| RequestOp { request }).collect::<Vec<_>>();
    let flat = (
        prop::collection::vec(compare(), 0..3),
        prop::collection::vec(prop::option::weighted(0.9, op.clone()), 0..4),
        prop::collection::vec(prop::option::weighted(0.9, op), 0..4),
    );
    let flat =
        flat.prop_map(move |(compare, success, failure)| TxnRequest { compare, success: of(success), failure: of(failure) });
    flat.prop_recursive(3, 12, 2, |inner| {
        (inner.clone(), inner).prop_map(|(mut outer, inner)| {
            outer.success.push(RequestOp { request: Some(Op::RequestTxn(inner)) });
            outer
        })
    })
}

#[derive(Debug, Clone)]
enum Asked {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        range().prop_map(Asked::Range),
        put().prop_map(Asked::Put),
        delete().prop_map(Asked::Delete),
        transaction().prop_map(Asked::Txn)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 1000 }))]

    #[test]
    fn any_request_is_answered_or_refused(all in prop::collection::vec(asked(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Memory::new();
            let value = bytes::Bytes::from_static(b"{\"data\":1}");
            store.write(Write { key: OBJECT.into(), expect: Expect::Absent, change: Change::Put(value.clone()) }).await.unwrap();
            let face = Face::start(store.clone(), Options::default()).await.unwrap();
            let kv = kv::Kv(face.shared.clone());
            for asked in all {
                match asked {
                    Asked::Range(request) => {
                        if let Ok(response) = kv.range(Request::new(request)).await {
                            assert!(response.into_inner().kvs.iter().all(|kv| kv.value != value));
                        }
                    }
                    Asked::Put(request) => drop(kv.put(Request::new(request)).await),
                    Asked::Delete(request) => drop(kv.delete_range(Request::new(request)).await),
                    Asked::Txn(request) => drop(kv.txn(Request::new(request)).await),
                }
            }
            assert_eq!(store.get(OBJECT, None).await.unwrap().unwrap().value, value);
        });
    }
}
