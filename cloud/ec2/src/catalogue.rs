//! Instance types: what they hold comes from EC2, what they cost from a table.

use crate::Ec2;
use crate::error::classify;
use aws_sdk_ec2::types::{Filter, InstanceTypeInfo, LocationType};
use slipway_cloud::{Error, InstanceType};
use std::collections::BTreeMap;

/// Linux on demand in us-east-1, US dollars an hour, for the sizes whose price is the base of their family: within one
/// family the price doubles with the size. EC2's own API names no prices, and the price list is a service of its own
/// that isn't reachable from everywhere.
const PRICE_OF_LARGE: &[(&str, f64)] = &[
    ("t3", 0.0832),
    ("t3a", 0.0752),
    ("t4g", 0.0672),
    ("m5", 0.096),
    ("m5a", 0.086),
    ("m6a", 0.0864),
    ("m6i", 0.096),
    ("m6g", 0.077),
    ("m7a", 0.11592),
    ("m7g", 0.0816),
    ("m7i", 0.1008),
    ("c5", 0.085),
    ("c5a", 0.077),
    ("c6a", 0.0765),
    ("c6g", 0.068),
    ("c6i", 0.085),
    ("c7a", 0.10264),
    ("c7g", 0.0725),
    ("c7i", 0.08925),
    ("r5", 0.126),
    ("r6a", 0.1134),
    ("r6g", 0.1008),
    ("r6i", 0.126),
    ("r7g", 0.1071),
    ("r7i", 0.1323),
];

/// The price of a type that the table doesn't know, by what it holds: more than a known one of the same size, so that
/// the known one is preferred.
const UNKNOWN_PER_CPU: f64 = 0.05;
const UNKNOWN_PER_GIB: f64 = 0.007;

impl Ec2 {
    pub(crate) async fn describe_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error> {
        if names.is_empty() {
            return Ok(vec![]);
        }
        let zones = self.zones_of(names).await?;
        // Asked by filter and not by name: one unknown name would make EC2 refuse the whole request.
        let mut pages = self
            .ec2
            .describe_instance_types()
            .filters(Filter::builder().name("instance-type").set_values(Some(names.to_vec())).build())
            .into_paginator()
            .send();
        let mut types = vec![];
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            types.extend(page.instance_types().iter().filter_map(|info| instance_type(info, &zones)));
        }
        types.retain(|known| names.contains(&known.name));
        Ok(types)
    }

    async fn zones_of(&self, names: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut pages = self
            .ec2
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .filters(Filter::builder().name("instance-type").set_values(Some(names.to_vec())).build())
            .into_paginator()
            .send();
        let mut zones: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            for offering in page.instance_type_offerings() {
                if let (Some(name), Some(zone)) = (offering.instance_type(), offering.location()) {
                    zones.entry(name.as_str().to_owned()).or_default().push(zone.to_owned());
                }
            }
        }
        Ok(zones)
    }
}

fn instance_type(info: &InstanceTypeInfo, zones: &BTreeMap<String, Vec<String>>) -> Option<InstanceType> {
    let name = info.instance_type()?.as_str().to_owned();
    let cpus = info.v_cpu_info()?.default_v_cpus()?;
    let memory_mib = info.memory_info()?.size_in_mib()?;
    let architectures = info.processor_info().map(|processor| processor.supported_architectures()).unwrap_or_default();
    let arm = architectures.iter().any(|architecture| architecture.as_str() == "arm64");
    let mut zones = zones.get(&name).cloned().unwrap_or_default();
    zones.sort();
    Some(InstanceType {
        price_per_hour: price(&name).unwrap_or(f64::from(cpus) * UNKNOWN_PER_CPU + memory_mib as f64 / 1024.0 * UNKNOWN_PER_GIB),
        name,
        cpu_milli: i64::from(cpus) * 1000,
        memory_bytes: memory_mib << 20,
        architecture: if arm { "arm64" } else { "amd64" }.to_owned(),
        zones,
    })
}

/// `m5.2xlarge` → four times `m5.large`.
fn price(name: &str) -> Option<f64> {
    let (family, size) = name.split_once('.')?;
    let large = PRICE_OF_LARGE.iter().find(|(known, _)| *known == family)?.1;
    let times = match size {
        "nano" => 0.0625,
        "micro" => 0.125,
        "small" => 0.25,
        "medium" => 0.5,
        "large" => 1.0,
        "xlarge" => 2.0,
        "metal" => return None,
        other => 2.0 * other.strip_suffix("xlarge")?.parse::<f64>().ok()?,
    };
    Some(large * times)
}

#[cfg(test)]
mod tests {
    use super::price;

    #[test]
    fn prices_double_with_the_size() {
        assert_eq!(price("m5.large"), Some(0.096));
        assert_eq!(price("m5.2xlarge"), Some(0.384));
        assert_eq!(price("t3.medium"), Some(0.0416));
        assert_eq!(price("z99.large"), None);
        assert_eq!(price("nonsense"), None);
    }
}
