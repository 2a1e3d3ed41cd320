//! A connection that may be misused: bytes out, and of what comes in only what is worth counting.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::Shared;
use super::options::Kind;

/// A receive buffer of those who do not read, so that the rest stays with the node.
const SMALL_BUFFER: u32 = 4096;
/// The longest line of which anything is read: replies and pushes that only name a code are short.
const LINE_BYTES_MAX: usize = 512;

pub(super) struct Wire<'a> {
    shared: &'a Shared,
    kind: Kind,
    number: u32,
    stream: TcpStream,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// The last reply's code, or "ok".
    answer: Option<String>,
    /// What a login's reply told.
    pub(super) token: Option<String>,
    pub(super) group: Option<u64>,
}

impl<'a> Wire<'a> {
    pub(super) async fn connect(
        shared: &'a Shared,
        kind: Kind,
        number: u32,
        small_buffer: bool,
    ) -> io::Result<Self> {
        let target = shared.options.target;
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if small_buffer {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let source = shared.sources[number as usize % shared.sources.len()];
        socket.bind(SocketAddr::new(source, 0))?;
        let connected = socket.connect(target).await;
        shared.tally.count(kind, |report| match &connected {
            Ok(_) => {
                report.connections += 1;
                report.open += 1;
            }
            Err(_) => report.not_connected += 1,
        });
        let stream = connected?;
        stream.set_nodelay(true)?;
        Ok(Self { shared, kind, number, stream, line: Vec::new(), answer: None, token: None, group: None })
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        self.stream.write_all(bytes).await?;
        self.shared.tally.count(self.kind, |report| report.bytes_sent += bytes.len() as u64);
        Ok(())
    }

    /// Sends a line and waits for a reply: its code, or "ok".
    pub(super) async fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(format!("{line}\n")).await?;
        self.answer = None;
        loop {
            self.read(16 << 10).await?;
            if let Some(answer) = self.answer.take() {
                return Ok(answer);
            }
        }
    }

    /// Reads what is there, or waits for something.
    pub(super) async fn read(&mut self, bytes_max: usize) -> io::Result<()> {
        let mut bytes = vec![0; bytes_max];
        let count = self.stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for byte in &bytes[..count] {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.heard(&String::from_utf8_lossy(&line));
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(*byte);
            }
        }
        Ok(())
    }

    /// Reads until the node ends the connection.
    pub(super) async fn until_ended(&mut self) -> io::Result<()> {
        loop {
            self.read(4096).await?;
        }
    }

    /// The connection ends with a reset, and not in order.
    pub(super) fn reset(&self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }

    fn heard(&mut self, line: &str) {
        let after = |name: &str| {
            let rest = line.split_once(&format!("\"{name}\":"))?.1.trim_start_matches('"');
            Some(rest.split(['"', ',', '}']).next().unwrap_or_default().to_owned())
        };
        let tally = &self.shared.tally;
        if line.contains("\"push\":\"closing\"") {
            let code = after("code").unwrap_or_default();
            tally.count(self.kind, |report| *report.closings.entry(code).or_default() += 1);
        } else if line.contains("\"error\":{") {
            let code = after("code").unwrap_or_default();
            self.answer = Some(code.clone());
            tally.count(self.kind, |report| *report.refusals.entry(code).or_default() += 1);
        } else if line.contains("\"ok\":") {
            self.token = after("token").or(self.token.take());
            self.group = after("group").and_then(|group| group.parse().ok()).or(self.group);
            self.answer = Some("ok".into());
            tally.count(self.kind, |report| report.ok += 1);
        }
    }

    /// The node has ended it.
    pub(super) fn ended(&self) {
        self.shared.tally.count(self.kind, |report| report.ended += 1);
        self.shared.tally.shut_out(self.kind, self.number);
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.shared.tally.count(self.kind, |report| report.open -= 1);
    }
}
