//! The KV service.

use super::keys::{self, Span, Value};
use super::proto::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, KvService, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, Request as Op, RequestOp, Response as Done, TxnRequest, TxnResponse,
};
use super::read::View;
use super::{Shared, check, errors, leases, txn};
use crate::{Change, Error, Expect, Write};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct Kv(pub(super) Arc<Shared>);

impl Kv {
    /// A single operation as the only one of a transaction.
    async fn alone(&self, op: Op) -> Result<(Done, i64), Status> {
        let request = TxnRequest { compare: vec![], success: vec![RequestOp { request: Some(op) }], failure: vec![] };
        let (response, revision) = txn::run(self.0.store.as_ref(), self.0.floor(), &request).await?;
        let done = response.responses.into_iter().next().and_then(|op| op.response);
        Ok((done.ok_or_else(|| Status::internal("etcdserver: no answer"))?, revision))
    }
}

#[async_trait]
impl KvService for Kv {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request)?;
        let store = self.0.store.as_ref();
        let (mut response, revision) = if request.revision > 0 {
            let newest = store.revision().await.map_err(errors::status)?;
            (txn::range_at(store, self.0.floor(), newest, &request).await?, newest)
        } else {
            let mut view = View::new(store);
            let response = view.range(&request).await?;
            (response, view.revision().await.map_err(errors::status)?)
        };
        response.header = Some(self.0.header(revision));
        Ok(Response::new(response))
    }

    type RangeStreamStream = BoxStream<'static, Result<RangeStreamResponse, Status>>;

    async fn range_stream(&self, _: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("unknown method RangeStream for service etcdserverpb.KV"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request)?;
        check::size(&request)?;
        let is_plain = !request.prev_kv && !request.ignore_value && !request.ignore_lease && request.lease == 0;
        if is_plain {
            let value = Value { value: request.value.into(), ..Value::default() };
            let write =
                Write { key: keys::stored(&request.key).into(), expect: Expect::Any, change: Change::Put(value.encode()) };
            let revision = self.0.store.write(write).await.map_err(errors::status)?;
            return Ok(Response::new(PutResponse { header: Some(self.0.header(revision)), prev_kv: None }));
        }
        match self.alone(Op::RequestPut(request)).await? {
            (Done::ResponsePut(put), revision) => Ok(Response::new(PutResponse { header: Some(self.0.header(revision)), ..put })),
            _ => Err(Status::internal("etcdserver: another's answer")),
        }
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete_range(&request)?;
        let store = self.0.store.as_ref();
        if !request.prev_kv && request.range_end.is_empty() {
            let key = Span::new(&request.key, &[]).start;
            let (deleted, revision) = match store.write(Write { key, expect: Expect::Any, change: Change::Delete }).await {
                Ok(revision) => (1, revision),
                Err(Error::NotFound) => (0, store.revision().await.map_err(errors::status)?),
                Err(error) => return Err(errors::status(error)),
            };
            let header = Some(self.0.header(revision));
            return Ok(Response::new(DeleteRangeResponse { header, deleted, prev_kvs: vec![] }));
        }
        match self.alone(Op::RequestDeleteRange(request)).await? {
            (Done::ResponseDeleteRange(delete), revision) => {
                Ok(Response::new(DeleteRangeResponse { header: Some(self.0.header(revision)), ..delete }))
            }
            _ => Err(Status::internal("etcdserver: another's answer")),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request)?;
        check::size(&request)?;
        let (mut response, revision) = txn::run(self.0.store.as_ref(), self.0.floor(), &request).await?;
        response.header = Some(self.0.header(revision));
        Ok(Response::new(response))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let asked = request.into_inner().revision;
        let revision = leases::compact(self.0.store.as_ref(), self.0.leases.compacted(), asked).await?;
        // The next request to this replica finds it compacted.
        self.0.leases.catch_up().await?;
        Ok(Response::new(CompactionResponse { header: Some(self.0.header(revision)) }))
    }
}
