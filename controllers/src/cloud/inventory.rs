//! What the cloud says there is, asked no more often than needed: many ask here, one asks the cloud.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use slipway_api::jiff::Timestamp;
use slipway_cloud::{Error, Instance, InstanceType, Provider, Subnet};
use tokio::{sync::Mutex, time::Instant};

/// Prices and sizes hardly ever change.
const CATALOGUE_AGE_MAX: Duration = Duration::from_secs(3600);

/// The cluster's machines, as of a moment.
#[derive(Clone)]
pub struct Inventory {
    provider: Arc<dyn Provider>,
    last: Arc<Mutex<Option<(Instant, Seen)>>>,
}

#[derive(Clone)]
pub struct Seen {
    /// When the cloud was asked.
    pub at: Timestamp,
    pub instances: Arc<Vec<Instance>>,
}

impl Seen {
    pub fn owned_by(&self, uid: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.owner.as_deref() == Some(uid))
    }
}

impl Inventory {
    pub fn new(provider: Arc<dyn Provider>) -> Inventory {
        Inventory { provider, last: Arc::default() }
    }

    pub async fn not_older_than(&self, age: Duration) -> Result<Seen, Error> {
        let now = Instant::now();
        self.asked_after(now.checked_sub(age).unwrap_or(now)).await
    }

    /// What the cloud answered to a question that was asked after `moment`.
    pub async fn asked_after(&self, moment: Instant) -> Result<Seen, Error> {
        let mut last = self.last.lock().await;
        if let Some((asked, seen)) = &*last
            && *asked >= moment
        {
            return Ok(seen.clone());
        }
        let (asked, at) = (Instant::now(), Timestamp::now());
        let instances = Arc::new(self.provider.instances().await?);
        let seen = Seen { at, instances };
        *last = Some((asked, seen.clone()));
        Ok(seen)
    }
}

/// What was answered to each question, and when.
type Answers<Q, A> = BTreeMap<Q, (Instant, A)>;

/// What can be bought, and where.
pub struct Catalogue {
    provider: Arc<dyn Provider>,
    types: Mutex<Answers<String, Option<InstanceType>>>,
    subnets: Mutex<Answers<Vec<String>, Vec<Subnet>>>,
}

impl Catalogue {
    pub fn new(provider: Arc<dyn Provider>) -> Catalogue {
        Catalogue { provider, types: Mutex::default(), subnets: Mutex::default() }
    }

    /// What is known of these types.
    pub async fn types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error> {
        let mut known = self.types.lock().await;
        known.retain(|_, (asked, _)| asked.elapsed() < CATALOGUE_AGE_MAX);
        let unknown: Vec<String> = names.iter().filter(|name| !known.contains_key(*name)).cloned().collect();
        if !unknown.is_empty() {
            let mut found: BTreeMap<String, InstanceType> =
                self.provider.instance_types(&unknown).await?.into_iter().map(|found| (found.name.clone(), found)).collect();
            let now = Instant::now();
            known.extend(unknown.into_iter().map(|name| {
                let found = found.remove(&name);
                (name, (now, found))
            }));
        }
        Ok(names.iter().filter_map(|name| known.get(name)?.1.clone()).collect())
    }

    pub async fn subnets(&self, ids: &[String]) -> Result<Vec<Subnet>, Error> {
        let mut known = self.subnets.lock().await;
        known.retain(|_, (asked, _)| asked.elapsed() < CATALOGUE_AGE_MAX);
        if let Some((_, subnets)) = known.get(ids) {
            return Ok(subnets.clone());
        }
        let subnets = self.provider.subnets(ids).await?;
        known.insert(ids.to_vec(), (Instant::now(), subnets.clone()));
        Ok(subnets)
    }
}
