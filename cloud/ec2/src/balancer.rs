//! Network load balancers: one a Service, a target group a port, the nodes as targets.

use crate::Ec2;
use crate::error::classify;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Listener as ElbListener, LoadBalancer as ElbBalancer, LoadBalancerSchemeEnum, LoadBalancerStateEnum,
    LoadBalancerTypeEnum, ProtocolEnum, Tag, TargetDescription, TargetTypeEnum,
};
use slipway_cloud::{Error, Listener, LoadBalancer, LoadBalancerState, Protocol, TAG_CLUSTER, TAG_OWNER};
use std::collections::BTreeSet;

/// ELBv2 answers tags for at most so many resources at once.
const TAGS_PER_CALL_MAX: usize = 20;

impl Ec2 {
    /// Every step looks first at what is there, so that a call that was cut off anywhere is completed by the next.
    pub(crate) async fn ensure_balancer(&self, wanted: &LoadBalancer) -> Result<LoadBalancerState, Error> {
        let balancer = match self.find_balancer(&wanted.name).await? {
            Some(balancer) => balancer,
            None => self.create_balancer(wanted).await?,
        };
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let listeners = self.listeners(arn).await?;
        for listener in &wanted.listeners {
            let group = self.ensure_target_group(wanted, listener, balancer.vpc_id()).await?;
            self.ensure_targets(&group, listener, &wanted.targets).await?;
            if !listeners.iter().any(|have| is_same(have, listener)) {
                self.create_listener(arn, &group, listener, wanted).await?;
            }
        }
        self.remove_unwanted(wanted, &listeners).await?;
        Ok(LoadBalancerState {
            hostname: balancer.dns_name().map(str::to_owned),
            ip: None,
            active: balancer.state().and_then(|state| state.code()) == Some(&LoadBalancerStateEnum::Active),
        })
    }

    async fn find_balancer(&self, name: &str) -> Result<Option<ElbBalancer>, Error> {
        match self.elb.describe_load_balancers().names(name).send().await {
            Ok(answer) => Ok(answer.load_balancers().first().cloned()),
            Err(error) => match classify(&error) {
                Error::Gone(_) => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn create_balancer(&self, wanted: &LoadBalancer) -> Result<ElbBalancer, Error> {
        let scheme = if wanted.internal { LoadBalancerSchemeEnum::Internal } else { LoadBalancerSchemeEnum::InternetFacing };
        let answer = self
            .elb
            .create_load_balancer()
            .name(&wanted.name)
            .r#type(LoadBalancerTypeEnum::Network)
            .scheme(scheme)
            .set_subnets(Some(wanted.subnets.clone()))
            .set_tags(Some(self.tags(wanted)))
            .send()
            .await
            .map_err(|error| classify(&error))?;
        answer.load_balancers().first().cloned().ok_or_else(|| Error::Retryable("CreateLoadBalancer answered none".into()))
    }

    fn tags(&self, wanted: &LoadBalancer) -> Vec<Tag> {
        let own = [(TAG_CLUSTER, self.cluster.as_str()), (TAG_OWNER, wanted.owner.as_str())];
        let given = wanted.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        given.chain(own).map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }

    async fn listeners(&self, arn: &str) -> Result<Vec<ElbListener>, Error> {
        let answer = self.elb.describe_listeners().load_balancer_arn(arn).send().await.map_err(|error| classify(&error))?;
        Ok(answer.listeners().to_vec())
    }

    async fn create_listener(
        &self,
        balancer: &str,
        group: &str,
        listener: &Listener,
        wanted: &LoadBalancer,
    ) -> Result<(), Error> {
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(group).build();
        self.elb
            .create_listener()
            .load_balancer_arn(balancer)
            .port(listener.port.into())
            .protocol(protocol(listener.protocol))
            .default_actions(forward)
            .set_tags(Some(self.tags(wanted)))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| classify(&error))
    }

    /// Answers the target group's ARN.
    async fn ensure_target_group(&self, wanted: &LoadBalancer, listener: &Listener, vpc: Option<&str>) -> Result<String, Error> {
        let name = group_name(&wanted.name, listener);
        match self.elb.describe_target_groups().names(&name).send().await {
            Ok(answer) => {
                let have = answer.target_groups().first();
                if let Some(arn) =
                    have.filter(|group| group.port() == Some(listener.node_port.into())).and_then(|g| g.target_group_arn())
                {
                    return Ok(arn.to_owned());
                }
            }
            Err(error) => match classify(&error) {
                Error::Gone(_) => {}
                error => return Err(error),
            },
        }
        let answer = self
            .elb
            .create_target_group()
            .name(name)
            .protocol(protocol(listener.protocol))
            .port(listener.node_port.into())
            .target_type(TargetTypeEnum::Instance)
            .set_vpc_id(vpc.map(str::to_owned))
            .health_check_protocol(ProtocolEnum::Tcp)
            .set_tags(Some(self.tags(wanted)))
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let arn = answer.target_groups().first().and_then(|group| group.target_group_arn());
        arn.map(str::to_owned).ok_or_else(|| Error::Retryable("CreateTargetGroup answered none".into()))
    }

    async fn ensure_targets(&self, group: &str, listener: &Listener, wanted: &[String]) -> Result<(), Error> {
        let answer = self.elb.describe_target_health().target_group_arn(group).send().await.map_err(|error| classify(&error))?;
        let have: BTreeSet<String> =
            answer.target_health_descriptions().iter().filter_map(|health| health.target()?.id().map(str::to_owned)).collect();
        let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
        let describe = |ids: Vec<&String>| -> Vec<TargetDescription> {
            ids.into_iter().map(|id| TargetDescription::builder().id(id).port(listener.node_port.into()).build()).collect()
        };
        let new = describe(wanted.difference(&have).collect());
        if !new.is_empty() {
            let call = self.elb.register_targets().target_group_arn(group).set_targets(Some(new));
            call.send().await.map_err(|error| classify(&error))?;
        }
        let old = describe(have.difference(&wanted).collect());
        if !old.is_empty() {
            let call = self.elb.deregister_targets().target_group_arn(group).set_targets(Some(old));
            call.send().await.map_err(|error| classify(&error))?;
        }
        Ok(())
    }

    /// Removes the listeners that the Service has no port for any more, then their target groups.
    async fn remove_unwanted(&self, wanted: &LoadBalancer, have: &[ElbListener]) -> Result<(), Error> {
        for listener in have.iter().filter(|have| !wanted.listeners.iter().any(|want| is_same(have, want))) {
            if let Some(arn) = listener.listener_arn() {
                self.elb.delete_listener().listener_arn(arn).send().await.map_err(|error| classify(&error))?;
            }
            for group in listener.default_actions().iter().filter_map(|action| action.target_group_arn()) {
                self.elb.delete_target_group().target_group_arn(group).send().await.map_err(|error| classify(&error))?;
            }
        }
        Ok(())
    }

    pub(crate) async fn describe_balancers(&self) -> Result<Vec<(String, String)>, Error> {
        let mut pages = self.elb.describe_load_balancers().into_paginator().send();
        let mut names = std::collections::BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            for balancer in page.load_balancers() {
                if let (Some(arn), Some(name)) = (balancer.load_balancer_arn(), balancer.load_balancer_name()) {
                    names.insert(arn.to_owned(), name.to_owned());
                }
            }
        }
        let arns: Vec<String> = names.keys().cloned().collect();
        let mut ours = vec![];
        for chunk in arns.chunks(TAGS_PER_CALL_MAX) {
            let call = self.elb.describe_tags().set_resource_arns(Some(chunk.to_vec()));
            let answer = call.send().await.map_err(|error| classify(&error))?;
            for description in answer.tag_descriptions() {
                let tag = |key: &str| description.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
                if tag(TAG_CLUSTER) == Some(self.cluster.as_str())
                    && let (Some(name), Some(owner)) = (description.resource_arn().and_then(|arn| names.get(arn)), tag(TAG_OWNER))
                {
                    ours.push((name.clone(), owner.to_owned()));
                }
            }
        }
        Ok(ours)
    }

    /// The balancer goes last: as long as it is there, the sweep finds what belongs to it.
    pub(crate) async fn delete_balancer(&self, name: &str) -> Result<(), Error> {
        let Some(balancer) = self.find_balancer(name).await? else { return Ok(()) };
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let mut groups = vec![];
        for listener in self.listeners(arn).await? {
            groups.extend(listener.default_actions().iter().filter_map(|action| action.target_group_arn()).map(str::to_owned));
            if let Some(arn) = listener.listener_arn() {
                self.elb.delete_listener().listener_arn(arn).send().await.map_err(|error| classify(&error))?;
            }
        }
        for group in groups {
            self.elb.delete_target_group().target_group_arn(group).send().await.map_err(|error| classify(&error))?;
        }
        self.elb.delete_load_balancer().load_balancer_arn(arn).send().await.map(|_| ()).map_err(|error| classify(&error))
    }
}

fn is_same(have: &ElbListener, want: &Listener) -> bool {
    have.port() == Some(want.port.into()) && have.protocol() == Some(&protocol(want.protocol))
}

fn protocol(protocol: Protocol) -> ProtocolEnum {
    match protocol {
        Protocol::Tcp => ProtocolEnum::Tcp,
        Protocol::Udp => ProtocolEnum::Udp,
    }
}

/// At most 32 characters, as ELBv2 wants, and unique by node port: a changed node port is a new group.
fn group_name(balancer: &str, listener: &Listener) -> String {
    let tail = format!("-{}-{}", if listener.protocol == Protocol::Tcp { "t" } else { "u" }, listener.node_port);
    let head: String = balancer.chars().take(32 - tail.len()).collect();
    format!("{head}{tail}")
}
