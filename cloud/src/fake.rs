//! A cloud in memory: deterministic, with a clock of its own that the test turns, and with faults by seed.
//!
//! It is stricter than the emulators: tokens are idempotent, machines are pending before they run, capacity and quotas
//! end, and calls are throttled.

use crate::{Error, Instance, InstanceState, InstanceType, Launch, LoadBalancer, LoadBalancerState, Provider, Subnet, TAG_OWNER};
use async_trait::async_trait;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

/// How often things go wrong, each from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call fails before it does anything.
    pub throttled: f64,
    /// The call does its work, and its answer is lost.
    pub answer_lost: f64,
    /// There is no capacity for a launch.
    pub no_capacity: f64,
}

pub struct Fake {
    state: Mutex<State>,
}

struct State {
    rng: SmallRng,
    faults: Faults,
    types: Vec<InstanceType>,
    /// Machines at most; more are over the quota.
    quota: usize,
    /// Ticks between a launch and `Running`.
    boot_ticks: u64,
    /// Ticks between `Stopping` and gone.
    stop_ticks: u64,
    now: u64,
    next_id: u64,
    machines: BTreeMap<String, Machine>,
    balancers: BTreeMap<String, LoadBalancer>,
    calls: BTreeMap<&'static str, u64>,
}

struct Machine {
    instance: Instance,
    token: String,
    launch: Launch,
    launched: u64,
    /// When it is gone.
    ends: Option<u64>,
}

impl Fake {
    pub fn new(seed: u64, faults: Faults, types: Vec<InstanceType>) -> Self {
        Fake {
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                faults,
                types,
                quota: usize::MAX,
                boot_ticks: 2,
                stop_ticks: 0,
                now: 0,
                next_id: 1,
                machines: BTreeMap::new(),
                balancers: BTreeMap::new(),
                calls: BTreeMap::new(),
            }),
        }
    }

    pub fn set_quota(&self, machines: usize) {
        self.state.lock().quota = machines;
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Terminated machines are seen to be stopping for so many ticks; 0 (the default): they are gone at once.
    pub fn set_stop_ticks(&self, ticks: u64) {
        self.state.lock().stop_ticks = ticks;
    }

    /// Time goes on: machines that were launched long enough ago run, and those that were ended are gone.
    pub fn tick(&self) {
        let mut state = self.state.lock();
        state.now += 1;
        let (now, boot) = (state.now, state.boot_ticks);
        state.machines.retain(|_, machine| machine.ends.is_none_or(|ends| now < ends));
        for machine in state.machines.values_mut() {
            if machine.instance.state == InstanceState::Pending && now >= machine.launched + boot {
                machine.instance.state = InstanceState::Running;
            }
        }
    }

    /// The machine dies without anyone having asked for it.
    pub fn kill(&self, instance_id: &str) {
        self.state.lock().machines.remove(instance_id);
    }

    /// What a machine was launched with.
    pub fn launched_with(&self, instance_id: &str) -> Option<Launch> {
        self.state.lock().machines.get(instance_id).map(|machine| machine.launch.clone())
    }

    /// What there is, without a call that may fail.
    pub fn inventory(&self) -> Vec<Instance> {
        self.state.lock().machines.values().map(|machine| machine.instance.clone()).collect()
    }

    pub fn balancers(&self) -> Vec<LoadBalancer> {
        self.state.lock().balancers.values().cloned().collect()
    }

    pub fn balancer(&self, name: &str) -> Option<LoadBalancer> {
        self.state.lock().balancers.get(name).cloned()
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.state.lock().machines.len()
    }

    /// How many machines were ever bought.
    pub fn bought(&self) -> u64 {
        self.state.lock().next_id - 1
    }

    /// How often a call was made, by its name in [`Provider`].
    pub fn calls(&self, name: &str) -> u64 {
        self.state.lock().calls.get(name).copied().unwrap_or(0)
    }
}

impl State {
    /// Counts the call, and may fail it before it begins.
    fn begin(&mut self, call: &'static str) -> Result<(), Error> {
        *self.calls.entry(call).or_default() += 1;
        if self.rng.random_bool(self.faults.throttled) {
            return Err(Error::Retryable("RequestLimitExceeded".into()));
        }
        Ok(())
    }

    /// May lose the answer of a call that has done its work.
    fn end<T>(&mut self, answer: T) -> Result<T, Error> {
        if self.rng.random_bool(self.faults.answer_lost) {
            return Err(Error::Retryable("the connection was closed".into()));
        }
        Ok(answer)
    }

    fn launch(&mut self, launch: &Launch) -> Result<Instance, Error> {
        if let Some(machine) = self.machines.values().find(|machine| machine.token == launch.token) {
            if machine.ends.is_some() {
                return Err(Error::Invalid("IncorrectInstanceState: the token's machine was terminated".into()));
            }
            if machine.launch != *launch {
                return Err(Error::Invalid("IdempotentParameterMismatch".into()));
            }
            return Ok(machine.instance.clone());
        }
        if !self.types.iter().any(|known| known.name == launch.instance_type) {
            return Err(Error::Invalid(format!("InvalidInstanceType: {}", launch.instance_type)));
        }
        if self.machines.len() >= self.quota {
            return Err(Error::Quota("VcpuLimitExceeded".into()));
        }
        if self.rng.random_bool(self.faults.no_capacity) {
            return Err(Error::Capacity(format!("InsufficientInstanceCapacity: {}", launch.instance_type)));
        }
        let number = self.next_id;
        self.next_id += 1;
        let id = format!("i-{number:08x}");
        let zone = launch.zone.clone().unwrap_or_else(|| "fake-1a".into());
        let instance = Instance {
            provider_id: format!("fake:///{zone}/{id}"),
            id: id.clone(),
            state: InstanceState::Pending,
            instance_type: launch.instance_type.clone(),
            zone,
            private_ip: Some(format!("10.0.{}.{}", number / 250, number % 250 + 1)),
            owner: launch.tags.get(TAG_OWNER).cloned(),
        };
        let machine = Machine {
            instance: instance.clone(),
            token: launch.token.clone(),
            launch: launch.clone(),
            launched: self.now,
            ends: None,
        };
        self.machines.insert(id, machine);
        Ok(instance)
    }
}

#[async_trait]
impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn instance_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error> {
        let mut state = self.state.lock();
        state.begin("instance_types")?;
        Ok(state.types.iter().filter(|known| names.contains(&known.name)).cloned().collect())
    }

    /// A subnet's name ends with its zone: `subnet-fake-1a`.
    async fn subnets(&self, ids: &[String]) -> Result<Vec<Subnet>, Error> {
        let mut state = self.state.lock();
        state.begin("subnets")?;
        let mut ids = ids.to_vec();
        if ids.is_empty() {
            ids = state.types.iter().flat_map(|known| &known.zones).map(|zone| format!("subnet-{zone}")).collect();
            ids.sort();
            ids.dedup();
        }
        let zone = |id: &String| id.strip_prefix("subnet-").map(str::to_owned);
        Ok(ids.iter().filter_map(|id| Some(Subnet { id: id.clone(), zone: zone(id)? })).collect())
    }

    async fn launch(&self, launch: &Launch) -> Result<Instance, Error> {
        let mut state = self.state.lock();
        state.begin("launch")?;
        let instance = state.launch(launch)?;
        state.end(instance)
    }

    async fn instances(&self) -> Result<Vec<Instance>, Error> {
        let mut state = self.state.lock();
        state.begin("instances")?;
        Ok(state.machines.values().map(|machine| machine.instance.clone()).collect())
    }

    async fn terminate(&self, instance_id: &str) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.begin("terminate")?;
        if state.stop_ticks == 0 {
            state.machines.remove(instance_id);
        }
        let ends = state.now + state.stop_ticks;
        if let Some(machine) = state.machines.get_mut(instance_id) {
            machine.instance.state = InstanceState::Stopping;
            machine.ends.get_or_insert(ends);
        }
        state.end(())
    }

    async fn ensure_load_balancer(&self, wanted: &LoadBalancer) -> Result<LoadBalancerState, Error> {
        let mut state = self.state.lock();
        state.begin("ensure_load_balancer")?;
        state.balancers.insert(wanted.name.clone(), wanted.clone());
        state.end(LoadBalancerState { hostname: Some(format!("{}.elb.fake.test", wanted.name)), ip: None, active: true })
    }

    async fn load_balancers(&self) -> Result<Vec<(String, String)>, Error> {
        let mut state = self.state.lock();
        state.begin("load_balancers")?;
        Ok(state.balancers.values().map(|balancer| (balancer.name.clone(), balancer.owner.clone())).collect())
    }

    async fn delete_load_balancer(&self, name: &str) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.begin("delete_load_balancer")?;
        state.balancers.remove(name);
        state.end(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<InstanceType> {
        vec![InstanceType {
            name: "m1".into(),
            cpu_milli: 2000,
            memory_bytes: 4 << 30,
            architecture: "amd64".into(),
            price_per_hour: 0.1,
            zones: vec!["fake-1a".into()],
        }]
    }

    fn launch(token: &str) -> Launch {
        Launch {
            token: token.into(),
            name: token.into(),
            instance_type: "m1".into(),
            image: "image".into(),
            zone: None,
            subnet: None,
            spot: false,
            security_groups: vec![],
            instance_profile: None,
            key_name: None,
            user_data: String::new(),
            tags: [(TAG_OWNER.to_owned(), token.to_owned())].into(),
        }
    }

    #[tokio::test]
    async fn a_lost_answer_never_buys_twice() {
        let cloud = Fake::new(7, Faults { answer_lost: 0.5, throttled: 0.3, ..Faults::default() }, catalogue());
        for token in ["a", "b", "c"] {
            while cloud.launch(&launch(token)).await.is_err() {}
        }
        cloud.set_faults(Faults::default());
        assert_eq!(cloud.instances().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn machines_are_pending_before_they_run_and_the_quota_holds() {
        let cloud = Fake::new(1, Faults::default(), catalogue());
        cloud.set_quota(1);
        assert_eq!(cloud.launch(&launch("a")).await.unwrap().state, InstanceState::Pending);
        assert!(matches!(cloud.launch(&launch("b")).await, Err(Error::Quota(_))));
        cloud.tick();
        cloud.tick();
        let running = cloud.instances().await.unwrap();
        assert_eq!(running[0].state, InstanceState::Running);
        cloud.terminate(&running[0].id).await.unwrap();
        cloud.terminate(&running[0].id).await.unwrap();
        assert!(cloud.instances().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_ended_machine_is_seen_to_stop_first() {
        let cloud = Fake::new(1, Faults::default(), catalogue());
        cloud.set_stop_ticks(1);
        let id = cloud.launch(&launch("a")).await.unwrap().id;
        cloud.terminate(&id).await.unwrap();
        assert_eq!(cloud.instances().await.unwrap()[0].state, InstanceState::Stopping);
        assert!(cloud.launch(&launch("a")).await.is_err());
        cloud.tick();
        assert!(cloud.instances().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_same_seed_makes_the_same_faults() {
        let run = || async {
            let cloud = Fake::new(42, Faults { throttled: 0.5, ..Faults::default() }, catalogue());
            let mut outcomes = vec![];
            for n in 0..20 {
                outcomes.push(cloud.launch(&launch(&n.to_string())).await.is_ok());
            }
            outcomes
        };
        assert_eq!(run().await, run().await);
    }
}
