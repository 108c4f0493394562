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
    let mut all = served(client, "/api/v1", "", "v1").await?;
    let groups: Groups = client.request(get("/apis")).await?;
    for group in groups.groups {
        let Some(preferred) = group.preferred_version.or_else(|| group.versions.first().cloned()) else { continue };
        let Some((name, version)) = preferred.group_version.split_once('/') else { continue };
        let path = format!("/apis/{}", preferred.group_version);
        all.extend(served(client, &path, name, version).await?);
    }
    Ok(all)
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
