//! A container's environment: literals, `$(VAR)`, ConfigMaps, Secrets, the pod's own fields, and services.

use super::Context;
use slipway_api::core::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Service};
use slipway_api::quantity::Quantity;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar sign.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => drop(write!(out, "$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The value of a field of the pod, as the downward API gives it.
pub fn field(pod: &Pod, path: &str, context: &Context, ips: &[String]) -> Result<String, String> {
    let (meta, spec) = (&pod.metadata, pod.spec.clone().unwrap_or_default());
    let list = |map: Option<&BTreeMap<String, String>>| {
        map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("invalid fieldPath: {path}")),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => list(meta.labels.as_ref()),
        "metadata.annotations" => list(meta.annotations.as_ref()),
        "spec.nodeName" => context.options.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.unwrap_or_default(),
        "status.hostIP" => context.options.node_ip.to_string(),
        "status.hostIPs" => context.options.node_ip.to_string(),
        "status.podIP" => ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// The amount of a resource, in units of the divisor, rounded up. Without a limit it is what the node has.
pub fn resource(pod: &Pod, own: Option<&str>, wanted: &ResourceFieldSelector, context: &Context) -> Result<String, String> {
    let name = wanted.container_name.as_deref().filter(|name| !name.is_empty()).or(own).unwrap_or_default();
    let container = super::start::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
    let (list, key) = wanted.resource.split_once('.').ok_or_else(|| format!("unsupported resource: {}", wanted.resource))?;
    let resources = container.resources.clone().unwrap_or_default();
    let given = match list {
        "limits" => resources.limits.as_ref().and_then(|limits| limits.get(key)).cloned(),
        _ => resources.requests.as_ref().and_then(|requests| requests.get(key)).cloned(),
    };
    let given = given.map(|text| text.0).or_else(|| (list == "limits").then(|| context.allocatable(key)).flatten());
    let amount = given.and_then(|text| Quantity::parse(&text).ok()).unwrap_or_default();
    let divisor = wanted.divisor.as_ref().and_then(|text| Quantity::parse(&text.0).ok()).filter(|divisor| !divisor.is_zero());
    let divide = |amount: i64, by: i64| (amount + by - 1) / by.max(1);
    Ok(if key == "cpu" {
        divide(amount.milli(), divisor.map_or(1000, Quantity::milli)).to_string()
    } else {
        divide(amount.value(), divisor.map_or(1, Quantity::value)).to_string()
    })
}

/// The variables that tell of services, as Docker's links once did.
pub fn of_services(services: &[std::sync::Arc<Service>], namespace: &str, all: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (name, of) = (service.metadata.name.as_deref().unwrap_or_default(), service.metadata.namespace.as_deref());
        let master = of == Some("default") && name == "kubernetes";
        let wanted = master || (all && of == Some(namespace));
        if !wanted {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                variables.insert(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
            }
            if index == 0 {
                variables.insert(format!("{prefix}_PORT"), url.clone());
            }
            let each = format!("{prefix}_PORT_{}_{protocol}", port.port);
            variables.insert(format!("{each}_PROTO"), protocol.to_lowercase());
            variables.insert(format!("{each}_PORT"), port.port.to_string());
            variables.insert(format!("{each}_ADDR"), ip.to_owned());
            variables.insert(each, url);
        }
    }
    variables
}

/// All of a container's variables. The error is what `CreateContainerConfigError` says.
pub async fn environment(
    pod: &Pod,
    container: &Container,
    context: &Context,
    ips: &[String],
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut all = of_services(&context.objects.services().await?, namespace, links);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(from) = &source.config_map_ref {
            match context.objects.config_map(namespace, &from.name, uid).await? {
                Some(map) => all.extend(map.data.iter().flatten().map(|(key, value)| (format!("{prefix}{key}"), value.clone()))),
                None if from.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", from.name)),
            }
        }
        if let Some(from) = &source.secret_ref {
            match context.objects.secret(namespace, &from.name, uid).await? {
                Some(secret) => all.extend(
                    secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, value)| (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())),
                ),
                None if from.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", from.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, &all)),
            (_, Some(from)) => from_source(pod, container, variable, from, context, ips).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    Ok(all)
}

async fn from_source(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    from: &EnvVarSource,
    context: &Context,
    ips: &[String],
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let Some(ObjectFieldSelector { field_path, .. }) = &from.field_ref {
        return field(pod, field_path, context, ips).map(Some);
    }
    if let Some(wanted) = &from.resource_field_ref {
        return resource(pod, Some(&container.name), wanted, context).map(Some);
    }
    if let Some(wanted) = &from.config_map_key_ref {
        let optional = wanted.optional == Some(true);
        return match context.objects.config_map(namespace, &wanted.name, uid).await? {
            Some(map) => match map.data.iter().flatten().find(|(key, _)| **key == wanted.key) {
                Some((_, value)) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", wanted.key, wanted.name)),
            },
            None if optional => Ok(None),
            None => Err(format!("configmap \"{}\" not found", wanted.name)),
        };
    }
    if let Some(wanted) = &from.secret_key_ref {
        let optional = wanted.optional == Some(true);
        return match context.objects.secret(namespace, &wanted.name, uid).await? {
            Some(secret) => match secret.data.iter().flatten().find(|(key, _)| **key == wanted.key) {
                Some((_, value)) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", wanted.key, wanted.name)),
            },
            None if optional => Ok(None),
            None => Err(format!("secret \"{}\" not found", wanted.name)),
        };
    }
    Err(format!("environment variable {} has no source that is known", variable.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_kubernetes_rules() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, wanted) in [
            ("x$(A)y", "x1y"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(A)"),
            ("$A", "$A"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &known), wanted, "{text}");
        }
    }
}
