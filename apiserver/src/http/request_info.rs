//! What a request's method and path ask for, before anything is looked up.

use crate::http::query::Query;
use http::Method;
use percent_encoding::percent_decode_str;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method that no verb of the API answers to (OPTIONS, TRACE, …).
    Other,
}

impl Verb {
    /// By its name; one that no request has is `Other`.
    pub fn parse(name: &str) -> Self {
        match name {
            "get" => Verb::Get,
            "list" => Verb::List,
            "watch" => Verb::Watch,
            "create" => Verb::Create,
            "update" => Verb::Update,
            "patch" => Verb::Patch,
            "delete" => Verb::Delete,
            "deletecollection" => Verb::DeleteCollection,
            _ => Verb::Other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    pub method: Method,
    pub verb: Verb,
    pub path: String,
    /// Whether the path is below `/api/VERSION` or `/apis/GROUP/VERSION` and names a resource.
    pub is_resource: bool,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// The plural.
    pub resource: String,
    /// As `status`, `log`; empty if the object itself is meant.
    pub subresource: String,
    /// What follows the subresource in the path (for `proxy`), with its leading slash.
    pub rest: String,
    /// For `/namespaces/x` too, as in Kubernetes: it is what is asked of the authoriser.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub query: Query,
}

impl RequestInfo {
    pub fn parse(method: &Method, uri: &http::Uri) -> Self {
        let path = uri.path().to_owned();
        let query = Query::parse(uri.query().unwrap_or_default());
        let mut info = RequestInfo {
            method: method.clone(),
            verb: Verb::Other,
            path,
            is_resource: false,
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            rest: String::new(),
            namespace: None,
            name: None,
            query,
        };
        info.parse_path();
        info.verb = info.verb_of(method);
        if info.name.is_none() && matches!(info.verb, Verb::List | Verb::Watch) {
            info.name = info.query.get("fieldSelector").and_then(only_name);
        }
        info
    }

    fn parse_path(&mut self) {
        let path = self.path.clone();
        let parts: Vec<String> =
            path.split('/').skip(1).map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return,
        };
        self.group = group.to_owned();
        self.version = version.to_owned();
        let rest = match rest.split_last() {
            Some((&"", before)) if before.len() < 3 => before,
            _ => rest,
        };
        let rest = match rest {
            [] => return,
            ["namespaces", namespace, ..] if rest.len() > 2 && !["status", "finalize"].contains(&rest[2]) => {
                self.namespace = Some((*namespace).to_owned());
                &rest[2..]
            }
            ["namespaces", namespace, ..] => {
                self.namespace = Some((*namespace).to_owned());
                rest
            }
            _ => rest,
        };
        self.is_resource = true;
        self.resource = rest[0].to_owned();
        self.name = rest.get(1).map(|name| (*name).to_owned());
        self.subresource = rest.get(2).copied().unwrap_or_default().to_owned();
        if rest.len() > 3 {
            self.rest = format!("/{}", rest[3..].join("/"));
        }
    }

    fn verb_of(&self, method: &Method) -> Verb {
        let named = self.name.is_some();
        match *method {
            Method::GET | Method::HEAD if !self.is_resource || named => Verb::Get,
            Method::GET | Method::HEAD if self.query.flag("watch") => Verb::Watch,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if named => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => Verb::Other,
        }
    }

    /// What the authorisers are asked for: the verb or, for a path that is no resource, the method.
    pub fn authorization_verb(&self) -> &'static str {
        if self.is_resource {
            return if self.verb == Verb::Other { "" } else { self.verb.as_str() };
        }
        match self.method {
            Method::GET => "get",
            Method::HEAD => "head",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::OPTIONS => "options",
            _ => "",
        }
    }

    /// Whether the answer may take as long as the client wishes: such requests do not count against the limit of
    /// requests in flight.
    pub fn is_long_running(&self) -> bool {
        self.verb == Verb::Watch
            || (self.is_resource && matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"))
    }
}

/// `metadata.name=x`: a list or watch of one object, which counts as naming it.
fn only_name(field_selector: &str) -> Option<String> {
    let name = crate::field_selector::required(field_selector, "metadata.name")?;
    (!name.is_empty() && !name.contains(['/', '%'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(method: Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, &path.parse().unwrap())
    }

    fn summary(method: Method, path: &str) -> String {
        let i = parse(method, path);
        format!(
            "{} {}/{} {} {} ns={} name={}",
            i.verb.as_str(),
            i.group,
            i.version,
            i.resource,
            i.subresource,
            i.namespace.unwrap_or_default(),
            i.name.unwrap_or_default()
        )
    }

    #[test]
    fn a_name_is_named_by_a_selector_that_demands_it() {
        let name = |selector: &str| parse(Method::GET, &format!("/api/v1/namespaces/a/pods?fieldSelector={selector}")).name;
        assert_eq!(name("metadata.name%3Dweb,spec.nodeName%3Dn1").as_deref(), Some("web"));
        assert_eq!(name("metadata.name!%3Dweb"), None);
        // This is one term, about another field.
        assert_eq!(name("spec.nodeName!%3Dx%5C,metadata.name%3D%3Dweb"), None);
        assert_eq!(name("spec.nodeName!%3Dx%5C,metadata.name%5C%3Dweb"), None);
        let all = parse(Method::DELETE, "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dweb");
        assert_eq!(all.name, None, "who deletes a collection names nothing");
    }

    #[test]
    fn paths() {
        let get = |path| summary(Method::GET, path);
        assert_eq!(get("/api/v1/namespaces/default/pods/web"), "get /v1 pods  ns=default name=web");
        assert_eq!(get("/api/v1/namespaces/default/pods"), "list /v1 pods  ns=default name=");
        assert_eq!(get("/api/v1/pods?watch=1"), "watch /v1 pods  ns= name=");
        assert_eq!(get("/api/v1/namespaces/default"), "get /v1 namespaces  ns=default name=default");
        assert_eq!(get("/api/v1/namespaces"), "list /v1 namespaces  ns= name=");
        assert_eq!(get("/api/v1/namespaces/x/status"), "get /v1 namespaces status ns=x name=x");
        assert_eq!(get("/apis/apps/v1/namespaces/a/deployments/b/scale"), "get apps/v1 deployments scale ns=a name=b");
        assert_eq!(get("/api/v1/nodes/n1"), "get /v1 nodes  ns= name=n1");
        assert_eq!(
            get("/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Dweb"),
            "watch /v1 pods  ns=a name=web"
        );
        assert_eq!(summary(Method::DELETE, "/api/v1/namespaces/a/pods"), "deletecollection /v1 pods  ns=a name=");
        assert_eq!(parse(Method::GET, "/api/v1/namespaces/a/services/s/proxy/x/y").rest, "/x/y");
        assert!(!parse(Method::GET, "/apis/apps/v1").is_resource);
        assert!(!parse(Method::GET, "/healthz").is_resource);
    }

    proptest! {
        /// What is asked of the authoriser is what stands in the path, whatever that is.
        #[test]
        fn any_path_is_taken_apart(
            segments in prop::collection::vec("(namespaces|pods|status|proxy|[a-z.~-]{1,4}|%2[EF]|%00|)", 0..6), query in "[a-z=&%0-9A-F]{0,20}",
            root in prop::sample::select(vec!["/api/v1", "/apis/apps/v1", "/api", "/apis", "/apis/apps", ""]),
        ) {
            let path = format!("{root}/{}?{query}", segments.join("/"));
            let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
            for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                let info = RequestInfo::parse(&method, &uri);
                if !info.is_resource {
                    prop_assert!(info.resource.is_empty() && info.name.is_none() && info.verb != Verb::Watch);
                    continue;
                }
                prop_assert!(!root.is_empty() || info.group == segments[0] || segments[0] != "api");
                if let Some(namespace) = &info.namespace {
                    prop_assert!(segments.windows(2).any(|pair| pair[0] == "namespaces" && percent_decode_str(&pair[1]).decode_utf8_lossy() == *namespace));
                }
                prop_assert!(info.verb == Verb::Other || info.authorization_verb() == info.verb.as_str());
            }
        }
    }
}
