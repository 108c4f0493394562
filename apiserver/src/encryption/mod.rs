//! Objects that are sealed before they reach the store: Secrets, and whatever else the configuration names.
//!
//! A sealed value is `slipway:enc:aesgcm:v1:KEY:`, a random salt of 32 bytes, and the object under AES-256-GCM. The key
//! that seals is derived from the configured one and the salt (HKDF-SHA-256), so that each write has a key of its own and
//! no number of writes wears the configured key out. The object's key in the store is authenticated with it: a value
//! that is copied to another name cannot be opened there.

mod configuration;
mod rewrite;
mod store;

pub use configuration::ConfigurationError;
pub(crate) use rewrite::run as rewrite;
pub(crate) use store::Sealing;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use bytes::Bytes;
use rand::RngExt;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

const SEALED: &[u8] = b"slipway:enc:";
const AESGCM: &[u8] = b"slipway:enc:aesgcm:v1:";
const SALT_BYTES: usize = 32;
/// Bound into what is derived, so that the same configured key used elsewhere derives other keys.
const PURPOSE: &[u8] = b"slipway stored object";

/// Which objects are sealed, and with what. The default seals nothing.
#[derive(Default)]
pub struct Encryption {
    rules: Vec<Rule>,
    met_unreadable: AtomicBool,
}

/// The first rule that names a resource is the one that counts.
struct Rule {
    resources: Vec<Resources>,
    /// The first writes, all read.
    providers: Vec<Provider>,
}

enum Resources {
    All,
    Group(String),
    One { group: String, plural: String },
}

enum Provider {
    AesGcm(Vec<Key>),
    Identity,
}

struct Key {
    name: String,
    secret: Vec<u8>,
}

/// Why a stored value cannot be read. Says nothing of what the value holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("no matching key found: the configuration has no key {0:?}")]
    NoKey(String),
    #[error("the value was changed, or is another object's, or its key is not the one of that name")]
    Tampered,
    #[error("no matching prefix found: the value is encrypted in a form that is not known here")]
    UnknownForm,
    #[error(
        "no matching prefix found: the value is not encrypted, and the configuration doesn't allow that (provider `identity`)"
    )]
    Plain,
}

/// A value that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// Whether a write today would seal it otherwise: the next write must be carried out even if it changes nothing.
    pub outdated: bool,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Encryption of {} rules", self.rules.len())
    }
}

impl Encryption {
    /// Whether anything at all is sealed.
    pub fn is_configured(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether the first provider for this resource encrypts.
    pub fn seals(&self, group: &str, plural: &str) -> bool {
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|resources| resources.include(group, plural)));
        rule.and_then(|rule| rule.providers.first()).is_some_and(|first| matches!(first, Provider::AesGcm(_)))
    }

    /// What to store for an object's bytes.
    pub fn seal(&self, key: &str, plain: Bytes) -> Bytes {
        match self.rule(key).and_then(|rule| rule.providers.first()) {
            Some(Provider::AesGcm(keys)) => keys.first().map_or_else(|| plain.clone(), |first| first.seal(key, &plain)),
            Some(Provider::Identity) | None => plain,
        }
    }

    /// The object's bytes from what is stored.
    pub fn open<'a>(&self, key: &str, stored: &'a [u8]) -> Result<Opened<'a>, Unreadable> {
        let sealed = stored.starts_with(SEALED);
        let opened = match self.rule(key) {
            Some(rule) => rule.open(key, stored),
            None if sealed => Err(stored
                .strip_prefix(AESGCM)
                .and_then(split_name)
                .map_or(Unreadable::UnknownForm, |(name, _)| Unreadable::NoKey(name.to_owned()))),
            None => Ok(Opened { bytes: Cow::Borrowed(stored), outdated: false }),
        };
        if opened.is_err() {
            self.met_unreadable.store(true, Ordering::Relaxed);
        }
        opened
    }

    /// Whether any value was met that could not be opened. As long as none was, nobody has to look for them.
    pub fn met_unreadable(&self) -> bool {
        self.met_unreadable.load(Ordering::Relaxed)
    }

    fn rule(&self, key: &str) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        let mut parts = key.split('/').skip(1);
        let (group, plural) = (parts.next()?, parts.next()?);
        // Who holds an address is bookkeeping of the server, not an object.
        if group == "allocations" {
            return None;
        }
        let group = if group == "core" { "" } else { group };
        self.rules.iter().find(|rule| rule.resources.iter().any(|resources| resources.include(group, plural)))
    }
}

impl Resources {
    fn include(&self, group: &str, plural: &str) -> bool {
        match self {
            Resources::All => true,
            Resources::Group(of) => of == group,
            Resources::One { group: of, plural: one } => of == group && one == plural,
        }
    }
}

impl Rule {
    fn open<'a>(&self, key: &str, stored: &'a [u8]) -> Result<Opened<'a>, Unreadable> {
        if !stored.starts_with(SEALED) {
            let identity = self.providers.iter().position(|provider| matches!(provider, Provider::Identity));
            let at = identity.ok_or(Unreadable::Plain)?;
            return Ok(Opened { bytes: Cow::Borrowed(stored), outdated: at != 0 });
        }
        let (name, rest) = stored.strip_prefix(AESGCM).and_then(split_name).ok_or(Unreadable::UnknownForm)?;
        let keys = self.providers.iter().enumerate().flat_map(|(at, provider)| match provider {
            Provider::AesGcm(keys) => keys.iter().enumerate().map(|(n, key)| (at == 0 && n == 0, key)).collect(),
            Provider::Identity => vec![],
        });
        let mut failed = Unreadable::NoKey(name.to_owned());
        for (first, sealing) in keys.filter(|(_, sealing)| sealing.name == name) {
            match sealing.open(key, rest) {
                Some(bytes) => return Ok(Opened { bytes: Cow::Owned(bytes), outdated: !first }),
                None => failed = Unreadable::Tampered,
            }
        }
        Err(failed)
    }
}

fn split_name(rest: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b':', rest)?;
    Some((std::str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]))
}

impl Key {
    fn derived(&self, salt: &[u8]) -> LessSafeKey {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let expanded = extracted.expand(&[PURPOSE], &AES_256_GCM).expect("a key of 32 bytes is never too long to derive");
        LessSafeKey::new(UnboundKey::from(expanded))
    }

    fn seal(&self, key: &str, plain: &[u8]) -> Bytes {
        let salt: [u8; SALT_BYTES] = rand::rng().random();
        let mut sealed = plain.to_vec();
        self.derived(&salt)
            .seal_in_place_append_tag(nonce(), Aad::from(key.as_bytes()), &mut sealed)
            .expect("an object is far below what AES-GCM can seal");
        [AESGCM, self.name.as_bytes(), b":", &salt, &sealed].concat().into()
    }

    fn open(&self, key: &str, rest: &[u8]) -> Option<Vec<u8>> {
        let (salt, sealed) = rest.split_at_checked(SALT_BYTES)?;
        let mut bytes = sealed.to_vec();
        let length = self.derived(salt).open_in_place(nonce(), Aad::from(key.as_bytes()), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

/// Each derived key seals one value, so that the nonce need not change.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests;
