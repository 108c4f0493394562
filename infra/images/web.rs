//! The sample web server: a process that does what a test or a demonstration asks of it over HTTP.
//!
//! It needs nothing but std, so that `rustc -C target-feature=+crt-static web.rs` makes the whole image.
//! It is no general HTTP server: requests with a Content-Length only, no TLS.
//!
//! | path | answer |
//! |---|---|
//! | `/` | host name, version, pod and node (from the environment), the client's address, the path |
//! | `/hostname` `/version` `/client` `/env` `/headers` `/echo` | that alone; `/echo` gives back the request's body |
//! | `/env/NAME` `/file/PATH` | one environment variable; a file as the container sees it |
//! | `/healthz` `/readyz` | 200 or 503; `/healthz/off`, `/healthz/on`, `/readyz/off`, `/readyz/on` switch them |
//! | `/delay/MS` `/status/CODE` `/bytes/N` | waits; answers with that status; answers N bytes |
//! | `/log/TEXT` `/crash/CODE` `/burn/MS` `/memory/MIB` | writes a line to stdout; exits; uses a processor; keeps memory |
//! | gRPC, over HTTP/2 on the same port | `grpc.health.v1.Health/Check`: serving or not, as `/healthz` is switched |
//! | `/fetch/HOST:PORT/PATH` | what another server answers, so that a test sees the network as the pod does |
//!
//! Environment: `PORT` (8080), `UDP_PORT` (none; echoes datagrams as `HOSTNAME DATA`), `VERSION`, `GRACE_MS` (10000), `START_DELAY_MS` (0).
//! On SIGTERM it answers 503 on `/readyz`, finishes the requests in flight, and exits with 0.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

/// A request's body and an answer of `/bytes` are held in memory.
const BODY_BYTES_MAX: usize = 16 << 20;
const HEADER_LINES_MAX: usize = 100;
const HEADER_LINE_BYTES_MAX: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

struct State {
    hostname: String,
    healthy: AtomicBool,
    ready: AtomicBool,
    draining: AtomicBool,
    in_flight: AtomicUsize,
    kept: Mutex<Vec<Vec<u8>>>,
}

struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    keep_alive: bool,
    http2: bool,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn text(body: impl Into<String>) -> Answer {
    let mut body: String = body.into();
    if !body.ends_with('\n') {
        body.push('\n');
    }
    Answer { status: 200, body: body.into_bytes() }
}

fn status(status: u16, body: &str) -> Answer {
    Answer { status, ..text(body) }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() {
    signal::block();
    let state = Arc::new(State {
        hostname: hostname(),
        healthy: AtomicBool::new(true),
        ready: AtomicBool::new(true),
        draining: AtomicBool::new(false),
        in_flight: AtomicUsize::new(0),
        kept: Mutex::new(vec![]),
    });
    let port = number("PORT", 8080) as u16;
    let starting = state.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(number("START_DELAY_MS", 0)));
        let udp_port = number("UDP_PORT", 0) as u16;
        if udp_port != 0 {
            let state = starting.clone();
            thread::spawn(move || echo_datagrams(&state, udp_port));
        }
        // Both families where there is IPv6, else IPv4 alone.
        let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
        let listener = listener.unwrap_or_else(|error| {
            eprintln!("cannot listen on port {port}: {error}");
            process::exit(1)
        });
        println!("{} version {} listens on port {port}", starting.hostname, version());
        for stream in listener.incoming().flatten() {
            let state = starting.clone();
            thread::spawn(move || drop(serve(&state, stream)));
        }
    });

    signal::wait();
    println!("{} was told to stop", state.hostname);
    state.draining.store(true, SeqCst);
    let deadline = Instant::now() + Duration::from_millis(number("GRACE_MS", 10_000));
    while state.in_flight.load(SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    println!("{} stops", state.hostname);
    process::exit(0);
}

fn version() -> String {
    env::var("VERSION").unwrap_or_else(|_| "0".into())
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".into() } else { name.into() }
}

fn echo_datagrams(state: &State, port: u16) {
    let socket = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
    let socket = socket.unwrap_or_else(|error| {
        eprintln!("cannot listen on UDP port {port}: {error}");
        process::exit(1)
    });
    let mut data = [0; 65536];
    while let Ok((length, from)) = socket.recv_from(&mut data) {
        let answer = [state.hostname.as_bytes(), b" ", &data[..length]].concat();
        // A client that has gone is not our failure.
        let _ = socket.send_to(&answer, from);
    }
}

fn serve(state: &State, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = read(&mut reader)? {
        if request.http2 {
            return grpc::serve(state, &mut reader, &mut writer);
        }
        state.in_flight.fetch_add(1, SeqCst);
        let answer = answer(state, &request, &client.ip().to_canonical().to_string());
        let close = !request.keep_alive || state.draining.load(SeqCst);
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
            answer.status,
            if answer.status < 400 { "OK" } else { "Error" },
            answer.body.len(),
            if close { "close" } else { "keep-alive" },
        );
        let sent = writer.write_all(&[head.as_bytes(), &answer.body].concat());
        state.in_flight.fetch_sub(1, SeqCst);
        sent?;
        if close {
            break;
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let mut words = first.split_whitespace();
    let (_method, path, protocol) = (words.next(), words.next(), words.next());
    let Some(path) = path else { return Ok(None) };
    let mut headers = vec![];
    loop {
        let Some(line) = line(reader)? else { return Ok(None) };
        let Some((name, value)) = line.split_once(':') else { break };
        if headers.len() == HEADER_LINES_MAX {
            return Ok(None);
        }
        headers.push((name.trim().to_string(), value.trim().to_string()));
    }
    let header = |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str());
    let length = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0).min(BODY_BYTES_MAX);
    let keep_alive = match header("connection") {
        Some(value) => value.eq_ignore_ascii_case("keep-alive"),
        None => protocol == Some("HTTP/1.1"),
    };
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { path: path.to_string(), headers, body, keep_alive, http2: protocol == Some("HTTP/2.0") }))
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut bytes = vec![];
    reader.by_ref().take(HEADER_LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_string()))
}

fn answer(state: &State, request: &Request, client: &str) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let (name, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let amount = rest.parse::<usize>().unwrap_or(0);
    match name {
        "hostname" => text(&state.hostname),
        "version" => text(version()),
        "client" => text(client),
        "env" if rest.is_empty() => text(env::vars().map(|(name, value)| format!("{name}={value}\n")).collect::<String>()),
        "env" => env::var(rest).map_or_else(|_| status(404, "not set"), text),
        "headers" => text(request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>()),
        "echo" => Answer { status: 200, body: request.body.clone() },
        "file" => match fs::read(format!("/{rest}")) {
            Ok(body) => Answer { status: 200, body },
            Err(error) => status(404, &error.to_string()),
        },
        "healthz" => switch(&state.healthy, rest),
        "readyz" if state.draining.load(SeqCst) => status(503, "stopping"),
        "readyz" => switch(&state.ready, rest),
        "delay" => {
            thread::sleep(Duration::from_millis(amount as u64));
            text("waited")
        }
        "status" => status(rest.parse().ok().filter(|code| (200..600).contains(code)).unwrap_or(400), rest),
        "bytes" => Answer { status: 200, body: vec![b'.'; amount.min(BODY_BYTES_MAX)] },
        "log" => {
            println!("{rest}");
            text("written")
        }
        "crash" => {
            eprintln!("{} was asked to crash", state.hostname);
            process::exit(rest.parse().unwrap_or(1))
        }
        "burn" => {
            let end = Instant::now() + Duration::from_millis(amount as u64);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            text("burnt")
        }
        "memory" => {
            // Written to, so that the kernel has to give the pages.
            state.kept.lock().expect("no holder panics").push(vec![1; amount << 20]);
            text("kept")
        }
        "fetch" => match fetch(rest) {
            Ok(body) => Answer { status: 200, body },
            Err(error) => status(502, &error.to_string()),
        },
        _ => text(format!(
            "hostname: {}\nversion: {}\npod: {}/{}\nnode: {}\nclient: {client}\npath: {}\n",
            state.hostname,
            version(),
            env::var("POD_NAMESPACE").unwrap_or_default(),
            env::var("POD_NAME").unwrap_or_default(),
            env::var("NODE_NAME").unwrap_or_default(),
            request.path,
        )),
    }
}

fn switch(flag: &AtomicBool, rest: &str) -> Answer {
    match rest {
        "on" => flag.store(true, SeqCst),
        "off" => flag.store(false, SeqCst),
        _ if flag.load(SeqCst) => return text("ok"),
        _ => return status(503, "switched off"),
    }
    text(rest)
}

/// gRPC's health check. Of HTTP/2 it knows what one call after another needs: no header of a request is even decoded.
mod grpc {
    use super::{State, SeqCst};
    use std::io::{self, Read, Write};

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    /// The largest that a peer may send without having been allowed more.
    const FRAME_BYTES_MAX: usize = 16384;

    /// After the preface's first line and the empty one that follows it.
    pub fn serve(state: &State, reader: &mut impl Read, writer: &mut impl Write) -> io::Result<()> {
        reader.read_exact(&mut [0; 6])?;
        writer.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let mut payload = vec![0; length.min(FRAME_BYTES_MAX)];
            reader.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & ACK == 0 => writer.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                PING if flags & ACK == 0 => writer.write_all(&frame(PING, ACK, 0, &payload))?,
                HEADERS | DATA if flags & END_STREAM != 0 => writer.write_all(&health(stream, state.healthy.load(SeqCst)))?,
                GOAWAY => return Ok(()),
                _ => {}
            }
        }
    }

    fn health(stream: u32, serving: bool) -> Vec<u8> {
        // `:status: 200` is entry 8 of HPACK's table, `content-type` is 31.
        let headers = [b"\x88\x0f\x10\x10".as_slice(), b"application/grpc"].concat();
        // Not compressed, two bytes long: field 1 is 1 (SERVING) or 2 (NOT_SERVING).
        let message = [0, 0, 0, 0, 2, 0x08, if serving { 1 } else { 2 }];
        let trailers = [b"\x00\x0b".as_slice(), b"grpc-status", b"\x010"].concat();
        [
            frame(HEADERS, END_HEADERS, stream, &headers),
            frame(DATA, 0, stream, &message),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers),
        ]
        .concat()
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
}

fn fetch(target: &str) -> io::Result<Vec<u8>> {
    use std::net::ToSocketAddrs;
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let address = authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, FETCH_TIMEOUT)?;
    stream.set_read_timeout(Some(FETCH_TIMEOUT))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![];
    stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    Ok(answer.split_off(body))
}

/// SIGTERM and SIGINT are blocked in every thread and waited for in `main`: that also works as process 1, for which
/// the kernel has no default action.
mod signal {
    use std::ffi::c_int;

    /// `sigset_t` of glibc and musl on Linux: 1024 bits.
    #[repr(C, align(8))]
    struct Set([u8; 128]);

    const SIG_BLOCK: c_int = 0;
    const SIGINT: c_int = 2;
    const SIGTERM: c_int = 15;

    unsafe extern "C" {
        fn sigemptyset(set: *mut Set) -> c_int;
        fn sigaddset(set: *mut Set, signal: c_int) -> c_int;
        fn pthread_sigmask(how: c_int, set: *const Set, old: *mut Set) -> c_int;
        fn sigwait(set: *const Set, signal: *mut c_int) -> c_int;
    }

    fn stops() -> Set {
        let mut set = Set([0; 128]);
        // SAFETY: `set` is as large and as aligned as the C library's sigset_t, and lives through the calls.
        unsafe {
            sigemptyset(&mut set);
            sigaddset(&mut set, SIGTERM);
            sigaddset(&mut set, SIGINT);
        }
        set
    }

    pub fn block() {
        // SAFETY: the set is initialised; the old mask is not asked for.
        unsafe { pthread_sigmask(SIG_BLOCK, &stops(), std::ptr::null_mut()) };
    }

    pub fn wait() {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right type.
        unsafe { sigwait(&stops(), &mut signal) };
    }
}
