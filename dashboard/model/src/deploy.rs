//! The form's words made into objects.

use crate::text;
use serde_json::{Value, json};

/// A label's limit, which names of Services have to keep.
const NAME_CHARS_MAX: usize = 63;
/// More is no slip of the finger that a form should let through.
const REPLICAS_MAX: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expose {
    NodePort,
    LoadBalancer,
    ClusterIp,
    Not,
}

impl Expose {
    pub const ALL: [Expose; 4] = [Expose::NodePort, Expose::LoadBalancer, Expose::ClusterIp, Expose::Not];

    /// The Service's type.
    pub fn as_str(self) -> &'static str {
        match self {
            Expose::NodePort => "NodePort",
            Expose::LoadBalancer => "LoadBalancer",
            Expose::ClusterIp => "ClusterIP",
            Expose::Not => "None",
        }
    }
}

/// What stands in the form.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub port: String,
    pub replicas: String,
    pub expose: Expose,
}

/// What a checked form asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub port: Option<u16>,
    pub replicas: u32,
    pub expose: Expose,
}

/// What is wrong with a form, field by field.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mistakes(pub Vec<(&'static str, String)>);

impl Mistakes {
    pub fn of(&self, field: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, why)| why.clone())
    }
}

impl Draft {
    /// Checks what the browser can know; the API has the last word.
    pub fn check(&self) -> Result<Wish, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut wrong = |field, why: &str| mistakes.0.push((field, why.to_owned()));
        let (namespace, name, image) = (self.namespace.trim(), self.name.trim(), self.image.trim());
        if let Some(why) = name_mistake(name) {
            wrong("name", why);
        }
        if image.is_empty() {
            wrong("image", "Which image shall run?");
        } else if image.contains(char::is_whitespace) {
            wrong("image", "An image's name has no spaces.");
        }
        if namespace.is_empty() {
            wrong("namespace", "An app lives in a namespace.");
        }
        let port = match self.port.trim() {
            "" => None,
            digits => match digits.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    wrong("port", "A port is a number from 1 to 65535.");
                    None
                }
            },
        };
        if self.expose != Expose::Not && self.port.trim().is_empty() {
            wrong("port", "To be reachable, an app needs the port it listens on.");
        }
        let replicas = self.replicas.trim().parse::<u32>().ok().filter(|count| *count <= REPLICAS_MAX);
        if replicas.is_none() {
            wrong("replicas", "A number from 0 to 1000.");
        }
        let wish = Wish {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            image: image.to_owned(),
            port,
            replicas: replicas.unwrap_or_default(),
            expose: self.expose,
        };
        if mistakes.0.is_empty() { Ok(wish) } else { Err(mistakes) }
    }
}

/// The app's name is also its Service's, whose rules are the narrower ones.
fn name_mistake(name: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() {
        return Some("How shall the app be called?");
    }
    if name.len() > NAME_CHARS_MAX {
        return Some("At most 63 characters.");
    }
    let well_formed =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.ends_with(plain) && name.chars().all(|c| plain(c) || c == '-');
    (!well_formed).then_some("Lower-case letters, digits and hyphens; a letter first, no hyphen last.")
}

pub fn deployment(wish: &Wish) -> Value {
    let mut container = json!({"name": wish.name, "image": wish.image});
    if let Some(port) = wish.port {
        container["ports"] = json!([{"containerPort": port}]);
        container["readinessProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 2});
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": wish.name, "namespace": wish.namespace, "labels": {"app": wish.name}},
        "spec": {
            "replicas": wish.replicas,
            "selector": {"matchLabels": {"app": wish.name}},
            "template": {"metadata": {"labels": {"app": wish.name}}, "spec": {"containers": [container]}},
        },
    })
}

/// The Service that a wish asks for. It belongs to the Deployment, where that exists already, so that it goes with it.
pub fn service(wish: &Wish, deployment: Option<&Value>) -> Option<Value> {
    let port = wish.port.filter(|_| wish.expose != Expose::Not)?;
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": wish.name, "namespace": wish.namespace, "labels": {"app": wish.name}},
        "spec": {"type": wish.expose.as_str(), "selector": {"app": wish.name}, "ports": [{"port": port, "targetPort": port}]},
    });
    if let Some(owner) = deployment {
        service["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": wish.name, "uid": text(owner, "/metadata/uid"),
        }]);
    }
    Some(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        let text = str::to_owned;
        let (name, image) = (text("web"), text(" registry.example.com/web:1 "));
        Draft { namespace: text("default"), name, image, port: text("8080"), replicas: text("2"), expose: Expose::NodePort }
    }

    #[test]
    fn a_good_draft_becomes_a_deployment_and_a_service_that_belongs_to_it() {
        let wish = draft().check().unwrap();
        assert_eq!((wish.image.as_str(), wish.port, wish.replicas), ("registry.example.com/web:1", Some(8080), 2));
        assert_eq!(text(&deployment(&wish), "/spec/template/spec/containers/0/image"), "registry.example.com/web:1");
        let owner = json!({"metadata": {"uid": "u-1"}});
        let service = service(&wish, Some(&owner)).unwrap();
        assert_eq!(text(&service, "/metadata/ownerReferences/0/uid"), "u-1");
        assert_eq!(service["spec"]["ports"][0]["port"], 8080);
    }

    #[test]
    fn every_mistake_is_told_at_its_field() {
        let bad = Draft { name: "1web".into(), image: "a b".into(), port: "0".into(), replicas: "-1".into(), ..draft() };
        let mistakes = bad.check().unwrap_err();
        let fields: Vec<&str> = mistakes.0.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["name", "image", "port", "replicas"]);
        let names = ["", "Web", "web-", "we b", "web.a"].map(|name| Draft { name: name.into(), ..draft() }.check().is_err());
        assert_eq!(names, [true; 5]);
        assert!(Draft { name: "a".repeat(64), ..draft() }.check().is_err());
    }

    #[test]
    fn only_an_app_that_nobody_reaches_may_do_without_a_port() {
        let without = |expose| Draft { port: String::new(), expose, ..draft() }.check();
        assert!(without(Expose::ClusterIp).is_err());
        let wish = without(Expose::Not).unwrap();
        assert_eq!(service(&wish, None), None);
    }
}
