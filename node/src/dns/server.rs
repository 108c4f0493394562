//! Speaks DNS over UDP and TCP.

use super::Error;
use super::forward::{Transport, Upstream};
use super::zone::{Answer, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Questions that wait for an upstream. More are dropped, and their clients ask again.
const IN_FLIGHT_MAX: usize = 1024;
const CONNECTIONS_MAX: usize = 256;
/// A connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// The most a datagram is: no IP fragments on common networks (DNS flag day 2020).
const DATAGRAM_BYTES_MAX: u16 = 1232;
const DATAGRAM_BYTES_WITHOUT_EDNS: u16 = 512;

struct Shared {
    zone: Arc<RwLock<Zone>>,
    upstream: Upstream,
    own: IpAddr,
    in_flight: Arc<Semaphore>,
}

/// Sockets that are bound, so that failing to bind is known before anything is started.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

impl Server {
    pub async fn bind(address: SocketAddr, zone: Arc<RwLock<Zone>>, upstream: Upstream) -> Result<Server, Error> {
        let listen = |source| Error::Listen { address, source };
        let udp = Arc::new(UdpSocket::bind(address).await.map_err(listen)?);
        let address = udp.local_addr().map_err(listen)?;
        let tcp = TcpListener::bind(address).await.map_err(listen)?;
        let shared = Shared { zone, upstream, own: address.ip(), in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) };
        Ok(Server { udp, tcp, shared: Arc::new(shared) })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = datagrams(self.udp, self.shared.clone()) => {}
            () = connections(self.tcp, self.shared.clone()) => {}
        }
    }
}

async fn datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // The answer to an earlier question came back as an ICMP error: no reason to stop.
            Err(error) => {
                tracing::debug!(%error, "cannot receive a question");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let question = &buffer[..length];
        match respond(question, Transport::Udp, &shared) {
            Response::None => {}
            Response::Ready(answer) => send(&socket, &answer, client).await,
            Response::Forward(pending) => {
                let Ok(permit) = shared.in_flight.clone().try_acquire_owned() else { continue };
                let (socket, shared, question) = (socket.clone(), shared.clone(), question.to_vec());
                tokio::spawn(async move {
                    let answer = pending.resolve(&question, Transport::Udp, &shared).await;
                    send(&socket, &answer, client).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, %client, "cannot send an answer");
    }
}

async fn connections(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &shared).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            std::io::Result::Ok(question)
        };
        let question = tokio::time::timeout(IDLE, read).await??;
        let answer = match respond(&question, Transport::Tcp, shared) {
            Response::None => return Ok(()),
            Response::Ready(answer) => answer,
            Response::Forward(pending) => pending.resolve(&question, Transport::Tcp, shared).await,
        };
        let length = u16::try_from(answer.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

enum Response {
    /// Not even a question.
    None,
    Ready(Vec<u8>),
    Forward(Box<Pending>),
}

/// What needs an upstream: a foreign name as it was asked, or the target of an alias.
struct Pending {
    reply: Message,
    alias: Option<Query>,
    limit: u16,
}

impl Pending {
    async fn resolve(mut self: Box<Self>, question: &[u8], transport: Transport, shared: &Shared) -> Vec<u8> {
        let Some(query) = self.alias.take() else {
            if let Some(answer) = shared.upstream.ask(question, transport, shared.own).await {
                return answer;
            }
            self.reply.metadata.response_code = ResponseCode::ServFail;
            return encode(&self.reply, self.limit);
        };
        let mut ask = Message::query();
        ask.metadata.recursion_desired = true;
        ask.add_query(query);
        let asked = ask.to_vec().unwrap_or_default();
        let answer = shared.upstream.ask(&asked, Transport::Tcp, shared.own).await;
        let answer = match answer {
            Some(answer) => Some(answer),
            // Not every resolver takes connections.
            None => shared.upstream.ask(&asked, Transport::Udp, shared.own).await,
        };
        // Without an answer the alias alone says as much as we know.
        if let Some(answer) = answer.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            self.reply.metadata.response_code = answer.metadata.response_code;
            self.reply.add_answers(answer.answers);
        }
        encode(&self.reply, self.limit)
    }
}

fn respond(question: &[u8], transport: Transport, shared: &Shared) -> Response {
    let Ok(request) = Message::from_vec(question) else { return malformed(question) };
    if request.metadata.message_type != MessageType::Query {
        return Response::None;
    }
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    let limit = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(DATAGRAM_BYTES_WITHOUT_EDNS, DATAGRAM_BYTES_MAX),
        (Transport::Udp, None) => DATAGRAM_BYTES_WITHOUT_EDNS,
    };
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        reply.set_edns(edns);
    }
    let [query] = &request.queries[..] else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Response::Ready(encode(&reply, limit));
    };
    if request.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return Response::Ready(encode(&reply, limit));
    }
    if query.query_class != DNSClass::IN {
        return Response::Forward(Box::new(Pending { reply, alias: None, limit }));
    }
    match fill(&mut reply, query, &shared.zone.read()) {
        Filled::Whole => Response::Ready(encode(&reply, limit)),
        Filled::Alias(target) => Response::Forward(Box::new(Pending { reply, alias: Some(target), limit })),
        Filled::Foreign => Response::Forward(Box::new(Pending { reply, alias: None, limit })),
    }
}

enum Filled {
    Whole,
    Alias(Query),
    Foreign,
}

/// How many aliases within the cluster are followed: an alias may name an alias, or itself.
const ALIASES_MAX: usize = 8;

fn fill(reply: &mut Message, query: &Query, zone: &Zone) -> Filled {
    let mut name = query.name.clone();
    reply.metadata.authoritative = true;
    for _ in 0..ALIASES_MAX {
        match zone.answer(&name, query.query_type) {
            Answer::Found { records, additional } => {
                reply.add_answers(records);
                reply.add_additionals(additional);
                return Filled::Whole;
            }
            Answer::Elsewhere { alias, target } => {
                reply.add_answer(*alias);
                name = target;
            }
            Answer::NoData | Answer::NoName if !reply.answers.is_empty() => return Filled::Whole,
            Answer::NoData => {
                reply.add_authority(zone.authority());
                return Filled::Whole;
            }
            Answer::NoName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(zone.authority());
                return Filled::Whole;
            }
            Answer::NotOurs if reply.answers.is_empty() => {
                reply.metadata.authoritative = false;
                return Filled::Foreign;
            }
            Answer::NotOurs if matches!(query.query_type, RecordType::ANY) => return Filled::Whole,
            Answer::NotOurs => return Filled::Alias(Query::query(name, query.query_type)),
        }
    }
    reply.metadata.response_code = ResponseCode::ServFail;
    Filled::Whole
}

/// Answers what has a header at least.
fn malformed(question: &[u8]) -> Response {
    let is_query = question.get(2).is_some_and(|flags| flags & 0x80 == 0);
    match question.get(..2) {
        Some(id) if is_query && question.len() >= 12 => {
            let id = u16::from_be_bytes([id[0], id[1]]);
            Response::Ready(encode(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr), DATAGRAM_BYTES_WITHOUT_EDNS))
        }
        _ => Response::None,
    }
}

/// What does not fit is left out, and the reply says so: the client asks again over TCP.
fn encode(reply: &Message, limit: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    if let Err(error) = reply.emit(&mut encoder) {
        tracing::warn!(%error, "cannot encode an answer");
        let failed = Message::error_msg(reply.metadata.id, reply.metadata.op_code, ResponseCode::ServFail);
        return failed.to_vec().unwrap_or_default();
    }
    bytes
}
