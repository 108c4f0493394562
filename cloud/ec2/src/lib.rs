//! EC2 and ELBv2 behind [`slipway_cloud::Provider`]: glue around the SDK, no decisions.

mod balancer;
mod catalogue;
mod error;
mod machines;

use async_trait::async_trait;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use slipway_cloud::{Error, Instance, InstanceType, Launch, LoadBalancer, LoadBalancerState, Provider, Subnet};
use std::time::Duration;

/// A call that isn't answered by then counts as lost, and is made again by whoever needs it. The SDK alone would wait forever.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Where and as whom the cloud is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// As `us-east-1`.
    pub region: String,
    /// An emulator's address; `None`: AWS itself. With an endpoint, credentials default to `test`.
    pub endpoint: Option<String>,
    /// The cluster's name: the value of the tag by which its machines are found.
    pub cluster: String,
}

pub struct Ec2 {
    ec2: aws_sdk_ec2::Client,
    elb: aws_sdk_elasticloadbalancingv2::Client,
    cluster: String,
}

impl Ec2 {
    pub async fn connect(options: Options) -> Self {
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(CALL_TIMEOUT).build();
        let loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(options.region));
        let mut loader = loader.timeout_config(timeouts);
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
            if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
                loader = loader.credentials_provider(Credentials::from_keys("test", "test", None));
            }
        }
        let config = loader.load().await;
        Ec2 {
            ec2: aws_sdk_ec2::Client::new(&config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            cluster: options.cluster,
        }
    }
}

#[async_trait]
impl Provider for Ec2 {
    fn name(&self) -> &'static str {
        "aws"
    }
    async fn instance_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error> {
        self.describe_types(names).await
    }
    async fn subnets(&self, ids: &[String]) -> Result<Vec<Subnet>, Error> {
        self.describe_subnets(ids).await
    }
    async fn launch(&self, launch: &Launch) -> Result<Instance, Error> {
        self.run_instance(launch).await
    }
    async fn instances(&self) -> Result<Vec<Instance>, Error> {
        self.describe_instances().await
    }
    async fn terminate(&self, instance_id: &str) -> Result<(), Error> {
        self.terminate_instance(instance_id).await
    }
    async fn ensure_load_balancer(&self, wanted: &LoadBalancer) -> Result<LoadBalancerState, Error> {
        self.ensure_balancer(wanted).await
    }
    async fn load_balancers(&self) -> Result<Vec<(String, String)>, Error> {
        self.describe_balancers().await
    }
    async fn delete_load_balancer(&self, name: &str) -> Result<(), Error> {
        self.delete_balancer(name).await
    }
}
