//! Where Redis is, and how patient to be with it.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo};
use thiserror::Error;
use tokio_rustls::TlsConnector;

/// Where Redis is, and how it is used. Its `Debug` form hides the password.
#[derive(Clone)]
pub struct RedisConfig {
    /// As `HOST:PORT`.
    pub(super) address: String,
    /// The name that its certificate must have, if the connection is encrypted.
    pub(super) tls_name: Option<String>,
    /// Whom to trust then, if not whom the system trusts.
    pub(super) connector: Option<TlsConnector>,
    /// User, password, database number.
    pub(super) login: RedisConnectionInfo,
    /// What all names begin with.
    pub(super) prefix: String,
    /// Intervals and patience.
    pub timing: Timing,
}

/// Intervals and patience; the defaults are those of SPEC.md, section 10.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For dialling, encryption and login together.
    pub connect_timeout: Duration,
    /// For any reply; a link that takes longer is given up.
    pub response_timeout: Duration,
    /// Between two canaries: nothing else notices that a peer has silently gone, or delivers nothing.
    pub canary_interval: Duration,
    /// How long none of them may come back: a few intervals, since one may be lost.
    pub canary_patience: Duration,
    /// How long a node's presence lasts after its last sign of life.
    pub lease: Duration,
    /// Between two renewals of the lease, and two looks at the other nodes'.
    pub heartbeat: Duration,
    /// Between two attempts to connect: at first, and at most.
    pub backoff: (Duration, Duration),
    /// How long a channel that nobody reads is kept.
    pub linger: Duration,
    /// How long a session waits for its subscriptions to be confirmed.
    pub subscribe_wait: Duration,
    /// After a reconnect, nodes compare their heads within this time, not all at once.
    pub spread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            response_timeout: Duration::from_secs(2),
            canary_interval: Duration::from_secs(1),
            canary_patience: Duration::from_secs(3),
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(3),
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            linger: Duration::from_secs(30),
            subscribe_wait: Duration::from_secs(2),
            spread: Duration::from_millis(500),
        }
    }
}

/// Why a Redis URL cannot be used. It does not repeat the URL, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RedisUrlError {
    /// Not the form of an URL.
    #[error("expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS")]
    Form,
    /// Not what a name may begin with.
    #[error("a prefix has 1 to 64 letters, digits, points, hyphens or underscores")]
    Prefix,
}

impl RedisConfig {
    /// From an URL, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS; and what all names in it begin with.
    ///
    /// # Errors
    /// See [`RedisUrlError`].
    pub fn parse(url: &str, prefix: &str) -> Result<Self, RedisUrlError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !(1..=64).contains(&prefix.len()) || !prefix.chars().all(allowed) {
            return Err(RedisUrlError::Prefix);
        }
        // TLS is ours, over the network seam; so the library is given the plain form.
        let (tls, rest) = match url.split_once("://") {
            Some(("redis" | "valkey", rest)) => (false, rest),
            Some(("rediss" | "valkeys", rest)) => (true, rest),
            _ => return Err(RedisUrlError::Form),
        };
        // Parameters would be ignored, and a fragment is what an unescaped # in a password leaves behind.
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Form);
        }
        let info = format!("redis://{rest}").into_connection_info().map_err(|_| RedisUrlError::Form)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisUrlError::Form) };
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Self {
            address,
            tls_name: tls.then(|| host.clone()),
            connector: None,
            login: info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3),
            prefix: prefix.to_owned(),
            timing: Timing::default(),
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls_name.is_some()
    }

    /// Trusts whom the connector trusts, instead of whom the system does.
    pub fn trust(&mut self, connector: TlsConnector) {
        self.connector = Some(connector);
    }

    /// As `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.address)
            .field("tls_name", &self.tls_name)
            .field("user", &self.login.username())
            .field("database", &self.login.db())
            .field("prefix", &self.prefix)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        let found = RedisConfig::parse(url, "chat").map(|config| {
            let login = &config.login;
            let tls = if config.tls_name.is_some() { " tls" } else { "" };
            let (user, password) = (login.username().unwrap_or("-"), login.password().unwrap_or("-"));
            format!("{} {user} {password} {}{tls}", config.address, login.db())
        });
        assert_eq!(found.unwrap_or_else(|error| error.to_string()), expected, "{url}");
    }

    #[test]
    fn urls() {
        check("redis://localhost", "localhost:6379 - - 0");
        check("redis://10.0.0.1:7000/3", "10.0.0.1:7000 - - 3");
        check("redis://:s%40crat@h", "h:6379 - s@crat 0");
        check("rediss://me:secret@cache.example:6380/1", "cache.example:6380 me secret 1 tls");
        check("redis://[::1]:7", "[::1]:7 - - 0");
        for bad in [
            "",
            "localhost",
            "localhost:6379",
            "http://h",
            "redis://",
            "redis://h/x",
            "redis+unix:///s",
            "redis://h?db=1",
            "redis://:a#b@h",
            "redis://h:70000",
        ] {
            check(bad, &RedisUrlError::Form.to_string());
        }
        assert_eq!(RedisConfig::parse("redis://h", "a b").unwrap_err(), RedisUrlError::Prefix);
        assert_eq!(RedisConfig::parse("redis://h", "").unwrap_err(), RedisUrlError::Prefix);
    }

    #[test]
    fn no_password_shows() {
        let config = RedisConfig::parse("redis://me:secret@h", "chat").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
