//! The Lease service.

use super::Shared;
use super::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseService, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct Leases(pub(super) Arc<Shared>);

#[async_trait]
impl LeaseService for Leases {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let (id, ttl, revision) = self.0.leases.grant(id, ttl).await?;
        Ok(Response::new(LeaseGrantResponse { header: Some(self.0.header(revision)), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Result<Response<LeaseRevokeResponse>, Status> {
        let revision = self.0.leases.revoke(request.into_inner().id).await?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(self.0.header(revision)) }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let shared = self.0.clone();
        let answers = request.into_inner().then(move |request| {
            let shared = shared.clone();
            async move {
                let id = request?.id;
                let ttl = shared.leases.keep_alive(id).await?;
                let revision = shared.store.revision().await.map_err(super::errors::status)?;
                Ok(LeaseKeepAliveResponse { header: Some(shared.header(revision)), id, ttl })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let revision = self.0.leases.catch_up().await?;
        let header = Some(self.0.header(revision));
        let Some(lease) = self.0.leases.get(id) else {
            return Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() }));
        };
        let ttl = lease.deadline.saturating_duration_since(Instant::now()).as_secs() as i64;
        let keys = if keys { self.0.leases.attached(id) } else { vec![] };
        Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: lease.ttl, keys }))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let revision = self.0.leases.catch_up().await?;
        let leases = self.0.leases.list().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.0.header(revision)), leases }))
    }
}
