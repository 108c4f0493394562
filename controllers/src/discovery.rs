//! Which kinds the API server serves, and what one may do with them.

use http::Request;
use kube::Client;
use serde::Deserialize;

use crate::resource::Resource;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    pub resource: Resource,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    versions: Vec<GroupVersion>,
    preferred_version: Option<GroupVersion>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Every kind once, in the version that its group prefers.
pub async fn discover(client: &Client) -> Result<Vec<Discovered>, kube::Error> {
    let (all, failed) = answering(client).await?;
    failed.into_iter().next().map_or(Ok(all), |(_, error)| Err(error))
}

/// The same, where it is better to know most kinds than none: an extension server that does not answer leaves its kinds as they
/// were `before`.
pub async fn discover_beside(client: &Client, before: &[Discovered]) -> Result<Vec<Discovered>, kube::Error> {
    let (mut all, failed) = answering(client).await?;
    for (group, error) in failed {
        tracing::warn!(group, %error, "the kinds of a group cannot be discovered");
        all.extend(before.iter().filter(|known| known.resource.group == group.as_str()).cloned());
    }
    Ok(all)
}

/// The kinds of all groups that answer, and the groups that don't.
async fn answering(client: &Client) -> Result<(Vec<Discovered>, Vec<(String, kube::Error)>), kube::Error> {
    let mut failed = vec![];
    let mut all = served(client, "/api/v1", "", "v1").await?;
    let groups: Groups = client.request(get("/apis")).await?;
    for group in groups.groups {
        let Some(preferred) = group.preferred_version.or_else(|| group.versions.first().cloned()) else { continue };
        let Some((name, version)) = preferred.group_version.split_once('/') else { continue };
        let path = format!("/apis/{}", preferred.group_version);
        match served(client, &path, name, version).await {
            Ok(kinds) => all.extend(kinds),
            Err(error) => failed.push((name.to_owned(), error)),
        }
    }
    Ok((all, failed))
}

async fn served(client: &Client, path: &str, group: &str, version: &str) -> Result<Vec<Discovered>, kube::Error> {
    let list: Resources = client.request(get(path)).await?;
    let whole = list.resources.into_iter().filter(|served| !served.name.contains('/'));
    let discovered = whole.map(|served| Discovered {
        resource: Resource {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            plural: served.name.into(),
            kind: served.kind.into(),
            namespaced: served.namespaced,
        },
        verbs: served.verbs,
    });
    Ok(discovered.collect())
}

fn get(path: &str) -> Request<Vec<u8>> {
    Request::get(path).header("accept", "application/json").body(vec![]).expect("discovered names make a path")
}
