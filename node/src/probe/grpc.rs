//! The gRPC health protocol, `grpc.health.v1.Health/Check`; its two messages are small enough to stand here.

use super::Outcome;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub async fn check(ip: &str, port: u16, service: String) -> Outcome {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let channel = match Endpoint::from_shared(format!("http://{host}:{port}")) {
        Ok(endpoint) => endpoint.connect().await,
        Err(error) => return Outcome::Unknown(error.to_string()),
    };
    let Ok(channel) = channel else {
        return Outcome::Failure(format!("timeout: failed to connect service \"{host}:{port}\" within 1s"));
    };
    let mut client = tonic::client::Grpc::new(channel);
    if let Err(error) = client.ready().await {
        return Outcome::Failure(error.to_string());
    }
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    match client.unary(tonic::Request::new(HealthCheckRequest { service }), path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Outcome::Success,
        Ok(answer) => {
            let status = STATUSES.get(answer.get_ref().status as usize).copied().unwrap_or("UNKNOWN");
            Outcome::Failure(format!("service unhealthy (responded with \"{status}\")"))
        }
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Outcome::Failure("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into())
        }
        Err(status) => Outcome::Failure(format!("error: health rpc failed: {}", status.message())),
    }
}
