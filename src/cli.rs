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
    Scheduler(Component),
    /// Runs the controllers.
    Controllers(Controllers),
    /// Runs a node: pods on containerd, the service proxy and the cluster's DNS.
    Node(Node),
    /// Runs the service proxy alone.
    Proxy(Proxy),
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
    /// The socket of a CRI runtime to use instead of a containerd of our own.
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
    /// The address at which pods and other nodes reach the API. By default an address of this machine alone.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// The node's name; by default the host name.
    #[arg(long)]
    pub node_name: Option<String>,
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
}

#[derive(Debug, Args)]
pub struct Component {
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
}

#[derive(Debug, Args)]
pub struct Controllers {
    #[command(flatten)]
    pub component: Component,
    /// The directory that holds ca.crt and ca.key, for signing certificate requests.
    #[arg(long)]
    pub pki_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Node {
    /// The node's own kubeconfig, or one that holds a bootstrap token.
    #[arg(long, env = "KUBECONFIG", required_unless_present = "join")]
    pub kubeconfig: Option<PathBuf>,
    /// Joins a cluster at this address, as `https://10.0.0.5:6443`, with `--token` and `--ca`.
    #[arg(long, requires_all = ["token", "ca"])]
    pub join: Option<String>,
    /// A bootstrap token, as `abcdef.0123456789abcdef`.
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
