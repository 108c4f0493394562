//! The Maintenance and Cluster services: one member, of which nothing needs maintaining.

use super::proto::{
    AlarmRequest, AlarmResponse, ClusterService, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MaintenanceService, Member, MemberAddRequest, MemberAddResponse,
    MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse,
};
use super::{Shared, errors, snapshot};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The version of etcd whose API this is; clients look up what they may ask for by it.
pub(super) const VERSION: &str = "3.5.16";

pub(super) struct Maintenance(pub(super) Arc<Shared>);

impl Maintenance {
    /// The revision, and a number that is the same for all replicas and changes with what the keys hold.
    async fn hash_at(&self, revision: i64) -> Result<(i64, i64, u32), Status> {
        let newest = self.0.store.revision().await.map_err(errors::status)?;
        let at = if revision > 0 { revision } else { newest };
        if at > newest {
            return Err(errors::future_revision());
        }
        if at < self.0.floor() {
            return Err(errors::compacted());
        }
        let mut hash = Sha256::new();
        for kv in snapshot::read(self.0.store.as_ref(), at).await.map_err(errors::status)?.kvs {
            for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.key.len() as i64] {
                hash.update(number.to_be_bytes());
            }
            hash.update(&kv.key);
            hash.update(&kv.value);
        }
        let hash = hash.finalize();
        Ok((newest, at, u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])))
    }
}

#[async_trait]
impl MaintenanceService for Maintenance {
    async fn alarm(&self, _: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let header = Some(self.0.newest_header().await?);
        Ok(Response::new(AlarmResponse { header, alarms: vec![] }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let header = self.0.newest_header().await?;
        let size = self.0.store.size().await.map_err(errors::status)?;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            version: VERSION.into(),
            db_size: size,
            db_size_in_use: size,
            leader: header.member_id,
            raft_index: header.revision as u64,
            raft_applied_index: header.revision as u64,
            raft_term: header.raft_term,
            header: Some(header),
            ..StatusResponse::default()
        }))
    }

    /// Postgres does that by itself.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse { header: Some(self.0.newest_header().await?) }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (newest, _, hash) = self.hash_at(0).await?;
        Ok(Response::new(HashResponse { header: Some(self.0.header(newest)), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let (newest, hash_revision, hash) = self.hash_at(request.into_inner().revision).await?;
        let header = Some(self.0.header(newest));
        Ok(Response::new(HashKvResponse { header, hash, compact_revision: self.0.floor(), hash_revision }))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        const CHUNK_BYTES: usize = 1 << 20;
        let header = self.0.newest_header().await?;
        let contents = snapshot::read(self.0.store.as_ref(), header.revision).await.map_err(errors::status)?;
        let file = snapshot::file(contents).map_err(|error| Status::internal(format!("etcdserver: {error}")))?;
        let total = file.len();
        let chunks: Vec<_> = (0..total).step_by(CHUNK_BYTES).collect();
        let answers = futures::stream::iter(chunks).map(move |from| {
            let to = total.min(from + CHUNK_BYTES);
            let (remaining_bytes, blob) = ((total - to) as u64, file[from..to].to_vec());
            Ok(SnapshotResponse { header: Some(header), remaining_bytes, blob, version: VERSION.into() })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn move_leader(&self, _: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: bad leader transferee"))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: invalid downgrade target version"))
    }
}

pub(super) struct Cluster(pub(super) Arc<Shared>);

fn one_member() -> Status {
    Status::failed_precondition("etcdserver: the members are the API servers on this database")
}

#[async_trait]
impl ClusterService for Cluster {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let header = self.0.newest_header().await?;
        let member = Member {
            id: header.member_id,
            name: self.0.options.name.clone(),
            client_ur_ls: self.0.options.client_urls.clone(),
            ..Member::default()
        };
        Ok(Response::new(MemberListResponse { header: Some(header), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(one_member())
    }

    async fn member_remove(&self, _: Request<MemberRemoveRequest>) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(one_member())
    }

    async fn member_update(&self, _: Request<MemberUpdateRequest>) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(one_member())
    }

    async fn member_promote(&self, _: Request<MemberPromoteRequest>) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(one_member())
    }
}
