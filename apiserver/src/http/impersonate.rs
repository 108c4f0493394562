//! Impersonation: a request that is to be carried out as somebody else (`kubectl --as`), by one who may `impersonate` all of
//! what the headers say: user or service account, groups, UID and extras.

use crate::authorization::Attributes;
use crate::http::authenticate::User;
use crate::http::authorize::check;
use crate::http::error::Status;
use crate::server::ApiServer;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// What the headers ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    /// Key and value, in the order of the headers.
    extra: Vec<(String, String)>,
}

/// The user as whom the request is carried out: `user`, if no header asks for another. The headers are taken off.
pub fn act(server: &ApiServer, user: User, parts: &mut Parts) -> Result<User, Status> {
    let Some(wanted) = Wanted::of(&parts.headers).map_err(|why| unclear(&parts.uri, &why))? else { return Ok(user) };
    wanted.check(server, &user)?;
    let names: Vec<_> = parts.headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    names.into_iter().for_each(|name| {
        parts.headers.remove(name);
    });
    let acting = wanted.user();
    crate::audit::impersonated(&acting);
    Ok(acting)
}

fn unclear(uri: &http::Uri, why: &str) -> Status {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal Server Error: {path:?}: {why}"))
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let texts = |name: &str| -> Result<Vec<String>, String> {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().map(str::to_owned).map_err(|_| format!("{name} is no text"))).collect()
        };
        let first = |name: &str| Ok::<_, String>(texts(name)?.into_iter().next().unwrap_or_default());
        let mut wanted = Wanted { user: first(USER)?, groups: texts(GROUP)?, uid: first(UID)?, extra: vec![] };
        for name in headers.keys() {
            let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
            let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), |key| key.into_owned());
            wanted.extra.extend(texts(name.as_str())?.into_iter().map(|value| (key.clone(), value)));
        }
        let more = !wanted.groups.is_empty() || !wanted.uid.is_empty() || !wanted.extra.is_empty();
        match (wanted.user.is_empty(), more) {
            (true, true) => Err(format!("requested {} without impersonating a user", wanted.told())),
            (true, false) => Ok(None),
            _ => Ok(Some(wanted)),
        }
    }

    /// As Go prints the list of what is asked for.
    fn told(&self) -> String {
        let groups = self.groups.iter().map(|group| format!("{{Group  {group}    }}"));
        let extra = self.extra.iter().map(|(key, value)| format!("{{UserExtra  {value}  {AUTHENTICATION}/v1  {key}}}"));
        let uid = Some(&self.uid).filter(|uid| !uid.is_empty()).map(|uid| format!("{{UID  {uid}  {AUTHENTICATION}/v1  }}"));
        format!("[{}]", groups.chain(extra).chain(uid).collect::<Vec<_>>().join(" "))
    }

    /// Each thing is a right of its own.
    fn check(&self, server: &ApiServer, by: &User) -> Result<(), Status> {
        let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
            let asked = Attributes {
                subresource,
                namespace,
                name,
                version: "v1",
                ..Attributes::resource("impersonate", group, resource)
            };
            check(server, by, &asked)
        };
        match service_account(&self.user) {
            Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
            None => may("", "users", "", "", &self.user)?,
        }
        for group in &self.groups {
            may("", "groups", "", "", group)?;
        }
        for (key, value) in &self.extra {
            may(AUTHENTICATION, "userextras", key, "", value)?;
        }
        if !self.uid.is_empty() {
            may(AUTHENTICATION, "uids", "", "", &self.uid)?;
        }
        Ok(())
    }

    fn user(&self) -> User {
        let mut groups = self.groups.clone();
        if let (true, Some((namespace, _))) = (groups.is_empty(), service_account(&self.user)) {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        let has = |group: &str| groups.iter().any(|own| own == group);
        if self.user == User::ANONYMOUS {
            if !has(User::UNAUTHENTICATED) {
                groups.push(User::UNAUTHENTICATED.to_owned());
            }
        } else if !has(User::AUTHENTICATED) && !has(User::UNAUTHENTICATED) {
            groups.push(User::AUTHENTICATED.to_owned());
        }
        let mut user = User { name: self.user.clone(), uid: self.uid.clone(), groups, ..User::default() };
        for (key, value) in &self.extra {
            user.extra.entry(key.clone()).or_default().push(value.clone());
        }
        user
    }
}

/// Namespace and name, if that is what a service account is called.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_name = slipway_api::name::dns1123_label(namespace).is_empty() && slipway_api::name::dns1123_subdomain(name).is_empty();
    is_name.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn wanted(headers: &[(&'static str, &'static str)]) -> Result<Option<Wanted>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Wanted::of(&map)
    }

    fn groups(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        wanted(headers).unwrap().unwrap().user().groups
    }

    #[test]
    fn headers_make_a_user() {
        assert_eq!(wanted(&[]).unwrap(), None);
        let user = wanted(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "p1"),
            ("impersonate-extra-acme.com%2fproject", "p2"),
        ]);
        let user = user.unwrap().unwrap().user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["p1", "p2"]);
    }

    #[test]
    fn groups_are_given_or_known() {
        assert_eq!(groups(&[("impersonate-user", "jane")]), ["system:authenticated"]);
        assert_eq!(
            groups(&[("impersonate-user", "jane"), ("impersonate-group", "system:authenticated")]),
            ["system:authenticated"]
        );
        assert_eq!(groups(&[("impersonate-user", "system:anonymous")]), ["system:unauthenticated"]);
        assert_eq!(
            groups(&[("impersonate-user", "system:serviceaccount:a:robot")]),
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        assert_eq!(
            groups(&[("impersonate-user", "system:serviceaccount:a:robot"), ("impersonate-group", "x")]),
            ["x", "system:authenticated"]
        );
    }

    #[test]
    fn a_group_alone_is_nobody() {
        let error = wanted(&[("impersonate-group", "dev")]).unwrap_err();
        assert_eq!(error, "requested [{Group  dev    }] without impersonating a user");
        assert!(wanted(&[("impersonate-uid", "7")]).is_err());
        assert!(wanted(&[("impersonate-extra-a", "b")]).is_err());
    }

    proptest! {
        /// Any headers make a user, or none, or are refused; and nobody is in a group that was not asked for.
        #[test]
        fn any_headers_make_a_user_or_none(headers in prop::collection::vec(
            ("impersonate-(user|group|uid|extra-[a-z%0-9]{0,6}|[a-z]{0,3})", prop::collection::vec(any::<u8>(), 0..12)), 0..6,
        )) {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) else { continue };
                map.append(name, value);
            }
            let Ok(Some(wanted)) = Wanted::of(&map) else { return Ok(()) };
            let user = wanted.user();
            prop_assert!(!user.name.is_empty());
            prop_assert!(user.is_in(User::AUTHENTICATED) || user.is_in(User::UNAUTHENTICATED));
            for group in &user.groups {
                prop_assert!(wanted.groups.contains(group) || group.starts_with("system:serviceaccounts") || [User::AUTHENTICATED, User::UNAUTHENTICATED].contains(&group.as_str()));
            }
        }
    }
}
