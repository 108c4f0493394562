//! EC2 and ELBv2 as moto emulates them, and the machines that its instances would be.

use crate::cluster::{Cluster, PATIENCE, binary};
use crate::machine::Machine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 5000;
/// moto's address in the cluster's network namespace, where nobody else has a port.
pub const ENDPOINT: &str = "http://127.0.0.1:5000";

/// Answers one question a line: `["ec2", "describe_instances", {…}]`, with what AWS' own client for Python answers.
const ASK: &str = r#"
import boto3, json, sys
def client(service):
    return boto3.client(service, region_name="us-east-1", endpoint_url=sys.argv[1], aws_access_key_id="test", aws_secret_access_key="test")
clients = {service: client(service) for service in ("ec2", "elbv2")}
for line in sys.stdin:
    service, call, arguments = json.loads(line)
    print(json.dumps(getattr(clients[service], call)(**arguments), default=str), flush=True)
"#;

/// Whether moto is there; says loudly if not.
pub fn enabled(test: &str) -> bool {
    let installed = Command::new("python3").args(["-c", "import moto.server, boto3"]).stderr(Stdio::null()).status();
    let installed = installed.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED {test}: moto is not installed (pip install 'moto[ec2,elbv2,server]')");
    }
    installed
}

/// The emulated account: what is launched there is booted here.
pub struct Emulator {
    moto: Child,
    client: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// By instance id.
    pub machines: BTreeMap<String, Machine>,
    /// How many were booted.
    booted: u8,
}

impl Emulator {
    /// In the calling thread's network namespace.
    pub fn start() -> Emulator {
        let port = PORT.to_string();
        let moto = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            assert!(Instant::now() < until, "moto does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut client = Command::new("python3")
            .args(["-c", ASK, ENDPOINT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let ask = client.stdin.take().expect("piped");
        let answers = BufReader::new(client.stdout.take().expect("piped"));
        Emulator { moto, client, ask, answers, machines: BTreeMap::new(), booted: 0 }
    }

    pub fn ask(&mut self, service: &str, call: &str, arguments: Value) -> Value {
        writeln!(self.ask, "{}", json!([service, call, arguments])).expect("the client reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the client answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{service} {call}: {error}"))
    }

    /// All that were ever launched.
    pub fn instances(&mut self) -> Vec<Value> {
        let answer = self.ask("ec2", "describe_instances", json!({}));
        let reservations = answer["Reservations"].as_array().cloned().unwrap_or_default();
        reservations.iter().flat_map(|one| one["Instances"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Does what the cloud's hardware would do: boots what was launched, and turns off what was terminated.
    pub fn work(&mut self, cluster: &Cluster) {
        for instance in self.instances() {
            let id = instance["InstanceId"].as_str().expect("it has an id").to_owned();
            match instance["State"]["Name"].as_str() {
                Some("running") if !self.machines.contains_key(&id) => {
                    let machine = self.boot(cluster, &id);
                    self.machines.insert(id, machine);
                }
                Some("terminated") => drop(self.machines.remove(&id)),
                _ => {}
            }
        }
    }

    /// A machine without systemd that runs the instance's own user-data, as cloud-init does. Its image has `slipway` on
    /// the path, and the sample images.
    fn boot(&mut self, cluster: &Cluster, id: &str) -> Machine {
        use base64::Engine;
        let asked = json!({"InstanceId": id, "Attribute": "userData"});
        let user_data = self.ask("ec2", "describe_instance_attribute", asked)["UserData"]["Value"].clone();
        let user_data = user_data.as_str().expect("it was launched with user-data");
        let script = base64::engine::general_purpose::STANDARD.decode(user_data).expect("EC2 has it in base64");
        self.booted += 1;
        let mut machine = Machine::new(cluster, &format!("b{}", self.booted), 20 + self.booted);
        let file = machine.data_dir.join("user-data");
        std::fs::write(&file, script).expect("the directory is writable");
        let tools = binary().parent().expect("the binary is in a folder").display().to_string();
        let mut command = machine.command("unshare");
        let boot = "mount -t tmpfs none /run/systemd 2>/dev/null; exec sh \"$0\"";
        command.args(["--mount", "sh", "-c", boot]).arg(&file);
        command.env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap_or_default()));
        command.env("SLIPWAY_NODE_DIR", &machine.data_dir);
        machine.start(command);
        machine.import_images();
        machine
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.machines.clear();
        for process in [&mut self.client, &mut self.moto] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
