//! Clients that mean no good, on a port that speaks TLS: each handshake that comes to nothing ends the connection, within its time.

use std::time::Duration;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{Siege, sign_in};
use crate::{
    certificates::Files,
    harness::{PATIENCE, Wire},
    tls,
};

const REQUIRED: &str = "{\"push\":\"closing\",\"code\":\"tls_required\"}\n";

async fn siege(files: &Files, options: &[&str]) -> Siege {
    let data = TempDir::new().unwrap();
    let server = tls::start(&data, 0, files, options).await;
    let mut pair = Vec::new();
    for name in ["alice", "bob"] {
        let mut wire = Wire::connect_tls(&server.address, &files.peer()).await;
        sign_in(&mut wire, name).await;
        pair.push(wire);
    }
    let (bob, alice) = (pair.pop().unwrap(), pair.pop().unwrap());
    Siege::of(server, "", data, alice, 2, bob).await
}

/// What a real client says first.
async fn client_hello(files: &Files) -> Vec<u8> {
    let (near, mut far) = duplex(1 << 16);
    let peer = files.peer();
    let mut hello = Vec::with_capacity(4096);
    tokio::select! {
        _ = peer.shake_hands(near) => unreachable!("nobody answers"),
        read = far.read_buf(&mut hello) => assert!(read.unwrap() > 100),
    }
    hello
}

/// What the node says until it ends the connection.
async fn answer(name: &str, stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // The end may be a reset, since not all was read.
    let _ =
        timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap_or_else(|_| panic!("{name}: no end"));
    said
}

/// What is no TLS is told so in plain text; what is broken TLS gets an alert at most.
#[tokio::test]
async fn bad_handshakes_end_the_connection() {
    let files = Files::new();
    let siege = siege(&files, &["--login-timeout", "5"]).await;
    let plain: [(&str, Vec<u8>); 7] = [
        ("a request", b"{\"id\":1,\"op\":\"ping\"}\n".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("SSL 2", b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10".to_vec()),
        ("an alert", b"\x15\x03\x03\0\x02\x01\0".to_vec()),
        ("application data", b"\x17\x03\x03\0\x05hello".to_vec()),
        ("a PROXY header that nobody expects", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
    ];
    for (name, bytes) in plain {
        let mut stream = siege.stream().await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer(name, &mut stream).await), REQUIRED, "{name}");
    }
    let hello = client_hello(&files).await;
    let changed = |at: usize, byte: u8| {
        let mut hello = hello.clone();
        hello[at] = byte;
        hello
    };
    let broken: [(&str, Vec<u8>); 9] = [
        ("garbage in a record", [b"\x16\x03\x01\x02\0".to_vec(), vec![0xaa; 512]].concat()),
        ("a record that is empty", b"\x16\x03\x01\0\0".to_vec()),
        ("a record of 65,535 bytes", [b"\x16\x03\x01\xff\xff".to_vec(), vec![1; 65_535]].concat()),
        ("a record of 18,433 bytes", [b"\x16\x03\x01\x48\x01".to_vec(), vec![1; 18_433]].concat()),
        ("a message of 16 MB", [b"\x16\x03\x01\x40\0\x01\xff\xff\xff".to_vec(), vec![0; 16_380]].concat()),
        ("an unknown version", changed(1, 9)),
        ("another message", changed(5, 0x7f)),
        ("a length that is too short", changed(8, 1)),
        ("the greeting twice", [&hello[..], &hello[..]].concat()),
    ];
    for (name, bytes) in broken {
        let mut stream = siege.stream().await;
        // It may end before it has taken everything.
        let _ = stream.write_all(&bytes).await;
        let said = answer(name, &mut stream).await;
        let text = String::from_utf8_lossy(&said).into_owned();
        assert!(!text.contains("hello") && !text.contains("push"), "{name}: {text}");
    }
    siege.lifts_with_nobody_disturbed().await;
}

/// However a handshake is drawn out, it has the time from the connection to the login, and no more.
#[tokio::test]
async fn who_only_begins_a_handshake_is_shut_out() {
    let files = Files::new();
    let siege = siege(&files, &["--login-timeout", "1"]).await;
    let hello = client_hello(&files).await;
    let mut silent = siege.stream().await;
    let (mut one_byte, mut half) = (siege.stream().await, siege.stream().await);
    let (mut no_answer, mut byte_by_byte) = (siege.stream().await, siege.stream().await);
    let mut after_the_handshake = Wire::connect_tls(&siege.server.address, &files.peer()).await;
    let begun = Instant::now();
    one_byte.write_all(&hello[..1]).await.unwrap();
    half.write_all(&hello[..hello.len() / 2]).await.unwrap();
    no_answer.write_all(&hello).await.unwrap();
    for byte in &hello[..10] {
        byte_by_byte.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    // Who says nothing is likely to wait for a greeting in plain text.
    assert_eq!(String::from_utf8_lossy(&answer("silent", &mut silent).await), REQUIRED);
    for (name, stream) in
        [("one byte", &mut one_byte), ("half", &mut half), ("byte by byte", &mut byte_by_byte)]
    {
        assert_eq!(answer(name, stream).await, b"", "{name}");
    }
    assert!(!answer("no answer", &mut no_answer).await.is_empty(), "the node's side of the handshake");
    assert_eq!(
        after_the_handshake.find("the end", |line| line["push"] == "closing").await["code"],
        "login_timeout"
    );
    assert!(begun.elapsed() < PATIENCE);
    siege.lifts_with_nobody_disturbed().await;
}

/// Handshakes that come and go at every point of them, many at once.
#[tokio::test]
async fn handshakes_that_are_given_up_leave_nothing_behind() {
    let files = Files::new();
    let siege = siege(&files, &[]).await;
    let hello = client_hello(&files).await;
    for round in 0..200 {
        let mut stream = siege.stream().await;
        match round % 4 {
            0 => {}
            1 => stream.set_zero_linger().unwrap(),
            2 => stream.write_all(&hello[..hello.len() / 2]).await.unwrap(),
            _ => stream.write_all(&hello).await.unwrap(),
        }
    }
    let mut newcomer = Wire::connect_tls(&siege.server.address, &files.peer()).await;
    sign_in(&mut newcomer, "newcomer").await;
    siege.lifts_with_nobody_disturbed().await;
}
