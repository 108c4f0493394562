//! The server's state, and how it is started and asked from within the process.

use crate::aggregation::{self, Aggregator};
use crate::audit::Audit;
use crate::authorization::rbac::{self, Rbac};
use crate::encryption::{self, Encryption};
use crate::flow_control::FlowControl;
use crate::http::authenticate::certificate::Authorities;
use crate::http::authenticate::oidc::{Issuers, JwtIssuer};
use crate::http::authenticate::request_header::RequestHeader;
use crate::http::authenticate::{User, Verified};
use crate::http::metrics::Metrics;
use crate::http::session::Sessions;
use crate::http::stall::{self, Stalls};
use crate::kind::Strategy;
use crate::registry::Registry;
use crate::stored::{self, Cache, Entry, Snapshot};
use crate::subresources::node_agent::Agents;
use crate::subresources::review;
use crate::subresources::token::Signer;
use axum::Router;
use http::{HeaderValue, header};
use slipway_store::{Store, cache};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Where the server reads the time.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

#[derive(Clone)]
pub struct Options {
    /// Addresses for Services, as `10.96.0.0/16`; the first is that of the `kubernetes` Service.
    pub service_cidr: String,
    pub node_port_range: RangeInclusive<u16>,
    /// Where clients reach this server: the endpoint of the `kubernetes` Service. `None`: there is no such Service.
    pub advertise: Option<SocketAddr>,
    /// Who signs client certificates. `None`: none are accepted.
    pub client_ca_pem: Option<String>,
    /// An EC P-256 private key (PKCS#8) that signs service accounts' tokens. `None`: there are none.
    pub service_account_key_pem: Option<String>,
    pub service_account_issuer: String,
    /// The certificate and key with which the server calls node agents.
    pub kubelet_client_identity: Option<(String, String)>,
    /// Who signs the node agents' serving certificates.
    pub kubelet_ca_pem: Option<String>,
    pub static_tokens: Vec<(String, User)>,
    /// Other issuers whose tokens are accepted.
    pub jwt_issuers: Vec<JwtIssuer>,
    /// The certificate and key by which extension servers know that this server speaks for others.
    pub proxy_client_identity: Option<(String, String)>,
    /// Proxies in front that say who asks.
    pub request_header: Option<RequestHeader>,
    /// What is told of requests, and to whom.
    pub audit: Arc<Audit>,
    /// What is encrypted before it is stored.
    pub encryption: Arc<Encryption>,
    /// Whether naming an owner needs the right to delete (see `admission::owner_references`).
    pub owner_references_permission_enforcement: bool,
    pub cache_limits: cache::Limits,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            service_cidr: "10.96.0.0/16".into(),
            node_port_range: 30_000..=32_767,
            advertise: None,
            client_ca_pem: None,
            service_account_key_pem: None,
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
            kubelet_client_identity: None,
            kubelet_ca_pem: None,
            static_tokens: vec![],
            jwt_issuers: vec![],
            proxy_client_identity: None,
            request_header: None,
            audit: Arc::default(),
            encryption: Arc::default(),
            owner_references_permission_enforcement: false,
            cache_limits: cache::Limits::default(),
            clock: Arc::new(jiff::Timestamp::now),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store failed")]
    Store(#[from] slipway_store::Error),
    #[error("the first objects could not be written: {0}")]
    Bootstrap(String),
    #[error("{what} is not usable: {why}")]
    Options { what: &'static str, why: String },
}

pub struct ApiServer {
    pub options: Options,
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    /// The way to node agents.
    pub agents: Agents,
    /// Signs service accounts' tokens.
    pub signer: Option<Arc<Signer>>,
    pub rbac: Rbac,
    /// Who is signed in at the dashboard.
    pub sessions: Sessions,
    pub(crate) authorities: Authorities,
    pub(crate) jwt_issuers: Issuers,
    pub(crate) verified: Verified,
    pub(crate) metrics: Metrics,
    pub(crate) flow_control: Arc<FlowControl>,
    pub(crate) stalls: Stalls,
    pub(crate) charging: crate::admission::Charging,
    pub(crate) ruled: crate::admission::Ruled,
    pub(crate) registry: Registry,
    /// Webhooks and policies, compiled.
    pub(crate) registrations: crate::admission::dynamic::Registrations,
    pub(crate) documents: crate::openapi::Cache,
    pub(crate) served: crate::custom_resources::Served,
    pub(crate) aggregator: Aggregator,
    bootstrapped: AtomicBool,
    closing: CancellationToken,
}

impl ApiServer {
    /// Fills the cache from the store, writes what every cluster has (see `bootstrap`), and keeps sweeping old events
    /// until the server is dropped or closed.
    pub async fn start(store: Arc<dyn Store>, options: Options) -> Result<Arc<Self>, Error> {
        let registry = Registry::new(crate::resources::builtin());
        let store: Arc<dyn Store> = Arc::new(encryption::Sealing { store, encryption: Arc::clone(&options.encryption) });
        let ingest = stored::ingest(registry.current().all.clone(), Arc::clone(&options.encryption));
        let changes: Arc<rbac::Changes> = Arc::default();
        let ingest = rbac::noted(ingest, Arc::clone(&changes));
        let cache = Cache::start(Arc::clone(&store), ingest, options.cache_limits.clone()).await?;
        let agents = Agents::new(options.kubelet_client_identity.as_ref(), options.kubelet_ca_pem.as_deref())
            .map_err(|why| Error::Options { what: "the identity for node agents", why })?;
        let signer = options.service_account_key_pem.as_ref().map(|key| Signer::new(key, &options.service_account_issuer));
        let signer = signer.transpose().map_err(|why| Error::Options { what: "the service accounts' key", why })?.map(Arc::new);
        let proxies = options.request_header.as_ref().map(|rule| rule.client_ca_pem.as_str());
        let authorities = Authorities::new(options.client_ca_pem.as_deref(), proxies)
            .map_err(|why| Error::Options { what: "the client CA", why })?;
        let jwt_issuers =
            Issuers::new(&options.jwt_issuers).map_err(|why| Error::Options { what: "the OpenID issuers' CA", why })?;
        let aggregator = Aggregator::new(options.proxy_client_identity.as_ref())
            .map_err(|why| Error::Options { what: "the identity for extension servers", why })?;
        let server = Arc::new(ApiServer {
            options,
            store,
            cache,
            agents,
            signer,
            rbac: Rbac::new(changes),
            sessions: Sessions::default(),
            authorities,
            jwt_issuers,
            verified: Verified::default(),
            metrics: Metrics::default(),
            flow_control: FlowControl::new(),
            stalls: Stalls::default(),
            charging: crate::admission::Charging::default(),
            ruled: crate::admission::Ruled::default(),
            registry,
            registrations: Default::default(),
            documents: crate::openapi::Cache::default(),
            served: crate::custom_resources::Served::default(),
            aggregator,
            bootstrapped: AtomicBool::new(false),
            closing: CancellationToken::new(),
        });
        server.served.follow(&server, &server.snapshot());
        crate::admission::repair(&server).await?;
        crate::bootstrap::run(&server).await.map_err(|status| Error::Bootstrap(status.message))?;
        aggregation::start(&server).await.map_err(|status| Error::Bootstrap(status.message))?;
        crate::flow_control::settle(&server).await?;
        server.bootstrapped.store(true, Ordering::Release);
        tokio::spawn(crate::flow_control::run(Arc::downgrade(&server), server.closing.clone()));
        tokio::spawn(stall::run(Arc::downgrade(&server), server.closing.clone()));
        tokio::spawn(crate::custom_resources::run(Arc::downgrade(&server), server.closing.clone()));
        aggregation::run(&server, &server.closing);
        tokio::spawn(encryption::rewrite(Arc::downgrade(&server), server.closing.clone()));
        tokio::spawn(crate::event_expiry::run(Arc::downgrade(&server), server.closing.clone()));
        tokio::spawn(crate::admission::policy::observe::run(Arc::downgrade(&server), server.closing.clone()));
        Ok(server)
    }

    /// The whole API, authentication included.
    pub fn router(self: &Arc<Self>) -> Router {
        crate::http::router(Arc::clone(self))
    }

    /// A client in this process that acts as `user`. To be called within a tokio runtime.
    pub fn client(self: &Arc<Self>, user: User) -> kube::Client {
        let agent = HeaderValue::try_from(crate::verbs::tracking::agent_of(&user)).ok();
        let named = tower::util::MapRequestLayer::new(move |mut request: axum::extract::Request| {
            if let (Some(agent), http::header::Entry::Vacant(entry)) = (&agent, request.headers_mut().entry(header::USER_AGENT)) {
                entry.insert(agent.clone());
            }
            request
        });
        kube::Client::new(self.router().layer(axum::Extension(user)).layer(named), "default")
    }

    /// Ends what would last: watches, logs, tunnels.
    pub fn close(&self) {
        self.closing.cancel();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// Resolves once `close` was called.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    pub fn now(&self) -> jiff::Timestamp {
        (self.options.clock)()
    }

    /// All kinds that are served now.
    pub fn strategies(&self) -> Vec<Arc<dyn Strategy>> {
        self.registry.current().all.clone()
    }

    /// The kind served at `/apis/GROUP/VERSION/…/PLURAL` (`group` is empty for the core group).
    pub fn strategy(&self, group: &str, version: &str, plural: &str) -> Option<Arc<dyn Strategy>> {
        self.registry.strategy(group, version, plural)
    }

    /// Whether there is anything at `/apis/GROUP/VERSION`.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.registry.current().serves(group, version)
            || review::ALL.iter().any(|review| (review.group, review.version) == (group, version))
    }

    /// What the cache holds now, without asking the store: for admission and authorisation.
    pub fn snapshot(&self) -> Snapshot {
        self.cache.snapshot()
    }
}

/// The cached object of that kind and name. `namespace` is empty for kinds of the cluster.
pub fn find<'a>(snapshot: &'a Snapshot, strategy: &dyn Strategy, namespace: &str, name: &str) -> Option<&'a Arc<Entry>> {
    snapshot.objects.get(stored::key(strategy.names(), namespace, name).as_str())
}
