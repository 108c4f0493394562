//! Instances: launched, found by their tags, terminated.

use crate::Ec2;
use crate::error::classify;
use aws_sdk_ec2::types::{
    Filter, IamInstanceProfileSpecification, Instance as Ec2Instance, InstanceMarketOptionsRequest, InstanceStateName,
    MarketType, Placement, ResourceType, Tag, TagSpecification,
};
use base64::Engine;
use slipway_cloud::{Error, Instance, InstanceState, Launch, Subnet, TAG_CLUSTER, TAG_OWNER};

impl Ec2 {
    /// EC2 remembers a client token for as long as the instance lives, so that the same one never starts a second. The
    /// tag is asked first all the same: an emulator, or a token older than EC2's memory, must not buy twice either.
    pub(crate) async fn run_instance(&self, launch: &Launch) -> Result<Instance, Error> {
        if let Some(instance) = self.find(TAG_OWNER, &launch.token).await?.into_iter().next() {
            return Ok(instance);
        }
        let mut tags = launch.tags.clone();
        tags.insert("Name".into(), launch.name.clone());
        tags.insert(TAG_CLUSTER.into(), self.cluster.clone());
        tags.insert(TAG_OWNER.into(), launch.token.clone());
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let specification = TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(tags)).build();
        let market = InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).build();
        let zone = launch.zone.as_ref().map(|zone| Placement::builder().availability_zone(zone).build());
        let profile = launch.instance_profile.as_ref().map(|name| IamInstanceProfileSpecification::builder().name(name).build());
        let answer = self
            .ec2
            .run_instances()
            .client_token(&launch.token)
            .image_id(&launch.image)
            .instance_type(launch.instance_type.as_str().into())
            .min_count(1)
            .max_count(1)
            .user_data(base64::engine::general_purpose::STANDARD.encode(&launch.user_data))
            .set_subnet_id(launch.subnet.clone())
            .set_security_group_ids((!launch.security_groups.is_empty()).then(|| launch.security_groups.clone()))
            .set_key_name(launch.key_name.clone())
            .set_placement(zone)
            .set_iam_instance_profile(profile)
            .set_instance_market_options(launch.spot.then_some(market))
            .tag_specifications(specification)
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let launched = answer.instances().first().ok_or_else(|| Error::Retryable("RunInstances answered no instance".into()))?;
        Ok(instance(launched))
    }

    pub(crate) async fn describe_instances(&self) -> Result<Vec<Instance>, Error> {
        self.find(TAG_CLUSTER, &self.cluster).await
    }

    /// The instances with a tag that are not terminated, or about to be.
    async fn find(&self, tag: &str, value: &str) -> Result<Vec<Instance>, Error> {
        let states = ["pending", "running", "stopping", "stopped", "shutting-down"];
        let mut pages = self
            .ec2
            .describe_instances()
            .filters(Filter::builder().name(format!("tag:{tag}")).values(value).build())
            .filters(Filter::builder().name("instance-state-name").set_values(Some(states.map(String::from).to_vec())).build())
            .into_paginator()
            .send();
        let mut found = vec![];
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            found.extend(page.reservations().iter().flat_map(|reservation| reservation.instances()).map(instance));
        }
        found.retain(|instance: &Instance| instance.state != InstanceState::Terminated);
        Ok(found)
    }

    pub(crate) async fn describe_subnets(&self, ids: &[String]) -> Result<Vec<Subnet>, Error> {
        let default = Filter::builder().name("default-for-az").values("true").build();
        let call = self.ec2.describe_subnets();
        let call = if ids.is_empty() { call.filters(default) } else { call.set_subnet_ids(Some(ids.to_vec())) };
        let mut pages = call.into_paginator().send();
        let mut found = vec![];
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            let read = |subnet: &aws_sdk_ec2::types::Subnet| {
                Some(Subnet { id: subnet.subnet_id()?.to_owned(), zone: subnet.availability_zone()?.to_owned() })
            };
            found.extend(page.subnets().iter().filter_map(read));
        }
        Ok(found)
    }

    pub(crate) async fn terminate_instance(&self, id: &str) -> Result<(), Error> {
        match self.ec2.terminate_instances().instance_ids(id).send().await {
            Ok(_) => Ok(()),
            Err(error) => match classify(&error) {
                Error::Gone(_) => Ok(()),
                error => Err(error),
            },
        }
    }
}

fn instance(found: &Ec2Instance) -> Instance {
    let id = found.instance_id().unwrap_or_default().to_owned();
    let zone = found.placement().and_then(|placement| placement.availability_zone()).unwrap_or_default().to_owned();
    let state = match found.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Running) => InstanceState::Running,
        Some(InstanceStateName::ShuttingDown | InstanceStateName::Stopping | InstanceStateName::Stopped) => {
            InstanceState::Stopping
        }
        Some(InstanceStateName::Terminated) => InstanceState::Terminated,
        _ => InstanceState::Pending,
    };
    Instance {
        provider_id: format!("aws:///{zone}/{id}"),
        id,
        state,
        instance_type: found.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        zone,
        private_ip: found.private_ip_address().map(str::to_owned),
        owner: found.tags().iter().find(|tag| tag.key() == Some(TAG_OWNER)).and_then(|tag| tag.value()).map(str::to_owned),
    }
}
