//! The simulator's balancer is what nginx is: the same connects reach the same upstreams.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod docker;

use std::{fmt::Write as _, future::pending, io, net::SocketAddr, time::Duration};

use protocol::{Net, Tcp};
use sim::balancer::{Balancer, Upstream, serve, serve_on};
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _, core::WaitFor, runners::AsyncRunner as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long anything may take that has to happen. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a peer that failed is surely away, with a `fail_timeout` of a second.
const SURELY_AWAY: Duration = Duration::from_millis(900);
/// After so long it is surely tried again.
const SURELY_BACK: Duration = Duration::from_millis(3500);

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Says its name, and ends it.
    Names,
    /// Reads to the end, then says how much that was.
    Counts,
    /// Says very much, and ends it.
    Talks,
    /// Says what it was sent first, up to the end of a line.
    Echoes,
}

const MUCH: usize = 3 << 20;

/// A server that can be stopped and started at the same port.
struct Server {
    port: u16,
    /// Bound, never listening: nobody else gets the port meanwhile.
    _reserved: TcpSocket,
    name: char,
    manner: Manner,
    running: Option<AbortOnDropHandle<()>>,
}

impl Server {
    fn start(name: char, manner: Manner) -> Self {
        let reserved = socket(0);
        let port = reserved.local_addr().unwrap().port();
        let mut server = Self { port, _reserved: reserved, name, manner, running: None };
        server.up();
        server
    }

    fn up(&mut self) {
        let listener = socket(self.port).listen(1024).unwrap();
        let (name, manner) = (self.name, self.manner);
        let serving = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                match manner {
                    Manner::Names => {
                        let _ = stream.write_all(name.to_string().as_bytes()).await;
                    }
                    Manner::Talks => {
                        let _ = stream.write_all(&vec![b'x'; MUCH]).await;
                    }
                    Manner::Counts => {
                        let mut heard = Vec::new();
                        let _ = stream.read_to_end(&mut heard).await;
                        let _ = stream.write_all(heard.len().to_string().as_bytes()).await;
                    }
                    Manner::Echoes => {
                        let mut heard = Vec::new();
                        while heard.last() != Some(&b'\n') {
                            heard.push(stream.read_u8().await.unwrap());
                        }
                        let _ = stream.write_all(&heard).await;
                    }
                }
            }
        };
        self.running = Some(AbortOnDropHandle::new(TaskTracker::new().spawn(serving)));
    }

    /// From now on connections are refused.
    async fn down(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }
}

fn socket(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    socket
}

/// The same upstreams behind each.
struct Both {
    nginx: u16,
    ours: u16,
    _container: ContainerAsync<GenericImage>,
    _process: AbortOnDropHandle<()>,
}

impl Both {
    async fn start(upstreams: &[Upstream], proxy_protocol: bool) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut servers = String::new();
        for Upstream { address, weight, max_fails, fail_timeout, down } in upstreams {
            let down = if *down { " down" } else { "" };
            let seconds = fail_timeout.as_secs();
            writeln!(
                servers,
                "server {address} weight={weight} max_fails={max_fails} fail_timeout={seconds}s{down};"
            )
            .unwrap();
        }
        let proxy = if proxy_protocol { "proxy_protocol on;" } else { "" };
        let configuration = format!(
            "worker_processes 1;\nerror_log stderr notice;\nevents {{ worker_connections 1024; }}\nstream {{\n upstream all {{\n{servers} }}\n \
             server {{ listen 127.0.0.1:{port}; proxy_connect_timeout 1s; proxy_pass all; {proxy} }}\n}}\n"
        );
        let container = docker::image("CHAT_NGINX_IMAGE", "chat-nginx:local")
            .with_wait_for(WaitFor::message_on_stderr("start worker process"))
            .with_network("host")
            .with_copy_to("/etc/nginx/nginx.conf", configuration.into_bytes())
            .start()
            .await
            .unwrap();
        let balancer = Balancer {
            connect_timeout: Duration::from_secs(1),
            proxy_protocol,
            ..Balancer::new("127.0.0.1:0", upstreams.to_vec())
        };
        let (ours, process) = start(balancer).await;
        Self { nginx: port, ours, _container: container, _process: process }
    }
}

async fn start(balancer: Balancer) -> (u16, AbortOnDropHandle<()>) {
    let listener = Tcp.bind(&balancer.listen).await.unwrap();
    let port = Tcp.local_addr(&listener).unwrap().port();
    let tracker = TaskTracker::new();
    let serving = serve_on(Tcp, listener, balancer, tracker.clone());
    (port, AbortOnDropHandle::new(tracker.spawn(async move { serving.await.unwrap() })))
}

/// What a client hears that says something, ends if it is to, and listens to the end.
async fn client(port: u16, says: &[u8], ends: bool) -> Vec<u8> {
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(says).await.unwrap();
        if ends {
            stream.shutdown().await.unwrap();
        }
        let mut heard = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    timeout(PATIENCE, talk).await.expect("an end in time")
}

/// The names of the upstreams that clients reach, one after the other; `-` where there is none.
async fn names(port: u16, clients: usize) -> String {
    let mut names = String::new();
    for _ in 0..clients {
        let heard = client(port, b"", false).await;
        names += if heard.is_empty() { "-" } else { std::str::from_utf8(&heard).unwrap() };
    }
    names
}

fn upstream(server: &Server, weight: u32, max_fails: u32) -> Upstream {
    Upstream {
        weight,
        max_fails,
        fail_timeout: Duration::from_secs(1),
        ..Upstream::new(&format!("127.0.0.1:{}", server.port))
    }
}

async fn not_run() -> bool {
    !docker::available("the comparison with nginx", &[("CHAT_NGINX_IMAGE", "chat-nginx:local")]).await
}

/// Whom clients reach by each of the balancers, in each phase: all there, some away, those probed, all back; then all away, and back.
/// Nothing if the machine was too slow for peers that failed to be away throughout a phase.
async fn phases(ports: [u16; 2], servers: &mut [Server], away: &[usize]) -> Option<[Vec<String>; 2]> {
    let mut found = [Vec::new(), Vec::new()];
    let mut look = async |clients: usize| {
        let began = Instant::now();
        for (found, port) in found.iter_mut().zip(ports) {
            found.push(names(port, clients).await);
        }
        (began.elapsed() < SURELY_AWAY).then_some(())
    };
    look(14).await?;
    for which in [away.to_vec(), (0..servers.len()).collect()] {
        for at in &which {
            servers[*at].down().await;
        }
        look(14).await?;
        sleep(SURELY_BACK).await;
        look(8).await?;
        for at in &which {
            servers[*at].up();
        }
        sleep(SURELY_BACK).await;
        look(14).await?;
    }
    Some(found)
}

/// Compares them. Of each peer its weight and the failures that it is allowed; and which go away.
async fn compare(peers: &[(u32, u32)], away: &[usize]) {
    for _ in 0..5 {
        let mut servers: Vec<_> =
            ('a'..).zip(peers).map(|(name, _)| Server::start(name, Manner::Names)).collect();
        let upstreams: Vec<_> = servers
            .iter()
            .zip(peers)
            .map(|(server, (weight, fails))| upstream(server, *weight, *fails))
            .collect();
        let both = Both::start(&upstreams, false).await;
        if let Some([nginx, ours]) = phases([both.nginx, both.ours], &mut servers, away).await {
            println!("{peers:?}, away {away:?}: {nginx:?}");
            return assert_eq!(ours, nginx, "{peers:?}, away {away:?}");
        }
    }
    panic!("the machine was too slow five times");
}

/// Goal: a run behind this balancer tells something of one behind nginx.
#[tokio::test]
async fn clients_reach_the_upstreams_that_nginx_chooses() {
    if not_run().await {
        return;
    }
    tokio::join!(
        compare(&[(1, 3), (1, 3)], &[0]),
        compare(&[(5, 1), (1, 1), (1, 1)], &[0]),
        compare(&[(3, 2), (2, 1), (1, 0), (4, 3)], &[1, 3]),
        compare(&[(2, 1)], &[0]),
    );
}

#[tokio::test]
async fn a_peer_that_is_down_is_left_out_as_in_nginx() {
    if not_run().await {
        return;
    }
    let servers = [Server::start('a', Manner::Names), Server::start('b', Manner::Names)];
    let mut upstreams: Vec<_> = servers.iter().map(|server| upstream(server, 1, 1)).collect();
    upstreams[0].down = true;
    let both = Both::start(&upstreams, false).await;
    assert_eq!(names(both.nginx, 4).await, "bbbb");
    assert_eq!(names(both.ours, 4).await, "bbbb");
}

/// What an upstream says reaches the client to the last byte; a client that ends is not answered any more.
#[tokio::test]
async fn connections_end_as_in_nginx() {
    if not_run().await {
        return;
    }
    let talker = Server::start('t', Manner::Talks);
    let both = Both::start(&[upstream(&talker, 1, 1)], false).await;
    for port in [both.nginx, both.ours] {
        assert_eq!(client(port, b"", false).await.len(), MUCH);
    }
    let counter = Server::start('c', Manner::Counts);
    let both = Both::start(&[upstream(&counter, 1, 1)], false).await;
    for port in [both.nginx, both.ours] {
        assert_eq!(client(port, &vec![b'x'; 100_000], true).await, b"", "it ended before it was answered");
    }
}

#[tokio::test]
async fn upstreams_are_told_whom_they_serve_as_by_nginx() {
    if not_run().await {
        return;
    }
    let echo = Server::start('e', Manner::Echoes);
    let both = Both::start(&[upstream(&echo, 1, 1)], true).await;
    for port in [both.nginx, both.ours] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let here = stream.local_addr().unwrap().port();
        let mut heard = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {here} {port}\r\n"));
    }
}

/// All that a client says arrives before its end does.
#[tokio::test]
async fn what_a_client_said_before_it_ended_arrives() {
    let counter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new(&counter.local_addr().unwrap().to_string());
    let (port, _process) = start(Balancer::new("127.0.0.1:0", vec![upstream])).await;
    let said = vec![b'x'; MUCH];
    let counting = async {
        let (mut stream, _) = counter.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.len()
    };
    let (heard, _) = tokio::join!(counting, client(port, &said, true));
    assert_eq!(heard, MUCH);
}

/// A restart: its connections end, and what it knew of its peers is forgotten.
#[tokio::test]
async fn a_restart_ends_connections_and_forgets_failures() {
    let mut servers = [Server::start('a', Manner::Names), Server::start('b', Manner::Names)];
    let mut upstreams: Vec<_> = servers.iter().map(|server| upstream(server, 1, 1)).collect();
    for upstream in &mut upstreams {
        upstream.fail_timeout = Duration::from_secs(3600);
    }
    let balancer = Balancer::new("127.0.0.1:0", upstreams);
    let (port, process) = start(balancer.clone()).await;
    servers[0].down().await;
    assert_eq!(names(port, 2).await, "bb");
    servers[0].up();
    assert_eq!(names(port, 2).await, "bb");
    drop(process);
    let (port, _process) = start(balancer).await;
    assert_eq!(names(port, 4).await, "abab");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new(&silent.local_addr().unwrap().to_string());
    let (port, process) = start(Balancer::new("127.0.0.1:0", vec![upstream])).await;
    let waiting = client(port, b"", false);
    let restarting = async {
        let _held = silent.accept().await.unwrap();
        drop(process);
        pending::<()>().await;
    };
    tokio::select! {
        heard = waiting => assert_eq!(heard, b""),
        () = restarting => {}
    }
}

/// Dials addresses that answer after so many seconds, as their port says; never if that is 0.
#[derive(Clone)]
struct Slow;

impl Net for Slow {
    type Listener = TcpListener;
    type Stream = AnyStream;

    async fn bind(&self, addr: &str) -> io::Result<TcpListener> {
        Tcp.bind(addr).await
    }

    fn local_addr(&self, on: &TcpListener) -> io::Result<SocketAddr> {
        Tcp.local_addr(on)
    }

    async fn accept(&self, on: &TcpListener) -> io::Result<(AnyStream, SocketAddr)> {
        let (stream, peer) = Tcp.accept(on).await?;
        Ok((Box::pin(stream), peer))
    }

    async fn connect(&self, addr: &str) -> io::Result<AnyStream> {
        let seconds = addr.rsplit_once(':').unwrap().1.parse().unwrap();
        if seconds == 0 {
            return pending().await;
        }
        sleep(Duration::from_secs(seconds)).await;
        let (here, mut there): (DuplexStream, DuplexStream) = tokio::io::duplex(64);
        there.write_all(format!("after {seconds} s").as_bytes()).await?;
        Ok(Box::pin(here))
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send> Stream for T {}
type AnyStream = std::pin::Pin<Box<dyn Stream>>;

/// A peer that does not answer costs the connect timeout, once; then it is away.
#[tokio::test]
async fn a_connect_that_hangs_is_given_up() {
    let upstreams = ["hangs:0", "slow:3", "quick:1"].map(Upstream::new).to_vec();
    let balancer =
        Balancer { connect_timeout: Duration::from_secs(2), ..Balancer::new("127.0.0.1:0", upstreams) };
    let listener = Slow.bind(&balancer.listen).await.unwrap();
    let port = Slow.local_addr(&listener).unwrap().port();
    let tracker = TaskTracker::new();
    let serving = serve_on(Slow, listener, balancer, tracker.clone());
    let _process = AbortOnDropHandle::new(tracker.spawn(async move { serving.await.unwrap() }));
    assert_eq!(client(port, b"", false).await, b"after 1 s");
    let began = Instant::now();
    assert_eq!(client(port, b"", false).await, b"after 1 s");
    println!("the second time it took {:?}", began.elapsed());
}

/// It takes no more clients than it may.
#[tokio::test]
async fn clients_beyond_the_limit_are_closed() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new(&silent.local_addr().unwrap().to_string());
    let balancer = Balancer { sessions_max: 1, ..Balancer::new("127.0.0.1:0", vec![upstream]) };
    let (port, _process) = start(balancer).await;
    let first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_held, _) = silent.accept().await.unwrap();
    assert_eq!(client(port, b"", false).await, b"");
    drop(first);
}

/// A silent connection is closed after `proxy_timeout`.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new(&silent.local_addr().unwrap().to_string());
    let balancer =
        Balancer { idle_timeout: Duration::from_millis(50), ..Balancer::new("127.0.0.1:0", vec![upstream]) };
    let (port, _process) = start(balancer).await;
    let (heard, _held) = tokio::join!(client(port, b"x", false), silent.accept());
    assert_eq!(heard, b"");
}

/// An address that is taken is an error, not a panic.
#[tokio::test]
async fn a_taken_address_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = serve(Tcp, Balancer::new(&address, vec![]), TaskTracker::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
