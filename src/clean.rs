//! `slipway clean`: removes every trace of a cluster that ran on a data directory.

use crate::{cli, up};
use anyhow::{Context, Result};
use slipway_store::postgres::private::Private;
use std::process::Command;

/// Containers first, for they hold mounts and network; then rules and interfaces; then the database; the data last.
pub async fn run(flags: cli::Clean) -> Result<()> {
    if !flags.data_dir.exists() {
        return Ok(());
    }
    let data_dir = flags.data_dir.canonicalize()?;
    let _lock = up::lock(&data_dir)?;
    slipway_node::Containerd::destroy(&data_dir).await.context("removing the node's containers")?;
    slipway_node::proxy::cleanup().await;
    slipway_node::cni::remove_links().await.context("removing the pods' bridge")?;
    slipway_node::dns::interface::remove().await.context("removing the DNS interface")?;
    // It fails when there is none, which is what is wanted.
    let _ = Command::new("ip").args(["link", "delete", up::LOCAL_INTERFACE]).output();
    let postgres = data_dir.join("postgres");
    if postgres.exists() {
        Private::start(&postgres).await?.stop().await.context("stopping the private Postgres")?;
    }
    std::fs::remove_dir_all(&data_dir).with_context(|| format!("removing {}", data_dir.display()))
}
