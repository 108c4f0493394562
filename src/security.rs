//! From flags to who is let in, what is encrypted, and what is told of requests.

use crate::cli::Security;
use crate::pki::write_atomically;
use anyhow::{Context, Result};
use slipway_apiserver::Options;
use slipway_apiserver::audit::{Audit, LogFile, Policy, Rotation, Sink, Table};
use slipway_apiserver::encryption::Encryption;
use slipway_apiserver::http::authenticate::oidc::{Flags, JwtIssuer};
use slipway_apiserver::http::authenticate::request_header::RequestHeader;
use slipway_store::postgres::audit::Trail;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MEGABYTE: u64 = 1024 * 1024;

/// Sets what the flags say, but for audit, which needs the database. `own` is where a configuration of the cluster's own lies,
/// or is made.
pub fn apply(options: &mut Options, flags: &Security, own: Option<&Path>) -> Result<()> {
    options.encryption = Arc::new(encryption(flags, own)?);
    options.jwt_issuers = jwt_issuers(flags, &options.service_account_issuer)?;
    front_proxy(options, flags)
}

/// With any of its flags, nothing of what the cluster has made for itself is used: certificates and authority belong together.
fn front_proxy(options: &mut Options, flags: &Security) -> Result<()> {
    let identity = (&flags.proxy_client_cert_file, &flags.proxy_client_key_file);
    if flags.requestheader_client_ca_file.is_none() && identity.0.is_none() {
        return Ok(());
    }
    options.request_header = request_header(flags)?;
    options.proxy_client_identity = match identity {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn encryption(flags: &Security, own: Option<&Path>) -> Result<Encryption> {
    let path = match (&flags.encryption_provider_config, own) {
        (Some(path), _) => path,
        (None, None) => return Ok(Encryption::default()),
        (None, Some(path)) => {
            if !path.exists() {
                let name = format!("key-{}", jiff::Zoned::now().strftime("%Y-%m-%d"));
                write_atomically(path, Encryption::new_configuration(&name).as_bytes(), 0o600)?;
            }
            path
        }
    };
    Encryption::parse(&read(path)?).with_context(|| format!("{} is no usable encryption configuration", path.display()))
}

fn jwt_issuers(flags: &Security, own: &str) -> Result<Vec<JwtIssuer>> {
    if let Some(path) = &flags.authentication_config {
        return JwtIssuer::parse(&read(path)?, own).with_context(|| format!("{} cannot be used", path.display()));
    }
    let Some(url) = &flags.oidc_issuer_url else { return Ok(vec![]) };
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').with_context(|| format!("{text:?} is not CLAIM=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let issuer = JwtIssuer::from_flags(Flags {
        issuer_url: url.clone(),
        client_id: flags.oidc_client_id.clone().unwrap_or_default(),
        username_claim: flags.oidc_username_claim.clone(),
        username_prefix: flags.oidc_username_prefix.clone(),
        groups_claim: flags.oidc_groups_claim.clone(),
        groups_prefix: flags.oidc_groups_prefix.clone(),
        required_claims: flags.oidc_required_claims.iter().map(pair).collect::<Result<_>>()?,
        ca: flags.oidc_ca_file.as_deref().map(read).transpose()?,
        signing_algorithms: flags.oidc_signing_algs.clone(),
    });
    Ok(vec![issuer?])
}

fn request_header(flags: &Security) -> Result<Option<RequestHeader>> {
    let Some(path) = &flags.requestheader_client_ca_file else { return Ok(None) };
    Ok(Some(RequestHeader {
        client_ca_pem: read(path)?,
        allowed_names: flags.requestheader_allowed_names.clone(),
        username_headers: flags.requestheader_username_headers.clone(),
        uid_headers: flags.requestheader_uid_headers.clone(),
        group_headers: flags.requestheader_group_headers.clone(),
        extra_header_prefixes: flags.requestheader_extra_headers_prefix.clone(),
    }))
}

/// What is told of requests, and the trail in Postgres, which is to be closed at the end. The store must be open already.
pub async fn audit(flags: &Security, url: &str) -> Result<(Audit, Option<Arc<Trail>>)> {
    let mut sinks: Vec<Box<dyn Sink>> = vec![];
    if let Some(path) = &flags.audit_log_path {
        let rotation = Rotation {
            bytes_max: flags.audit_log_maxsize * MEGABYTE,
            backups_max: flags.audit_log_maxbackup,
            age_max: (flags.audit_log_maxage > 0).then(|| DAY * u32::try_from(flags.audit_log_maxage).unwrap_or(u32::MAX)),
        };
        sinks.push(Box::new(LogFile::open(path, rotation).with_context(|| format!("opening {}", path.display()))?));
    }
    let mut trail = None;
    if flags.audit_postgres {
        let retention = DAY * u32::try_from(flags.audit_postgres_maxage).unwrap_or(u32::MAX);
        let opened = Trail::connect(url, retention).await.context("opening the audit trail")?;
        sinks.push(Box::new(Table(Arc::clone(&opened))));
        trail = Some(opened);
    }
    let policy = match &flags.audit_policy_file {
        Some(path) => Policy::parse(&read(path)?).with_context(|| format!("{} is no usable audit policy", path.display()))?,
        None => Policy::builtin(),
    };
    Ok((Audit::new(policy, sinks), trail))
}
