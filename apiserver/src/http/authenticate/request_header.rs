//! Proxies in front of the server that say in headers who asks, and prove by a certificate that they may.

use super::{Peer, User};
use crate::http::error::Status;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// As kube-apiserver's `--requestheader-*`.
#[derive(Debug, Clone)]
pub struct RequestHeader {
    /// Who signs the proxies' certificates.
    pub client_ca_pem: String,
    /// Common names that may speak for others; empty: all that the CA signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        RequestHeader {
            client_ca_pem: String::new(),
            allowed_names: vec![],
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl RequestHeader {
    /// For whom the proxy speaks; `None` if it is none, or does not say for whom. One that is not on the list is refused.
    pub(super) fn user(&self, peer: &Peer, headers: &HeaderMap) -> Option<Result<User, Status>> {
        let proxy = peer.proxy.as_ref()?;
        let texts = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
        let first = |names: &[String]| names.iter().flat_map(|name| texts(name)).find(|text| !text.is_empty());
        let name = first(&self.username_headers)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(proxy) {
            // Whoever is no proxy may not pretend to be one, but may be a user.
            return if peer.user.is_some() { None } else { Some(Err(Status::unauthorized())) };
        }
        let groups: Vec<&str> = self.group_headers.iter().flat_map(|header| texts(header)).collect();
        let mut user = User::new(name, &groups);
        user.uid = first(&self.uid_headers).unwrap_or_default().to_owned();
        for header in headers.keys() {
            let key = self.extra_header_prefixes.iter().find_map(|prefix| {
                let start = header.as_str().get(..prefix.len())?;
                start.eq_ignore_ascii_case(prefix).then(|| &header.as_str()[prefix.len()..])
            });
            if let Some(key) = key.filter(|key| !key.is_empty()) {
                // Headers can't hold every key, so that it may be percent-encoded.
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                user.extra.entry(key).or_default().extend(texts(header.as_str()).into_iter().map(str::to_owned));
            }
        }
        Some(Ok(user))
    }

    /// The headers that only a proxy may send on: they must not reach whoever is asked next.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        for name in self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers) {
            headers.remove(name.as_str());
        }
        let extra = |name: &str| {
            let begins = |prefix: &String| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
            self.extra_header_prefixes.iter().any(begins)
        };
        let extras: Vec<_> = headers.keys().filter(|name| extra(name.as_str())).cloned().collect();
        extras.iter().for_each(|name| drop(headers.remove(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn peer(proxy: Option<&str>) -> Peer {
        Peer { user: None, proxy: proxy.map(str::to_owned), not_after: 0 }
    }

    #[test]
    fn a_proxy_says_who_asks() {
        let sent = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "u"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-scopes.io%2fkey", "1"),
            ("x-remote-extra-scopes.io%2fkey", "2"),
            ("accept", "*/*"),
        ]);
        let rule = RequestHeader { allowed_names: vec!["front".into()], ..RequestHeader::default() };
        let user = rule.user(&peer(Some("front")), &sent).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "u"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["scopes.io/key"], ["1", "2"]);
        assert!(rule.user(&peer(None), &sent).is_none(), "who is no proxy is not listened to");
        assert!(rule.user(&peer(Some("other")), &sent).unwrap().is_err());
        assert!(rule.user(&peer(Some("front")), &headers(&[("x-remote-group", "system:masters")])).is_none());
        let mut left = sent;
        rule.strip(&mut left);
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
