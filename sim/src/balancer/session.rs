//! One client's connection through the balancer.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};

/// Bytes that wait in each direction: nginx's `proxy_buffer_size`. While they do, no more is read.
const BUFFER_BYTES: usize = 16 << 10;

/// Copies both ways until one side has ended and what it said was passed on, either fails, or nothing passes for too long.
pub(super) async fn copy<C, U>(client: C, upstream: U, header: Option<String>, idle_max: Duration)
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let activity = Activity::default();
    let up = async {
        let mut to_upstream = to_upstream;
        if let Some(header) = header {
            to_upstream.write_all(header.as_bytes()).await?;
        }
        pass(from_client, to_upstream, &activity).await
    };
    // All are polled each time, so the order decides nothing but which of two ends comes first.
    tokio::select! {
        biased;
        _ = up => {}
        _ = pass(from_upstream, to_client, &activity) => {}
        () = activity.idle(idle_max) => {}
    }
}

/// One direction, until its source ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        activity.note();
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let written = to.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
            activity.note();
        }
    }
}

/// When something passed last.
struct Activity(Mutex<Instant>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Activity {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has passed for so long.
    async fn idle(&self, most: Duration) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + most;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// What the PROXY protocol, version 1, says of a connection.
pub(super) fn proxy_header(client: SocketAddr, here: SocketAddr) -> String {
    let version = match (client, here) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => 4,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => 6,
        _ => return "PROXY UNKNOWN\r\n".into(),
    };
    format!("PROXY TCP{version} {} {} {} {}\r\n", client.ip(), here.ip(), client.port(), here.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let check = |client: &str, here: &str, expected: &str| {
            assert_eq!(proxy_header(client.parse().unwrap(), here.parse().unwrap()), expected);
        };
        check("10.0.0.1:5", "10.0.0.2:8000", "PROXY TCP4 10.0.0.1 10.0.0.2 5 8000\r\n");
        check("[::1]:5", "[::2]:8000", "PROXY TCP6 ::1 ::2 5 8000\r\n");
        check("10.0.0.1:5", "[::]:8000", "PROXY UNKNOWN\r\n");
    }
}
