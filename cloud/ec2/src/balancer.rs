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
        // First, because a port has one listener: one whose protocol changes makes room for its successor.
        for unwanted in listeners.iter().filter(|have| !wanted.listeners.iter().any(|want| is_same(have, want))) {
            self.delete_listener(unwanted).await?;
        }
        let mut groups = BTreeSet::new();
        for listener in &wanted.listeners {
            let group = self.ensure_target_group(wanted, listener, balancer.vpc_id()).await?;
            self.ensure_targets(&group, listener, &wanted.targets).await?;
            match listeners.iter().find(|have| is_same(have, listener)) {
                None => self.create_listener(arn, &group, listener, wanted).await?,
                Some(have) if leads_to(have, &group) => {}
                Some(have) => self.lead_to(have, &group).await?,
            }
            groups.insert(group);
        }
        self.delete_groups(&wanted.name, &groups).await?;
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
        let mut subnets = wanted.subnets.clone();
        if subnets.is_empty() {
            subnets = self.describe_subnets(&[]).await?.into_iter().map(|subnet| subnet.id).collect();
        }
        let scheme = if wanted.internal { LoadBalancerSchemeEnum::Internal } else { LoadBalancerSchemeEnum::InternetFacing };
        let answer = self
            .elb
            .create_load_balancer()
            .name(&wanted.name)
            .r#type(LoadBalancerTypeEnum::Network)
            .scheme(scheme)
            .set_subnets(Some(subnets))
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

    /// The Service's port has another node port than before.
    async fn lead_to(&self, listener: &ElbListener, group: &str) -> Result<(), Error> {
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).target_group_arn(group).build();
        let call = self.elb.modify_listener().set_listener_arn(listener.listener_arn().map(str::to_owned));
        call.default_actions(forward).send().await.map(|_| ()).map_err(|error| classify(&error))
    }

    async fn delete_listener(&self, listener: &ElbListener) -> Result<(), Error> {
        let call = self.elb.delete_listener().set_listener_arn(listener.listener_arn().map(str::to_owned));
        gone_is_fine(call.send().await.map(|_| ()).map_err(|error| classify(&error)))
    }

    /// Deletes the balancer's target groups but those to keep. They are found by their names: one whose listener is gone
    /// already is not bound to the balancer any more.
    async fn delete_groups(&self, balancer: &str, keep: &BTreeSet<String>) -> Result<(), Error> {
        let mut pages = self.elb.describe_target_groups().into_paginator().send();
        let mut groups = vec![];
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify(&error))?;
            let ours = page.target_groups().iter().filter(|group| is_group_of(balancer, group.target_group_name().unwrap_or("")));
            groups.extend(ours.filter_map(|group| group.target_group_arn().map(str::to_owned)));
        }
        for group in groups.into_iter().filter(|group| !keep.contains(group)) {
            let call = self.elb.delete_target_group().target_group_arn(group);
            gone_is_fine(call.send().await.map(|_| ()).map_err(|error| classify(&error)))?;
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
        let Some(balancer) = self.find_balancer(name).await? else {
            // Whoever deleted the balancer may have left the groups.
            return self.delete_groups(name, &BTreeSet::new()).await;
        };
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        for listener in self.listeners(arn).await? {
            self.delete_listener(&listener).await?;
        }
        self.delete_groups(name, &BTreeSet::new()).await?;
        let call = self.elb.delete_load_balancer().load_balancer_arn(arn);
        gone_is_fine(call.send().await.map(|_| ()).map_err(|error| classify(&error)))
    }
}

fn gone_is_fine(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Gone(_)) => Ok(()),
        outcome => outcome,
    }
}

fn leads_to(listener: &ElbListener, group: &str) -> bool {
    listener.default_actions().iter().any(|action| action.target_group_arn() == Some(group))
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

/// A target group's name is the balancer's, as far as there is room in ELBv2's 32 characters, and this many are always
/// left for the protocol and the node port: a changed node port is a new group.
const GROUP_TAIL_LENGTH: usize = "-t-32767".len();

fn group_head(balancer: &str) -> String {
    balancer.chars().take(32 - GROUP_TAIL_LENGTH).collect()
}

fn group_name(balancer: &str, listener: &Listener) -> String {
    let protocol = if listener.protocol == Protocol::Tcp { "t" } else { "u" };
    format!("{}-{protocol}-{}", group_head(balancer), listener.node_port)
}

fn is_group_of(balancer: &str, group: &str) -> bool {
    let tail = group.strip_prefix(&group_head(balancer));
    let port = tail.and_then(|tail| tail.strip_prefix("-t-").or_else(|| tail.strip_prefix("-u-")));
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_groups_are_told_apart_by_their_names() {
        let listener = Listener { port: 443, protocol: Protocol::Udp, node_port: 32767 };
        let name = group_name("a0123456789abcdef0123456789abcde", &listener);
        assert_eq!(name, "a0123456789abcdef0123456-u-32767");
        assert!(is_group_of("a0123456789abcdef0123456789abcde", &name));
        assert!(is_group_of("web", "web-t-30080"));
        assert!(!is_group_of("web", "web-2-t-30080") && !is_group_of("web", "web-t-x") && !is_group_of("web", "other-t-30080"));
    }
}
