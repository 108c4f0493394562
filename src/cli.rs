//! The flags.

use clap::{Args, Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Kubernetes' architecture in one binary that also brings its own machines.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, about)]
pub struct Cli {
    /// What to log, as `info` or `slipway_node=debug,warn`.
    #[arg(long, global = true, env = "SLIPWAY_LOG", default_value = "info")]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cluster in this process: database, API server, scheduler, controllers, node.
    Up(Up),
    /// Removes what `up` left behind in a data directory: containers, network, mounts, database. The cluster must be stopped.
    Clean(Clean),
    /// Runs the API server.
    Apiserver(Apiserver),
    /// Runs the scheduler.
    Scheduler(Scheduler),
    /// Runs the controllers.
    Controllers(Controllers),
    /// Runs the cloud controller: it buys machines and load balancers, and gives them back.
    Cloud(Cloud),
    /// Runs a node: pods on containerd, the service proxy and the cluster's DNS.
    Node(Node),
    /// Runs the service proxy alone.
    Proxy(Proxy),
    /// Shows who asked the API for what, of what `--audit-postgres` keeps.
    Audit(AuditQuery),
}

#[derive(Debug, Args)]
pub struct Up {
    /// Where everything is kept: database, certificates, kubeconfig, containers.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Where the API is served over HTTPS.
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// A database to use instead of a private one, as `postgres://user@host/db`.
    #[arg(long)]
    pub postgres: Option<String>,
    /// The socket of a CRI runtime to use instead of a containerd of our own. The pods' network is described for it in the data
    /// directory's `containerd/cni.d`, where its configuration must look (containerd: `conf_dir`).
    #[arg(long)]
    pub runtime_endpoint: Option<PathBuf>,
    /// Whether this machine is a node of the cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub nodes: u8,
    /// How many simulated nodes to run: they register and run pods in memory.
    #[arg(long, default_value_t = 0)]
    pub simulated_nodes: usize,
    /// How long a simulated pod takes to start, as `500ms`.
    #[arg(long, default_value = "300ms", value_parser = duration)]
    pub simulated_start: Duration,
    /// The address at which pods and other nodes reach the API. By default the one that it listens at, or with a
    /// wildcard the one by which this machine reaches others; with loopback an address of this machine alone.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// The node's name; by default the host name.
    #[arg(long)]
    pub node_name: Option<String>,
    #[command(flatten)]
    pub grace: Grace,
    #[command(flatten)]
    pub cloud: CloudFlags,
    #[command(flatten)]
    pub security: Security,
}

/// When a node counts as lost.
#[derive(Debug, Clone, Copy, Args)]
pub struct Grace {
    /// So long a node may be silent before it is marked NotReady. Agents report every 10 s.
    #[arg(long, default_value = "40s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,
}

/// Where machines and load balancers come from. Without `--cloud` nothing is ever bought.
#[derive(Debug, Clone, Args)]
pub struct CloudFlags {
    /// The cloud that machines and load balancers come from.
    #[arg(long, value_parser = ["ec2"])]
    pub cloud: Option<String>,
    /// Another address for the cloud's API, as an emulator's `http://127.0.0.1:5000`.
    #[arg(long)]
    pub cloud_endpoint: Option<String>,
    #[arg(long, default_value = "us-east-1")]
    pub cloud_region: String,
    /// What tells this cluster's machines from others' in the same account: machines with this name that the cluster doesn't
    /// know are ended. By default made of the UID of the namespace kube-system, so that no two clusters share one.
    #[arg(long)]
    pub cluster_name: Option<String>,
    /// The API address that new machines join at, as `https://10.0.0.5:6443`; `up` takes the advertised one by itself.
    #[arg(long)]
    pub join_server: Option<String>,
}

#[derive(Debug, Args)]
pub struct Clean {
    #[arg(long)]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Apiserver {
    /// The directory that holds ca.crt, ca.key and sa.key; what is missing is made.
    #[arg(long)]
    pub pki_dir: PathBuf,
    #[arg(long)]
    pub postgres: String,
    #[arg(long, default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// The address that the `kubernetes` Service leads to.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Further names and addresses for the serving certificate.
    #[arg(long = "name")]
    pub names: Vec<String>,
    /// Where to write an administrator's kubeconfig.
    #[arg(long)]
    pub write_kubeconfig: Option<PathBuf>,
    /// Also serves etcd's v3 API here, for a key space beside the cluster's objects, to holders of a certificate of the
    /// CA `etcd-ca.crt` in the directory of certificates, as `etcd-client.crt`.
    #[arg(long)]
    pub etcd_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub security: Security,
}

/// Who is let in, what is encrypted, and what is told of requests. The names are kube-apiserver's.
#[derive(Debug, Clone, Default, Args)]
pub struct Security {
    /// An EncryptionConfiguration: which kinds are encrypted before they are stored, under which keys. `up` has one of its own.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// An AuthenticationConfiguration: issuers of tokens, and what their claims mean.
    #[arg(long, conflicts_with = "oidc_issuer_url")]
    pub authentication_config: Option<PathBuf>,
    /// An OpenID issuer whose tokens are accepted.
    #[arg(long, requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// By default the issuer's URL and `#`, but for the claim `email`; `-` for none.
    #[arg(long)]
    pub oidc_username_prefix: Option<String>,
    #[arg(long)]
    pub oidc_groups_claim: Option<String>,
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// A claim that tokens must have, as `hd=example.com`.
    #[arg(long = "oidc-required-claim")]
    pub oidc_required_claims: Vec<String>,
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    /// Who signs the certificates of proxies that say in headers who asks.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The proxies' common names; by default whatever that CA has signed.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid")]
    pub requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// The certificate by which extension servers know this one, of the authority of `--requestheader-client-ca-file`. By default
    /// the cluster's own.
    #[arg(long, requires_all = ["proxy_client_key_file", "requestheader_client_ca_file"])]
    pub proxy_client_cert_file: Option<PathBuf>,
    #[arg(long, requires = "proxy_client_cert_file")]
    pub proxy_client_key_file: Option<PathBuf>,
    /// An audit Policy: which requests are told of, and how much. By default all changes, and what people read.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// A file for audit events, one a line; `-` for the standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes of the file until it is changed for a new one.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// How many old files are kept; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Days that old files are kept; 0 for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// Keeps audit events in Postgres, for `slipway audit`.
    #[arg(long)]
    pub audit_postgres: bool,
    /// Days that they are kept there.
    #[arg(long, default_value_t = 30)]
    pub audit_postgres_maxage: u64,
}

/// What to look for; what is not given stands for anything.
#[derive(Debug, Args)]
pub struct AuditQuery {
    /// The database; or, with `--data-dir`, that of `up`.
    #[arg(long, required_unless_present = "data_dir")]
    pub postgres: Option<String>,
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Who asked, or as whom.
    #[arg(long)]
    pub user: Option<String>,
    #[arg(long)]
    pub verb: Option<String>,
    /// The plural, as `pods`.
    #[arg(long)]
    pub resource: Option<String>,
    #[arg(long, short)]
    pub namespace: Option<String>,
    #[arg(long)]
    pub name: Option<String>,
    /// The id that an answer had in its header `Audit-Id`.
    #[arg(long)]
    pub id: Option<String>,
    /// Only what is younger, as `1h`.
    #[arg(long, value_parser = duration)]
    pub since: Option<Duration>,
    /// The newest so many.
    #[arg(long, default_value_t = 1_000)]
    pub limit: i64,
    /// Shows whole events, one a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Component {
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
}

/// For what only one may do at a time.
#[derive(Debug, Clone, Copy, Args)]
pub struct Election {
    /// Whether to wait until no other process does the same work.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
}

#[derive(Debug, Args)]
pub struct Scheduler {
    #[command(flatten)]
    pub component: Component,
    #[command(flatten)]
    pub election: Election,
}

#[derive(Debug, Args)]
pub struct Controllers {
    #[command(flatten)]
    pub component: Component,
    #[command(flatten)]
    pub election: Election,
    /// The directory that holds ca.crt and ca.key, for signing certificate requests.
    #[arg(long)]
    pub pki_dir: Option<PathBuf>,
    #[command(flatten)]
    pub grace: Grace,
}

#[derive(Debug, Args)]
pub struct Cloud {
    #[command(flatten)]
    pub component: Component,
    #[command(flatten)]
    pub election: Election,
    #[command(flatten)]
    pub flags: CloudFlags,
    /// The cluster's CA, which new machines are given.
    #[arg(long)]
    pub ca: PathBuf,
}

#[derive(Debug, Args)]
pub struct Node {
    /// The node's own kubeconfig, or one that holds a bootstrap token.
    #[arg(long, env = "KUBECONFIG", required_unless_present = "join")]
    pub kubeconfig: Option<PathBuf>,
    /// Joins a cluster at this address, as `https://10.0.0.5:6443`, with `--ca` and, the first time, `--token`.
    #[arg(long, requires = "ca")]
    pub join: Option<String>,
    /// A bootstrap token, as `abcdef.0123456789abcdef`: needed until the machine has its certificate.
    #[arg(long, env = "SLIPWAY_TOKEN")]
    pub token: Option<String>,
    /// The cluster's CA.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    #[arg(long)]
    pub data_dir: PathBuf,
    #[arg(long)]
    pub node_name: Option<String>,
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// As of `slipway up`.
    #[arg(long)]
    pub runtime_endpoint: Option<PathBuf>,
    #[arg(long)]
    pub provider_id: Option<String>,
    /// Labels of the node, as `zone=a`.
    #[arg(long = "label")]
    pub labels: Vec<String>,
    /// Taints of the node, as `key=value:NoSchedule`.
    #[arg(long = "taint")]
    pub taints: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Proxy {
    #[command(flatten)]
    pub component: Component,
    #[arg(long)]
    pub node_name: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .map_err(|error| error.to_string())
        .and_then(|span| Duration::try_from(span).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("500").is_err());
    }
}
