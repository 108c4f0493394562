//! The store as an etcd: the v3 API over gRPC, for a key space of its own beside the cluster's objects.
//!
//! Revisions are the store's, so they grow by other writes too. A transaction of several writes is a run of revisions in
//! the store and its last one here. `docs/decisions/0135-etcd-face.md` tells how that is kept.

use crate::{Change, Error, Expect, Revision, Store, Write};
use bytes::{Buf, Bytes};
use proto::{ClusterServer, KvServer, LeaseServer, MaintenanceServer, ResponseHeader, WatchRequest, WatchResponse, WatchServer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

mod auth;
mod bolt;
mod check;
mod errors;
mod keys;
mod kv;
mod lease_service;
mod leases;
mod listen;
mod maintenance;
#[cfg(test)]
mod properties;
mod proto;
mod read;
mod snapshot;
mod txn;
mod watches;

/// Streams that a connection may have open.
const STREAMS_MAX: u32 = 1_000;
/// A connection that does not answer a ping so long is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Options {
    /// The member's name, as `etcdctl member list` shows it.
    pub name: String,
    pub client_urls: Vec<String>,
    /// How often a quiet watch that asked for it is told how far it is. API servers send bookmarks by it.
    pub progress_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { name: "slipway".into(), client_urls: vec![], progress_interval: Duration::from_secs(5) }
    }
}

/// What the services share.
struct Shared {
    store: Arc<dyn Store>,
    leases: Arc<leases::Leases>,
    previous: watches::Previous,
    options: Options,
    cluster_id: u64,
    member_id: u64,
    /// The newest horizon of the store that was seen.
    oldest: std::sync::atomic::AtomicI64,
}

impl Shared {
    fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader { cluster_id: self.cluster_id, member_id: self.member_id, revision, raft_term: 1 }
    }

    async fn newest_header(&self) -> Result<ResponseHeader, Status> {
        Ok(self.header(self.store.revision().await.map_err(errors::status)?))
    }

    /// What can be read at the least, as far as its users have said. The store may have forgotten more, and says so itself.
    fn floor(&self) -> Revision {
        self.leases.compacted()
    }

    /// The compact revision that a watch is told which begins before it.
    fn compacted(&self, oldest: Revision) -> Revision {
        use std::sync::atomic::Ordering;
        let oldest = self.oldest.fetch_max(oldest, Ordering::Relaxed).max(oldest);
        // The first that can be watched from is the one after what is forgotten.
        self.floor().max(if oldest > 0 { oldest + 1 } else { 0 })
    }
}

/// See the module. Its background tasks end with it.
pub struct Face {
    shared: Arc<Shared>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Face {
    pub async fn start(store: Arc<dyn Store>, options: Options) -> Result<Face, Error> {
        let cluster_id = cluster_id(store.as_ref()).await?;
        let (leases, tasks) = leases::Leases::start(store.clone()).await?;
        let shared = Shared {
            store,
            leases,
            previous: watches::Previous::default(),
            options,
            cluster_id,
            // Whoever serves the database is its one member.
            member_id: cluster_id.rotate_left(32) | 1,
            oldest: 0.into(),
        };
        Ok(Face { shared: Arc::new(shared), _tasks: tasks })
    }

    /// Serves until `shutdown`. `tls` must ask clients for certificates: whoever gets in may do everything here. Without
    /// it, anybody who can connect may.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let incoming = listen::incoming(listener, tls, shutdown.clone());
        let shared = &self.shared;
        tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(KvServer::new(kv::Kv(shared.clone())))
            .add_service(WatchServer::new(Watch(shared.clone())))
            .add_service(LeaseServer::new(lease_service::Leases(shared.clone())))
            .add_service(MaintenanceServer::new(maintenance::Maintenance(shared.clone())))
            .add_service(ClusterServer::new(maintenance::Cluster(shared.clone())))
            .add_service(auth::Auth)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
    }
}

async fn cluster_id(store: &dyn Store) -> Result<u64, Error> {
    loop {
        if let Some(record) = store.get(keys::CLUSTER_ID, None).await?
            && let Ok(id) = record.value.clone().try_get_u64()
        {
            return Ok(id);
        }
        let id = Bytes::copy_from_slice(&rand::random_range(1..u64::MAX).to_be_bytes());
        match store.write(Write { key: keys::CLUSTER_ID.into(), expect: Expect::Absent, change: Change::Put(id) }).await {
            // Or another replica was first.
            Ok(_) | Err(Error::Exists) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Watch(Arc<Shared>);

#[async_trait::async_trait]
impl proto::WatchService for Watch {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(ReceiverStream::new(watches::serve(self.0.clone(), request.into_inner()))))
    }
}
