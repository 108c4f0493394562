//! The one binary: flags to wiring. What the parts do is in their crates.

mod audit;
mod clean;
mod cli;
mod dashboard;
mod parts;
mod pki;
mod security;
mod server;
mod supervise;
mod up;

use anyhow::{Context, Result};
use clap::Parser;
use cli::{Cli, Command};

/// An API server makes and drops many small pieces of JSON on all its threads: see `docs/decisions/0149-the-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let cli = Cli::parse();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&cli.log).context("--log")?)
        .with_writer(std::io::stderr)
        .init();
    // Before any thread exists: a process can enter a mount namespace only while it has one thread.
    match &cli.command {
        Command::Up(up) if up.nodes > 0 && up.runtime_endpoint.is_none() => slipway_node::enter_mount_namespace(&up.data_dir)?,
        Command::Node(node) if node.runtime_endpoint.is_none() => slipway_node::enter_mount_namespace(&node.data_dir)?,
        Command::Clean(clean) => slipway_node::enter_mount_namespace(&clean.data_dir)?,
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(cli));
    // Threads that are blocked in a file or a name look-up don't keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn run(cli: Cli) -> Result<()> {
    let shutdown = parts::shutdown_on_signal()?;
    match cli.command {
        Command::Up(flags) => up::run(flags, shutdown).await,
        Command::Clean(flags) => clean::run(flags).await,
        Command::Apiserver(flags) => server::run(flags, shutdown).await,
        Command::Scheduler(flags) => parts::scheduler(flags, shutdown).await,
        Command::Controllers(flags) => parts::controllers(flags, shutdown).await,
        Command::Cloud(flags) => parts::cloud(flags, shutdown).await,
        Command::Node(flags) => parts::node(flags, shutdown).await,
        Command::Proxy(flags) => parts::proxy(flags, shutdown).await,
        Command::Audit(flags) => audit::run(flags).await,
    }
}
