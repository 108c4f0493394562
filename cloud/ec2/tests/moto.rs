//! The glue against moto, an emulator of EC2 and ELBv2 that runs on this machine.
#![allow(clippy::unwrap_used)] // a test fails by it

use slipway_cloud::{Instance, InstanceState, Launch, Listener, LoadBalancer, Protocol, Provider, TAG_CLUSTER, TAG_OWNER};
use slipway_cloud_ec2::{Ec2, Options};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The emulator, until it is dropped.
struct Moto {
    process: Child,
    endpoint: String,
}

impl Moto {
    /// `None` (and why, on stderr) if moto isn't installed.
    async fn start() -> Option<Moto> {
        let installed = Command::new("python3").args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !installed.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: moto is not installed (pip install 'moto[ec2,elbv2,server]'); nothing was tested here");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Moto { process, endpoint: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "moto does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(moto)
    }

    async fn cluster(&self, name: &str) -> Ec2 {
        let options = Options { region: "us-east-1".into(), endpoint: Some(self.endpoint.clone()), cluster: name.into() };
        Ec2::connect(options).await
    }

    /// Some image that the emulator knows.
    async fn image(&self) -> String {
        let script = "import boto3,sys;ec2=boto3.client('ec2',region_name='us-east-1',endpoint_url=sys.argv[1],\
                      aws_access_key_id='test',aws_secret_access_key='test');\
                      print(ec2.describe_images()['Images'][0]['ImageId'])";
        let output = Command::new("python3").args(["-c", script, &self.endpoint]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// How many target groups there are, whoever's they are.
    fn target_groups(&self) -> usize {
        let script = "import boto3,sys;elb=boto3.client('elbv2',region_name='us-east-1',endpoint_url=sys.argv[1],\
                      aws_access_key_id='test',aws_secret_access_key='test');\
                      print(len(elb.describe_target_groups()['TargetGroups']))";
        let output = Command::new("python3").args(["-c", script, &self.endpoint]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Where the listeners lead and who is behind them, as `80 tcp → 30080: i-1`.
    fn listeners(&self) -> Vec<String> {
        let script = "
import boto3,sys
elb=boto3.client('elbv2',region_name='us-east-1',endpoint_url=sys.argv[1],aws_access_key_id='test',aws_secret_access_key='test')
for b in elb.describe_load_balancers()['LoadBalancers']:
  for l in elb.describe_listeners(LoadBalancerArn=b['LoadBalancerArn'])['Listeners']:
    arn=l['DefaultActions'][0]['TargetGroupArn']
    g=elb.describe_target_groups(TargetGroupArns=[arn])['TargetGroups'][0]
    t=elb.describe_target_health(TargetGroupArn=arn)['TargetHealthDescriptions']
    print(l['Port'],l['Protocol'],g['Port'],*sorted(h['Target']['Id'] for h in t))
";
        let output = Command::new("python3").args(["-c", script, &self.endpoint]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn launch(token: &str, image: &str, zone: &str, subnet: &str) -> Launch {
    Launch {
        token: token.into(),
        name: format!("general-{token}"),
        instance_type: "m5.large".into(),
        image: image.into(),
        zone: Some(zone.into()),
        subnet: Some(subnet.into()),
        spot: false,
        security_groups: vec![],
        instance_profile: None,
        key_name: None,
        user_data: "#!/bin/sh\n".into(),
        // As the controllers give them: the glue adds its own, and each may be there once.
        tags: [(TAG_OWNER, token), (TAG_CLUSTER, "one"), ("team", "platform")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}

#[tokio::test]
async fn machines_are_bought_once_and_given_back() {
    let Some(moto) = Moto::start().await else { return };
    let (cloud, other, image) = (moto.cluster("one").await, moto.cluster("other").await, moto.image().await);
    let subnets = cloud.subnets(&[]).await.unwrap();
    assert!(!subnets.is_empty());
    let subnet = &subnets[0];
    assert_eq!(cloud.subnets(std::slice::from_ref(&subnet.id)).await.unwrap(), std::slice::from_ref(subnet));

    let wanted = launch("uid-1", &image, &subnet.zone, &subnet.id);
    let first = cloud.launch(&wanted).await.unwrap();
    let again = cloud.launch(&wanted).await.unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(first.provider_id, format!("aws:///{}/{}", subnet.zone, first.id));
    assert_eq!((first.owner.as_deref(), first.instance_type.as_str()), (Some("uid-1"), "m5.large"));
    assert!(first.private_ip.is_some());
    let mut cheap = launch("uid-2", &image, &subnet.zone, &subnet.id);
    cheap.spot = true;
    let second = cloud.launch(&cheap).await.unwrap();
    assert_ne!(first.id, second.id);

    let ids = |found: Vec<Instance>| {
        let mut ids: Vec<String> = found.into_iter().map(|instance| instance.id).collect();
        ids.sort();
        ids
    };
    let mut both = vec![first.id.clone(), second.id.clone()];
    both.sort();
    let found = cloud.instances().await.unwrap();
    assert!(found.iter().all(|instance| matches!(instance.state, InstanceState::Pending | InstanceState::Running)));
    assert_eq!(ids(found), both);
    assert!(other.instances().await.unwrap().is_empty(), "one cluster does not see the other's machines");

    cloud.terminate(&first.id).await.unwrap();
    cloud.terminate(&first.id).await.unwrap();
    cloud.terminate("i-0123456789abcdef0").await.unwrap();
    assert_eq!(ids(cloud.instances().await.unwrap()), std::slice::from_ref(&second.id));
    cloud.terminate(&second.id).await.unwrap();
    assert!(cloud.instances().await.unwrap().is_empty());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let Some(moto) = Moto::start().await else { return };
    let (cloud, image) = (moto.cluster("one").await, moto.image().await);
    let mut wrong = launch("uid-1", &image, "us-east-1a", "subnet-0123456789abcdef0");
    wrong.zone = None;
    let error = cloud.launch(&wrong).await.unwrap_err();
    assert_eq!(error.reason(), "Gone", "{error}");
    let error = cloud.subnets(&["subnet-0123456789abcdef0".into()]).await.unwrap_err();
    assert_eq!(error.reason(), "Gone", "{error}");
    assert!(cloud.instances().await.unwrap().is_empty());

    let options = Options { region: "us-east-1".into(), endpoint: Some("http://127.0.0.1:9".into()), cluster: "one".into() };
    let error = Ec2::connect(options).await.instances().await.unwrap_err();
    assert_eq!(error.reason(), "CloudUnavailable", "{error}");
}

#[tokio::test]
async fn the_catalogue_knows_sizes_zones_and_prices() {
    let Some(moto) = Moto::start().await else { return };
    let cloud = moto.cluster("one").await;
    let names = ["m5.large", "m6g.xlarge", "x0.unheard-of"].map(String::from);
    let mut types = cloud.instance_types(&names).await.unwrap();
    types.sort_by(|a, b| a.name.cmp(&b.name));
    let [large, arm] = &types[..] else { panic!("{types:?}") };
    assert_eq!((large.name.as_str(), large.cpu_milli, large.memory_bytes), ("m5.large", 2000, 8 << 30));
    assert_eq!((large.architecture.as_str(), large.price_per_hour), ("amd64", 0.096));
    assert!(large.zones.contains(&"us-east-1a".to_owned()), "{:?}", large.zones);
    assert_eq!((arm.architecture.as_str(), arm.cpu_milli, arm.price_per_hour), ("arm64", 4000, 0.154));
}

#[tokio::test]
async fn a_load_balancer_follows_its_service_and_leaves_nothing() {
    let Some(moto) = Moto::start().await else { return };
    let (cloud, image) = (moto.cluster("one").await, moto.image().await);
    let subnet = cloud.subnets(&[]).await.unwrap().remove(0);
    let mut nodes = vec![];
    for token in ["uid-1", "uid-2"] {
        nodes.push(cloud.launch(&launch(token, &image, &subnet.zone, &subnet.id)).await.unwrap().id);
    }
    let listener = |port, protocol, node_port| Listener { port, protocol, node_port };
    let mut wanted = LoadBalancer {
        name: "a0123456789abcdef0123456789abcde".into(),
        owner: "service-uid".into(),
        internal: false,
        subnets: vec![],
        listeners: vec![listener(80, Protocol::Tcp, 30080), listener(53, Protocol::Udp, 30053)],
        targets: vec![nodes[0].clone()],
        tags: [(TAG_OWNER.to_owned(), "service-uid".to_owned())].into(),
    };
    let made = cloud.ensure_load_balancer(&wanted).await.unwrap();
    assert!(made.hostname.is_some(), "{made:?}");
    assert_eq!(moto.listeners(), [format!("53 UDP 30053 {}", nodes[0]), format!("80 TCP 30080 {}", nodes[0])]);
    // Once more changes nothing.
    assert_eq!(cloud.ensure_load_balancer(&wanted).await.unwrap().hostname, made.hostname);
    assert_eq!((moto.listeners().len(), moto.target_groups()), (2, 2));
    assert_eq!(cloud.load_balancers().await.unwrap(), [(wanted.name.clone(), "service-uid".to_owned())]);
    assert!(moto.cluster("other").await.load_balancers().await.unwrap().is_empty());

    // A port goes, another gets a new node port, the nodes change.
    wanted.listeners = vec![listener(80, Protocol::Tcp, 31080)];
    wanted.targets = vec![nodes[1].clone()];
    assert_eq!(cloud.ensure_load_balancer(&wanted).await.unwrap().hostname, made.hostname);
    assert_eq!(moto.listeners(), [format!("80 TCP 31080 {}", nodes[1])]);
    assert_eq!(moto.target_groups(), 1);

    // The port's protocol changes.
    wanted.listeners = vec![listener(80, Protocol::Udp, 31080)];
    cloud.ensure_load_balancer(&wanted).await.unwrap();
    assert_eq!(moto.listeners(), [format!("80 UDP 31080 {}", nodes[1])]);
    assert_eq!(moto.target_groups(), 1);

    cloud.delete_load_balancer(&wanted.name).await.unwrap();
    cloud.delete_load_balancer(&wanted.name).await.unwrap();
    assert!(cloud.load_balancers().await.unwrap().is_empty());
    assert_eq!(moto.target_groups(), 0);
}
