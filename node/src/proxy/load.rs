//! Loads routes into the kernel of the calling thread's network namespace.

use super::iptables::{self, Table};
use super::model::{self, Model};
use super::{Cidr, Error, conntrack, nftables};
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How rules get into the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// nftables where it works, else iptables.
    #[default]
    Auto,
    Nftables,
    Iptables,
}

/// Knows what it has loaded, and loads only what changed.
pub struct Loader {
    backend: Backend,
    pod_cidr: Cidr,
    loaded: Option<Model>,
    deltas_refused: u64,
}

impl Loader {
    /// Decides the backend, and removes what the other one may have left from an earlier run.
    pub async fn new(backend: Backend, pod_cidr: Cidr) -> Result<Loader, Error> {
        let nft_works = backend != Backend::Iptables && run("nft", &["list", "tables"], None).await.is_ok();
        let backend = match backend {
            Backend::Auto if nft_works => Backend::Nftables,
            Backend::Auto if run("iptables-save", &[], None).await.is_ok() => Backend::Iptables,
            Backend::Auto => return Err(Error::NoBackend),
            chosen => chosen,
        };
        Ok(Loader { backend, pod_cidr, loaded: None, deltas_refused: 0 })
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// How often a change alone could not be loaded, so that everything was. Never, unless somebody else writes there.
    pub fn deltas_refused(&self) -> u64 {
        self.deltas_refused
    }

    /// Makes the kernel do what `model` says. With `everything`, whatever is there is replaced, as it may have been
    /// tampered with; there is no moment without rules in either case.
    pub async fn sync(&mut self, model: Model, everything: bool) -> Result<(), Error> {
        let delta = match &self.loaded {
            Some(old) if !everything => match self.backend {
                Backend::Iptables => iptables::diff(old, &model, self.pod_cidr),
                _ => nftables::diff(old, &model, self.pod_cidr),
            },
            _ => return self.replace(model).await,
        };
        if !delta.is_empty()
            && let Err(error) = self.load(&delta).await
        {
            self.deltas_refused += 1;
            tracing::warn!(%error, "service rules are not what they should be; loading them anew");
            return self.replace(model).await;
        }
        self.remember(model).await;
        Ok(())
    }

    async fn replace(&mut self, model: Model) -> Result<(), Error> {
        let text = match self.backend {
            Backend::Iptables => iptables::full(&model, self.pod_cidr, &existing_chains().await?),
            _ => nftables::full(&model, self.pod_cidr),
        };
        self.load(&text).await?;
        if self.backend == Backend::Iptables {
            for (table, chain, rule) in iptables::hooks() {
                let arguments = |verb: &'static str| [&["-w", "-t", table.name(), verb, chain], &rule[..]].concat();
                if run("iptables", &arguments("-C"), None).await.is_err() {
                    run("iptables", &arguments("-I"), None).await?;
                }
            }
            remove_nftables().await;
        } else {
            remove_iptables().await;
        }
        self.remember(model).await;
        Ok(())
    }

    async fn load(&self, text: &str) -> Result<(), Error> {
        match self.backend {
            Backend::Iptables => run("iptables-restore", &["-w", "--noflush"], Some(text)).await?,
            _ => run("nft", &["-f", "-"], Some(text)).await?,
        };
        Ok(())
    }

    async fn remember(&mut self, model: Model) {
        let old = self.loaded.take();
        if old.as_ref().is_none_or(|old| model::udp_changed(old, &model)) {
            conntrack::clean(old.as_ref(), &model).await;
        }
        self.loaded = Some(model);
    }
}

/// Removes every rule of both backends.
pub async fn cleanup() {
    remove_nftables().await;
    remove_iptables().await;
}

async fn remove_nftables() {
    if let Err(error) = run("nft", &["-f", "-"], Some(nftables::CLEANUP)).await {
        tracing::debug!(%error, "no nftables rules to remove");
    }
}

async fn remove_iptables() {
    let Ok(chains) = existing_chains().await else { return };
    if chains.is_empty() {
        return;
    }
    for (table, chain, rule) in iptables::hooks() {
        // Fails when the jump is not there, which is what we want.
        let _ = run("iptables", &[&["-w", "-t", table.name(), "-D", chain], &rule[..]].concat(), None).await;
    }
    if let Err(error) = run("iptables-restore", &["-w", "--noflush"], Some(&iptables::removal(&chains))).await {
        tracing::warn!(%error, "cannot remove iptables rules");
    }
}

async fn existing_chains() -> Result<BTreeSet<(Table, String)>, Error> {
    let mut chains = BTreeSet::new();
    for table in Table::ALL {
        chains.extend(iptables::existing(table, &run("iptables-save", &["-t", table.name()], None).await?));
    }
    Ok(chains)
}

/// Runs a program to its end, and gives back what it printed.
async fn run(program: &'static str, arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
    let start = |source| Error::Start { program, source };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that stops reading says why on stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(start)?;
    if !output.status.success() {
        return Err(Error::Refused { program, message: String::from_utf8_lossy(&output.stderr).trim().to_string() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
