//! URLs, as Go's `url.ParseRequestURI` reads them.

use super::opaque::Opaque;
use super::operators::text_map;
use super::{Line, bool_of, string_of, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const LIBRARY: &[Line] = &[
    ("url(string):kubernetes.URL", |frame, args| {
        let given = text(args, 0)?;
        frame.charge_text(given.len())?;
        let url = Url::parse(given).ok_or_else(|| {
            Error::new(format!("URL parse error during conversion from string: parse {given:?}: invalid URI for request"))
        })?;
        Ok(Value::Opaque(Opaque::Url(Arc::new(url))))
    }),
    ("isURL(string):bool", |frame, args| {
        let given = text(args, 0)?;
        frame.charge_text(given.len())?;
        bool_of(Url::parse(given).is_some())
    }),
    (".getScheme(kubernetes.URL):string", |_, args| string_of(url(args)?.scheme.as_str())),
    (".getHost(kubernetes.URL):string", |_, args| string_of(url(args)?.host.as_str())),
    (".getHostname(kubernetes.URL):string", |_, args| string_of(url(args)?.hostname_and_port().0)),
    (".getPort(kubernetes.URL):string", |_, args| string_of(url(args)?.hostname_and_port().1)),
    (".getEscapedPath(kubernetes.URL):string", |_, args| string_of(url(args)?.path.as_str())),
    (".getQuery(kubernetes.URL):map<string,list<string>>", |_, args| {
        let mut query: BTreeMap<String, Vec<Value<'_>>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(url(args)?.query.as_bytes()) {
            query.entry(name.into_owned()).or_default().push(Value::string(value.into_owned()));
        }
        Ok(text_map(query.into_iter().map(|(name, values)| (name, Value::list(values)))))
    }),
];

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub whole: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, Error> {
    match &args[0] {
        Value::Opaque(Opaque::Url(url)) => Ok(url),
        _ => Err(Error::no_overload()),
    }
}

impl Url {
    /// An absolute URL or an absolute path, and no fragment.
    pub fn parse(text: &str) -> Option<Url> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let (scheme, rest) = scheme(text);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !text.starts_with("///") => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            _ if rest.starts_with('/') => ("", rest),
            // `mailto:x`
            _ if !scheme.is_empty() => ("", rest),
            _ => return None,
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let escapes =
            path.split('%').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
        if !escapes || !is_host(host) {
            return None;
        }
        let own = |text: &str| text.to_owned();
        Some(Url { whole: own(text), scheme: scheme.to_ascii_lowercase(), host: own(host), path: own(path), query: own(query) })
    }

    fn hostname_and_port(&self) -> (&str, &str) {
        if let Some(rest) = self.host.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').unwrap_or((rest, ""));
            return (name, rest.strip_prefix(':').unwrap_or_default());
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }
}

fn scheme(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
        {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, rest)) if name.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()) => rest,
            _ => return false,
        },
        None => {
            let (name, port) = host.split_once(':').map_or((host, ""), |(name, _)| (name, &host[name.len()..]));
            if name.contains(['<', '>', '"', '^', '`', '{', '|', '}', '\\', '[', ']']) {
                return false;
            }
            port
        }
    };
    port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}
