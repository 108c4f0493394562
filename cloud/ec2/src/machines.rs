//! Instances: launched, found by their tags, terminated.

use crate::Ec2;
use crate::error::classify;
use aws_sdk_ec2::types::{
    Filter, IamInstanceProfileSpecification, Instance as Ec2Instance, InstanceStateName, Placement, ResourceType, Tag,
    TagSpecification,
};
use base64::Engine;
use slipway_cloud::{Error, Instance, InstanceState, Launch, TAG_CLUSTER, TAG_OWNER};

impl Ec2 {
    /// EC2 remembers a client token for as long as the instance lives, so that the same one never starts a second. The
    /// tag is asked first all the same: an emulator, or a token older than EC2's memory, must not buy twice either.
    pub(crate) async fn run_instance(&self, launch: &Launch) -> Result<Instance, Error> {
        if let Some(instance) = self.find(TAG_OWNER, &launch.token).await?.into_iter().next() {
            return Ok(instance);
        }
        let tags = launch.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let specification = TagSpecification::builder()
            .resource_type(ResourceType::Instance)
            .set_tags(Some(tags.collect()))
            .tags(Tag::builder().key("Name").value(&launch.name).build())
            .tags(Tag::builder().key(TAG_CLUSTER).value(&self.cluster).build())
            .tags(Tag::builder().key(TAG_OWNER).value(&launch.token).build())
            .build();
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
