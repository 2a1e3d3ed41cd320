//! TLS on a node's port, with the real binaries: SPEC.md, sections 3 and 8. Hostile handshakes are in `hostile/tls.rs`.

mod services;

use std::{process::Stdio, sync::Arc};

use client::{Client, Config, Event, Tls};
use protocol::{Tcp, clock::SystemEntropy};
use serde_json::json;
use server::node::NodeConfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional, duplex},
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version::{TLS12, TLS13},
    },
};
use tokio_util::task::TaskTracker;

use crate::{
    certificates::{Authority, Files, Pair, peer},
    harness::{PATIENCE, TestNode, Wire, mid},
    process::{Server, says},
    terminal::{Person, chatclient},
};

/// A node that speaks TLS.
pub(crate) async fn start(data: &TempDir, port: u16, files: &Files, more: &[&str]) -> Server {
    let options = files.options(more);
    let options: Vec<&str> = options.iter().map(AsRef::as_ref).collect();
    Server::start(data.path(), port, &options).await
}

/// Two people over TLS; the node dies, and they go on over TLS.
#[tokio::test]
async fn two_friends_chat_over_tls() {
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let mut server = start(&data, 0, &files, &[]).await;
    let port = server.port();
    let ca = files.ca().display().to_string();
    let person = || Person::sits_down_with(&server, &["--tls", "--tls-ca", &ca]);
    let (mut kirito, _) = person().registers_as("kirito").await;
    let (mut kir, kir_id) = person().registers_as("kir").await;
    kirito.does(&format!("addfriend:{kir_id}"), "friend").await;
    kirito.does(&format!("chat:{kir_id}:hello: with a colon"), "hello: with a colon").await;
    kir.sees("hello: with a colon").await;
    server.child.kill().await.unwrap();
    kir.sees("connection lost").await;
    let _server = start(&data, port, &files, &[]).await;
    kir.sees("reconnected").await;
    kirito.does(&format!("chat:{kir_id}:are you there?"), "are you there?").await;
    kir.sees("are you there?").await;
    for person in [kirito, kir] {
        let (code, seen) = person.quits().await;
        assert_eq!(code, 0, "{seen:#?}");
    }
}

/// Both versions; and what comes last is all there, closed as TLS closes.
#[tokio::test]
async fn both_versions_are_spoken_and_end_in_order() {
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let server = start(&data, 0, &files, &[]).await;
    for (name, version) in [("old", &TLS12), ("new", &TLS13)] {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let stream = connector(&files, version)
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap();
        let mut wire = Wire::over(stream);
        assert_eq!(wire.line().await["push"], "hello", "{name}");
        wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        wire.login(name).await;
        wire.ok(json!({"op": "logout"})).await;
        assert_eq!(wire.line().await["code"], "logged_out");
        assert!(wire.ends_in_order().await, "{name}");
    }
}

fn connector(files: &Files, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.ca()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(protocol::tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// More than any buffer between the two holds, to a client that begins to read late: nothing is lost, and nothing stays behind.
#[tokio::test]
async fn all_that_was_missed_comes_over_tls() {
    const MESSAGES: usize = 100;
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let server = start(&data, 0, &files, &[]).await;
    let mut alice = tls_user(&server, &files, "alice").await;
    let mut bob = tls_user(&server, &files, "bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    bob.ok(json!({"op": "logout"})).await;
    let text = |n: usize| format!("{n} {}", "x".repeat(60_000));
    for n in 0..MESSAGES {
        alice.say("d1-2", &text(n)).await;
    }
    let mut bob = Wire::connect_tls(&server.address, &files.peer()).await;
    let login = bob.ask(json!({"op": "login", "account": "bob", "password": "bob"})).await;
    // The node has filled what there is to fill.
    sleep(std::time::Duration::from_millis(300)).await;
    bob.reply(login).await;
    for n in 0..MESSAGES {
        assert!(bob.message("d1-2").await == text(n), "message {n}");
    }
}

async fn tls_user(server: &Server, files: &Files, name: &str) -> Wire {
    let mut wire = Wire::connect_tls(&server.address, &files.peer()).await;
    wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
    wire.login(name).await;
    wire
}

/// SIGHUP: new connections are served with what the files hold then, old ones go on; what cannot be used is said, and changes nothing.
#[tokio::test]
async fn certificates_are_read_again() {
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let server = start(&data, 0, &files, &[]).await;
    let mut before = Wire::connect_tls(&server.address, &files.peer()).await;
    let tracker = TaskTracker::new();
    let network = Tls::new(Tcp, files.peer());
    let (_client, mut events) =
        Client::start(network, &server.address, Config::default(), Arc::new(SystemEntropy), &tracker);
    assert!(matches!(events.next().await, Some(Event::Connected)));

    let other = Authority::new("another authority");
    let other_ca = files.path("other.pem");
    std::fs::write(&other_ca, other.pem()).unwrap();
    files.put(&other.signs(&["127.0.0.1"]));
    let refused = async |ca: &std::path::Path| {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        peer(ca).shake_hands(stream).await.map(|_| ()).unwrap_err().to_string()
    };
    // Until it is told, it goes on as it was.
    assert!(refused(&other_ca).await.contains("not signed by an authority"));
    hang_up(&server, "the certificates were read again").await;
    before.ok(json!({"op": "ping"})).await;
    let mut after = Wire::connect_tls(&server.address, &peer(&other_ca)).await;
    after.ok(json!({"op": "ping"})).await;
    assert!(refused(&files.ca()).await.contains("not signed by an authority"));

    // A key that is not the certificate's, and then no certificate at all.
    let mut broken = other.signs(&["127.0.0.1"]);
    broken.key = files.authority.signs(&["127.0.0.1"]).key;
    files.put(&broken);
    hang_up(&server, "is not the key of the first certificate").await;
    std::fs::remove_file(files.path("cert.pem")).unwrap();
    hang_up(&server, "cert.pem: No such file").await;
    let errors = server.log().iter().filter(|line| line.contains("\"ERROR\"")).count();
    assert_eq!(errors, 2, "{:#?}", server.log());
    let mut still = Wire::connect_tls(&server.address, &peer(&other_ca)).await;
    still.ok(json!({"op": "ping"})).await;
    before.ok(json!({"op": "ping"})).await;
}

/// A node without TLS has nothing to read again, and does not end.
#[tokio::test]
async fn sighup_does_not_end_a_node() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), 0, &[]).await;
    let mut wire = Wire::connect(&server.address).await;
    hang_up(&server, "there is nothing to read again").await;
    wire.ok(json!({"op": "ping"})).await;
}

/// Sends SIGHUP, and waits until the log says this.
async fn hang_up(server: &Server, text: &str) {
    let pid = server.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    let said = async {
        while !server.log().iter().any(|line| line.contains(text)) {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("no {text:?} in {:#?}", server.log()));
}

/// Behind a balancer, its header comes first, in the same segment or before it; whom it names is whom limits count.
#[tokio::test]
async fn the_proxy_header_comes_before_tls() {
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let options = ["--proxy-protocol", "--address-connections-max", "1"];
    let server = start(&data, 0, &files, &options).await;
    let mut first =
        through_proxy(&server, &files, "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n", true).await.unwrap();
    first.ok(json!({"op": "ping"})).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x02\xc0\0\x02\x09\0\x01\0\x02";
    let mut second = through_proxy(&server, &files, v2, false).await.unwrap();
    second.ok(json!({"op": "ping"})).await;
    // The address has its one connection: the other ends before the handshake, which would cost more than it.
    let error =
        through_proxy(&server, &files, "PROXY TCP4 192.0.2.1 192.0.2.9 3 2\r\n", true).await.err().unwrap();
    assert!(error.contains("ended the connection in the TLS handshake"), "{error}");
    first.ok(json!({"op": "ping"})).await;
    // Without a header it is no balancer.
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let error = files.peer().shake_hands(stream).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("ended the connection in the TLS handshake"), "{error}");
}

/// A TLS connection of a client, with a header before it; `together`: in one write with what the client says first.
async fn through_proxy(
    server: &Server,
    files: &Files,
    header: impl AsRef<[u8]>,
    together: bool,
) -> Result<Wire, String> {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let (near, mut far): (DuplexStream, DuplexStream) = duplex(1 << 16);
    let mut first = header.as_ref().to_vec();
    let balancer = async move {
        if together {
            assert!(far.read_buf(&mut first).await.unwrap() > 0);
        }
        stream.write_all(&first).await.unwrap();
        let _ = copy_bidirectional(&mut far, &mut stream).await;
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
    tokio::spawn(balancer);
    let shaken = timeout(PATIENCE, files.peer().shake_hands(near)).await.expect("an outcome in time");
    shaken.map(Wire::over).map_err(|error| error.to_string())
}

/// What the terminal program says of a node that it does not trust, or that does not speak as it does.
#[tokio::test]
async fn a_client_says_why_it_does_not_talk() {
    let (data, files) = (TempDir::new().unwrap(), Files::new());
    let server = start(&data, 0, &files, &[]).await;
    let plain_data = TempDir::new().unwrap();
    let plain = Server::start(plain_data.path(), 0, &[]).await;
    let (ca, other) = (files.ca().display().to_string(), files.path("other.pem").display().to_string());
    std::fs::write(&other, Authority::new("another authority").pem()).unwrap();
    let tls = ["--tls", "--tls-ca", &ca];
    let check = async |server: &Server, options: &[&str], code: i32, expected: &str| {
        let (found, said) = leaves_at_once(server, options).await;
        assert!(found == code && said.contains(expected), "{options:?}: {found} {said}");
    };
    let unknown = "its certificate is not signed by an authority that is trusted here; --tls-ca names others";
    check(&server, &["--tls", "--tls-ca", &other], 1, unknown).await;
    let name = "its certificate is not for example.com; --tls-name says which name to expect";
    check(&server, &[&tls[..], &["--tls-name", "example.com"]].concat(), 1, name).await;
    check(&server, &[&tls[..], &["--tls-name", "localhost"]].concat(), 0, "").await;
    check(&plain, &tls, 1, "it does not speak TLS").await;
    check(&server, &[], 1, "closed by the server: it speaks TLS only (--tls)").await;
    check(&server, &["--tls", "--tls-ca", "/does/not/exist"], 2, "/does/not/exist: No such file").await;
    check(&server, &[&tls[..], &["--tls-name", "a b"]].concat(), 2, "a b is not a host name").await;
    let hang = async |pair: Pair| {
        files.put(&pair);
        hang_up(&server, "the certificates were read again").await;
    };
    hang(files.authority.signed_long_ago(&["127.0.0.1"])).await;
    check_again(&server, &tls, "its certificate is no longer valid").await;
    hang(files.authority.itself()).await;
    check_again(&server, &tls, "its certificate is an authority's own").await;
}

/// Until the node has read the files, of which it says the same each time, it serves the certificate before.
async fn check_again(server: &Server, options: &[&str], expected: &str) {
    let said = async {
        loop {
            let (code, said) = leaves_at_once(server, options).await;
            if said.contains(expected) {
                return assert_eq!(code, 1);
            }
        }
    };
    timeout(2 * PATIENCE, said).await.unwrap_or_else(|_| panic!("{expected:?} is not said"));
}

/// The terminal program with no input: exit code, and what it says of errors.
async fn leaves_at_once(server: &Server, options: &[&str]) -> (i32, String) {
    let mut command = Command::new(chatclient());
    command.args(["127.0.0.1", &server.port().to_string()]).args(options).stdin(Stdio::null());
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A node that could not speak TLS does not start, and `check-config` says why.
#[tokio::test]
async fn what_is_wrong_with_the_files_is_said() {
    let files = Files::new();
    let text = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (text("cert.pem"), text("key.pem"), text("ca.pem"));
    std::fs::write(files.path("empty"), "").unwrap();
    let empty = text("empty");
    let check = async |options: &[&str], expected: Option<&str>| {
        let words = [&["check-config", "127.0.0.1", "0", "--database", ":memory:"], options].concat();
        let (code, said, error) = says(&words, &[]).await;
        match expected {
            None => assert_eq!((code, said.as_str()), (0, "the configuration can be used\n"), "{error}"),
            Some(expected) => assert!(code == 2 && error.contains(expected), "{options:?}: {error}"),
        }
    };
    check(&["--tls-cert", &cert, "--tls-key", &key], None).await;
    check(&["--tls-cert", &cert], Some("--tls-cert and --tls-key are given together")).await;
    check(&["--tls-cert", "/does/not/exist", "--tls-key", &key], Some("/does/not/exist: No such file")).await;
    let swapped = format!("{key}: it holds no certificate in PEM");
    check(&["--tls-cert", &key, "--tls-key", &cert], Some(&swapped)).await;
    let no_key = format!("{empty}: it holds no private key in PEM");
    check(&["--tls-cert", &cert, "--tls-key", &empty], Some(&no_key)).await;
    let other = format!("{key} is not the key of the first certificate in {ca}");
    check(&["--tls-cert", &ca, "--tls-key", &key], Some(&other)).await;
    files.put(&files.authority.signed_long_ago(&["127.0.0.1"]));
    let words =
        ["check-config", "127.0.0.1", "0", "--database", ":memory:", "--tls-cert", &cert, "--tls-key", &key];
    let (code, _, warning) = says(&words, &[]).await;
    assert!(code == 0 && warning.contains("--tls-cert: the certificate is no longer valid"), "{warning}");
    check(&["--redis", "rediss://h", "--redis-ca", &ca], None).await;
    check(&["--redis", "rediss://h", "--redis-ca", &empty], Some("--redis-ca: ")).await;
    check(&["--redis", "redis://h", "--redis-ca", &ca], Some("--redis-ca is for")).await;
    check(&["--redis-ca", &ca], Some("--redis-ca is for")).await;
    let words = ["127.0.0.1", "0", "--database", ":memory:", "--tls-cert", &ca, "--tls-key", &key];
    let (code, _, error) = says(&words, &[]).await;
    assert!(code == 1 && error.contains(&other), "{error}");
}

/// What comes to nothing is counted by why, and what does not is a connection like any other. OPERATING.md.
#[tokio::test]
async fn failed_handshakes_are_counted() {
    let files = Files::new();
    let tls = server::tls::Tls::load(&files.path("cert.pem"), &files.path("key.pem")).unwrap();
    let config = NodeConfig { tls: Some(Arc::new(tls)), ..NodeConfig::default() };
    let node = TestNode::with_config(config).await;
    let connect = async || TcpStream::connect(&node.address).await.unwrap();
    let _served = Wire::connect_tls(&node.address, &files.peer()).await;
    // Each is known to have ended when the node ends the connection.
    assert_eq!(Wire::connect(&node.address).await.line().await["code"], "tls_required");
    let mut garbage = connect().await;
    garbage.write_all(b"\x16\x03\x01\0\x05hello").await.unwrap();
    let _ = garbage.read_to_end(&mut Vec::new()).await;
    let other = files.path("other.pem");
    std::fs::write(&other, Authority::new("another authority").pem()).unwrap();
    assert!(peer(&other).shake_hands(connect().await).await.is_err());
    drop(connect().await);
    let metrics = &node.running.node().metrics;
    let counted = async {
        let expected = [("no_tls", 1), ("invalid", 1), ("refused_by_client", 1), ("ended", 1), ("late", 0)];
        while expected.iter().any(|(why, count)| metrics.tls_failures(why) != *count)
            || metrics.connections.get() != 1
        {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("each is counted once");
}
