//! Values that have functions only.

use super::semver::Semver;
use super::url::Url;
use slipway_api::quantity::Quantity;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone)]
pub enum Opaque<'a> {
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Arc<Url>),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    /// A named format.
    Format(&'static str),
    /// `authorizer`, and what follows from it.
    Check(Check<'a>),
    Decision(Arc<Decision>),
}

/// What an expression asks the authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The namespace and the name of the account that is asked about; `None`: who makes the request.
    pub service_account: Option<(String, String)>,
    /// Of a request that is for no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub verb: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// Who decides what an expression asks.
pub trait Authorizer: Sync {
    fn decide(&self, attributes: &Attributes) -> Decision;
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Empty: there was none.
    pub error: String,
}

#[derive(Clone)]
pub struct Check<'a> {
    pub authorizer: &'a dyn Authorizer,
    pub attributes: Arc<Attributes>,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
}

impl<'a> Opaque<'a> {
    /// `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        Opaque::Check(Check { authorizer, attributes: Arc::default(), stage: Stage::Authorizer })
    }

    /// `authorizer.requestResource`.
    pub fn request_resource(authorizer: &'a dyn Authorizer, attributes: Attributes) -> Self {
        Opaque::Check(Check { authorizer, attributes: Arc::new(attributes), stage: Stage::Resource })
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(..) => "net.CIDR",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Check(check) => match check.stage {
                Stage::Authorizer => "kubernetes.authorization.Authorizer",
                Stage::Path => "kubernetes.authorization.PathCheck",
                Stage::Group => "kubernetes.authorization.GroupCheck",
                Stage::Resource => "kubernetes.authorization.ResourceCheck",
            },
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub fn equals(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, x), Opaque::Cidr(b, y)) => a == b && x == y,
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.order(b).is_eq(),
            (Opaque::Format(a), Opaque::Format(b)) => a == b,
            (Opaque::Check(a), Opaque::Check(b)) => a.stage == b.stage && a.attributes == b.attributes,
            (Opaque::Decision(a), Opaque::Decision(b)) => a == b,
            _ => false,
        }
    }

    pub fn print(&self) -> String {
        match self {
            Opaque::Ip(ip) => ip.to_string(),
            Opaque::Cidr(ip, bits) => format!("{ip}/{bits}"),
            Opaque::Url(url) => url.whole.clone(),
            Opaque::Quantity(quantity) => quantity.to_string(),
            Opaque::Semver(version) => version.to_string(),
            Opaque::Format(name) => (*name).to_owned(),
            Opaque::Check(_) | Opaque::Decision(_) => self.type_name().to_owned(),
        }
    }
}
