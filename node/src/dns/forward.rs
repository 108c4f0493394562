//! Passes questions about the rest of the world on to the node's own resolvers, and their answers back as they are.

use rand::random;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// As the C library's resolver: how long one upstream may take. Clients themselves give up after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// As the C library's: more are ignored.
const UPSTREAMS_MAX: usize = 3;
const HEADER_BYTES: usize = 12;

/// Where to ask.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The `nameserver` lines of a resolv.conf, read anew for each question: DHCP rewrites it at any time.
    ResolvConf(PathBuf),
    Servers(Vec<SocketAddr>),
}

/// A question's way: the answer takes the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Upstream {
    /// The servers to ask, without `own`, so that questions don't go round in circles.
    async fn servers(&self, own: IpAddr) -> Vec<SocketAddr> {
        let mut servers = match self {
            Upstream::Servers(servers) => servers.clone(),
            Upstream::ResolvConf(path) => name_servers(path).await,
        };
        servers.retain(|server| server.ip() != own || server.port() != 53);
        servers.truncate(UPSTREAMS_MAX);
        servers
    }

    /// The answer to a whole message, or `None` when nobody answers.
    pub async fn ask(&self, question: &[u8], transport: Transport, own: IpAddr) -> Option<Vec<u8>> {
        if question.len() < HEADER_BYTES {
            return None;
        }
        for server in self.servers(own).await {
            let asked = async {
                match transport {
                    Transport::Udp => over_udp(question, server).await,
                    Transport::Tcp => over_tcp(question, server).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%error, %server, "an upstream name server failed"),
                Err(_) => tracing::debug!(%server, "an upstream name server does not answer"),
            }
        }
        None
    }
}

async fn name_servers(path: &Path) -> Vec<SocketAddr> {
    let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
    parse(&text)
}

fn parse(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| Some(SocketAddr::new(rest.split_whitespace().next()?.parse().ok()?, 53))).collect()
}

/// From a port of its own and with a number of its own, so that an answer is hard to forge.
async fn over_udp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = random::<u16>().to_be_bytes();
    socket.send(&[&id[..], &question[2..]].concat()).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER_BYTES && answer[..2] == id {
            answer.truncate(length);
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

async fn over_tcp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answer.get(..2) != Some(&question[..2]) {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_resolv_conf_and_never_asks_itself() {
        let text =
            "# x\nsearch example.com\nnameserver 10.96.0.10\nnameserver 192.0.2.1\n nameserver fd00::1 # y\nnameserver bad\n";
        assert_eq!(parse(text).len(), 3);
        let upstream = Upstream::Servers(parse(text));
        let servers = upstream.servers("10.96.0.10".parse().unwrap()).await;
        assert_eq!(servers, ["192.0.2.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        assert!(name_servers(Path::new("/does/not/exist")).await.is_empty());
    }
}
