//! The command line, the environment and the configuration file.

mod chores;
mod sources;

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use etcetera::base_strategy::{BaseStrategy as _, choose_native_strategy};
use ipnet::IpNet;
use protocol::tls::{self, TlsError};
use thiserror::Error;

pub(crate) use self::chores::date;
#[cfg(any(test, fuzzing))]
pub use self::sources::fuzz;
pub use self::{
    chores::{BackupArgs, EraseUserArgs, ExpireArgs, MigrateArgs, MigrateDataArgs, RestoreArgs},
    sources::{LoadError, Loaded, Origin, Setting},
};
use crate::{
    admin::AdminToken,
    committer::Bounds,
    node::NodeConfig,
    relay::redis::{RedisConfig, RedisUrlError},
    retention::Retention,
    throttle::{Penalty, Rate, Rates},
    tls::Tls,
};

/// What is around a text in the line of a `send`, at most, with room for fields to come.
const TEXT_FRAMING_BYTES: u32 = 512;

/// A node of the clustered chat system.
///
/// Alone it needs nothing else: messages go to an SQLite database in the platform's data directory. Several nodes share a MySQL
/// database. It speaks the protocol of SPEC.md,
/// one JSON object per line, on IP and PORT; Ctrl-C or SIGTERM ends it in an orderly way.
///
/// Every option can also be given by the environment variable named with it, or in the file of --config, by its name without the dashes; flags
/// override the environment, and that overrides the file. "chatserver config" with the same arguments shows what is in effect and where it
/// comes from, "chatserver check-config" only whether it can be used.
/// "chatserver migrate --database URL" brings a database's schema up to date, and does nothing else. "chatserver expire" deletes the texts of old
/// messages, "chatserver erase-user" all that an account has written, and its name. "chatserver migrate-data" copies an embedded database to MySQL;
/// "chatserver backup" and "chatserver restore" copy the file of one. Each has a --help of its own.
#[derive(Debug, Parser)]
#[command(name = "chatserver", version, max_term_width = 100)]
pub struct Args {
    /// Address to listen on; 0.0.0.0 or :: for all.
    pub ip: IpAddr,
    /// Port to listen on; 0 for any free one (the log says which).
    pub port: u16,

    /// A configuration file, in TOML: such as port = 6000, or idle-timeout = 60.
    #[arg(long, env = "CHAT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where data is kept: sqlite:PATH, :memory: for nothing that lasts, or mysql://USER:PASSWORD@HOST:PORT/DATABASE.
    ///
    /// The default is chat.db in the data directory. Nodes that share a MySQL database form one system; its schema is brought up to date
    /// at the start. Other users of the machine can read a command line: better give a password by the environment. The connection is encrypted if
    /// the URL ends in ?ssl-mode=REQUIRED, VERIFY_CA or VERIFY_IDENTITY, the last two with &ssl-ca=FILE or the system's certificates.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<String>,
    /// A file that holds the URL of --database, and nothing else.
    #[arg(long, env = "CHAT_DATABASE_FILE", value_name = "FILE", conflicts_with = "database")]
    pub database_file: Option<PathBuf>,
    /// The data directory, if not the platform's usual one.
    #[arg(long, env = "CHAT_DATA_DIR", value_name = "DIR", conflicts_with_all = ["database", "database_file"])]
    pub data_dir: Option<PathBuf>,

    /// The Redis through which nodes tell each other of messages and of who is online:
    /// redis://USER:PASSWORD@HOST:PORT/DATABASE, of which only HOST is needed, or rediss:// for TLS.
    ///
    /// Without it, nodes that share a database find each other's messages at the sweep's pace, and do not know whom others serve.
    /// A password is better given by the environment, where other users of the machine do not see it.
    #[arg(
        long,
        env = "CHAT_REDIS",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Several nodes"
    )]
    pub redis: Option<Secret>,
    /// A file that holds the URL of --redis, and nothing else.
    #[arg(
        long,
        env = "CHAT_REDIS_FILE",
        value_name = "FILE",
        conflicts_with = "redis",
        help_heading = "Several nodes"
    )]
    pub redis_file: Option<PathBuf>,
    /// What every name in Redis begins with.
    #[arg(
        long,
        env = "CHAT_REDIS_PREFIX",
        value_name = "TEXT",
        default_value = "chat",
        help_heading = "Several nodes"
    )]
    pub redis_prefix: String,

    /// The certificates of the authorities that may have signed Redis' certificate, in PEM, if not those that the system trusts: for rediss:// only.
    #[arg(long, env = "CHAT_REDIS_CA", value_name = "FILE", help_heading = "Several nodes")]
    pub redis_ca: Option<PathBuf>,

    /// Speak TLS with this certificate, in PEM, followed by those that lead to one that clients trust; nobody can connect in plain text then.
    ///
    /// It and --tls-key are read again on SIGHUP, for connections that come afterwards. If they cannot be used then, the log says so, and
    /// what was in use stays in use.
    #[arg(long, env = "CHAT_TLS_CERT", value_name = "FILE", help_heading = "Encryption")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, in PEM, not encrypted.
    #[arg(long, env = "CHAT_TLS_KEY", value_name = "FILE", help_heading = "Encryption")]
    pub tls_key: Option<PathBuf>,

    /// Connections at once.
    #[arg(
        long,
        env = "CHAT_CONNECTIONS_MAX",
        value_name = "N",
        default_value_t = 16_000,
        help_heading = "Limits"
    )]
    pub connections_max: usize,
    /// Seconds from connection to login.
    #[arg(long, env = "CHAT_LOGIN_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = seconds, help_heading = "Limits")]
    pub login_timeout: Duration,
    /// Seconds of silence after which a client is taken for gone.
    #[arg(long, env = "CHAT_IDLE_TIMEOUT", value_name = "SECONDS", default_value = "90", value_parser = seconds, help_heading = "Limits")]
    pub idle_timeout: Duration,
    /// Days a session can be resumed without the password.
    #[arg(long, env = "CHAT_TOKEN_DAYS", value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Limits")]
    pub token_days: u16,
    /// Members of one group.
    #[arg(
        long,
        env = "CHAT_GROUP_MEMBERS_MAX",
        value_name = "N",
        default_value_t = 2000,
        help_heading = "Limits"
    )]
    pub group_members_max: usize,

    /// Groups that a user may be a member of.
    #[arg(
        long,
        env = "CHAT_USER_GROUPS_MAX",
        value_name = "N",
        default_value_t = 1000,
        help_heading = "Limits"
    )]
    pub user_groups_max: u64,
    /// Friends and blocked users of a user.
    #[arg(
        long,
        env = "CHAT_USER_FRIENDS_MAX",
        value_name = "N",
        default_value_t = 5000,
        help_heading = "Limits"
    )]
    pub user_friends_max: u64,
    /// Sessions of a user on this node.
    #[arg(
        long,
        env = "CHAT_USER_SESSIONS_MAX",
        value_name = "N",
        default_value_t = 64,
        help_heading = "Limits"
    )]
    pub user_sessions_max: usize,
    /// Bytes of a message's text: 1 to 65536.
    #[arg(long, env = "CHAT_TEXT_BYTES_MAX", value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Limits")]
    pub text_bytes_max: u32,
    /// Bytes of a client's line before its login: 2048 to 65536.
    #[arg(long, env = "CHAT_ANONYMOUS_FRAME_BYTES_MAX", value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(2048..=65_536), help_heading = "Limits")]
    pub anonymous_frame_bytes_max: u32,
    /// Bytes of a client's line after its login: 4096 to 1048576, and a text of the longest kind with what is around it.
    #[arg(long, env = "CHAT_FRAME_BYTES_MAX", value_name = "BYTES", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(4096..=1_048_576), help_heading = "Limits")]
    pub frame_bytes_max: u32,
    /// Requests of a connection without a reply, after which no more are read: 1 to 1024.
    #[arg(long, env = "CHAT_REQUESTS_IN_FLIGHT_MAX", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Limits")]
    pub requests_in_flight_max: u32,
    /// Seconds in which a reader must take what waits for it, or as much as --reading-rate-min says.
    #[arg(long, env = "CHAT_WRITE_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = seconds, help_heading = "Limits")]
    pub write_timeout: Duration,
    /// Bytes a second that a reader must take, on average over that time.
    #[arg(
        long,
        env = "CHAT_READING_RATE_MIN",
        value_name = "BYTES",
        default_value_t = 256,
        help_heading = "Limits"
    )]
    pub reading_rate_min: u32,

    /// Networks, separated by commas, to which limits per address do not apply, since many users share each of their addresses.
    #[arg(
        long,
        env = "CHAT_EXEMPT",
        value_name = "NETS",
        value_delimiter = ',',
        default_value = "127.0.0.0/8,::1/128",
        value_parser = net,
        help_heading = "Limits"
    )]
    pub exempt: Vec<IpNet>,
    /// Connections from one address; an IPv6 address stands for its /64.
    #[arg(
        long,
        env = "CHAT_ADDRESS_CONNECTIONS_MAX",
        value_name = "N",
        default_value_t = 1000,
        help_heading = "Limits"
    )]
    pub address_connections_max: usize,
    /// Requests from one address on connections that are not logged in, as COUNT/s:BURST (or /m, /h), or off.
    #[arg(
        long,
        env = "CHAT_ADDRESS_REQUESTS",
        value_name = "RATE",
        default_value = "100/s:1000",
        help_heading = "Limits"
    )]
    pub address_requests: Rate,
    /// Requests of one session: what comes faster waits.
    #[arg(
        long,
        env = "CHAT_SESSION_REQUESTS",
        value_name = "RATE",
        default_value = "1000/s:2000",
        help_heading = "Limits"
    )]
    pub session_requests: Rate,
    /// Registrations from one address.
    #[arg(
        long,
        env = "CHAT_ADDRESS_REGISTRATIONS",
        value_name = "RATE",
        default_value = "60/h:20",
        help_heading = "Limits"
    )]
    pub address_registrations: Rate,
    /// Failed logins to an account after which the next attempt has to wait, for twice as long each time.
    #[arg(
        long,
        env = "CHAT_ACCOUNT_FAILURES",
        value_name = "N",
        default_value_t = 10,
        help_heading = "Limits"
    )]
    pub account_failures: u32,
    /// Failed logins from an address after which the next attempt has to wait.
    #[arg(
        long,
        env = "CHAT_ADDRESS_FAILURES",
        value_name = "N",
        default_value_t = 100,
        help_heading = "Limits"
    )]
    pub address_failures: u32,
    /// Seconds that an attempt to log in has to wait at most.
    #[arg(long, env = "CHAT_LOGIN_DELAY_MAX", value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "Limits")]
    pub login_delay_max: Duration,

    /// Working memory of one password hash (argon2id), in KiB.
    #[arg(
        long,
        env = "CHAT_ARGON2_MEMORY",
        value_name = "KIB",
        default_value_t = 19_456,
        help_heading = "Passwords"
    )]
    pub argon2_memory: u32,
    /// Passes over that memory.
    #[arg(
        long,
        env = "CHAT_ARGON2_PASSES",
        value_name = "N",
        default_value_t = 2,
        help_heading = "Passwords"
    )]
    pub argon2_passes: u32,

    /// Seconds between two looks for messages that no other node told of.
    #[arg(long, env = "CHAT_SWEEP_INTERVAL", value_name = "SECONDS", default_value = "2", value_parser = seconds, help_heading = "Operation")]
    pub sweep_interval: Duration,
    /// Seconds that an orderly end may take.
    #[arg(long, env = "CHAT_DRAIN_GRACE", value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Operation")]
    pub drain_grace: Duration,
    /// Days after which messages are erased: their texts are deleted, for ever and for everybody. Without it, messages are kept.
    #[arg(long, env = "CHAT_RETENTION", value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Operation")]
    pub retention: Option<u16>,
    /// Where operators' tools ask: /metrics for Prometheus, /healthz, and /readyz, which says why not; for these, nobody is asked for a password.
    #[arg(long, env = "CHAT_ADMIN", value_name = "IP:PORT", help_heading = "Operation")]
    pub admin: Option<SocketAddr>,
    /// A file that holds the operators' token, of at least 16 bytes, and nothing else: with it, chatctl can ask and act at --admin.
    #[arg(long, env = "CHAT_ADMIN_TOKEN_FILE", value_name = "FILE", help_heading = "Operation")]
    pub admin_token_file: Option<PathBuf>,
    /// Every connection comes from a balancer, which says with the PROXY protocol (1 or 2) who the client is.
    ///
    /// Nobody but those of --proxies can connect then.
    #[arg(long, env = "CHAT_PROXY_PROTOCOL", help_heading = "Operation")]
    pub proxy_protocol: bool,
    /// Networks, separated by commas, from which balancers connect: whoever does can claim any address.
    #[arg(
        long,
        env = "CHAT_PROXIES",
        value_name = "NETS",
        value_delimiter = ',',
        default_value = "127.0.0.0/8,::1/128",
        value_parser = net,
        help_heading = "Operation"
    )]
    pub proxies: Vec<IpNet>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,server::sweep=debug.
    #[arg(long, env = "CHAT_LOG", value_name = "FILTER", default_value = "info", help_heading = "Operation")]
    pub log: String,
    /// How to log, to standard error.
    #[arg(
        long,
        env = "CHAT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Operation"
    )]
    pub log_format: LogFormat,
}

/// What may hold a password. Its `Debug` form hides it.
#[derive(Clone)]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The log's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of the embedded database.
    Sqlite(PathBuf),
    /// Nothing that lasts.
    Memory,
    /// A server's, by its URL, which holds a password.
    MySql(String),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Memory => f.write_str("Memory"),
            Self::MySql(_) => f.write_str("MySql"),
        }
    }
}

impl FromStr for Database {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        if url.starts_with("mysql://") {
            return Ok(Self::MySql(url.into()));
        }
        match url.strip_prefix("sqlite:").unwrap_or(url) {
            ":memory:" => Ok(Self::Memory),
            // Both forms of an URL are met in the wild.
            path if path.len() < url.len() && !path.trim_start_matches('/').is_empty() => {
                Ok(Self::Sqlite(path.strip_prefix("//").unwrap_or(path).into()))
            }
            // What follows the scheme may hold a password, also if it is no URL.
            _ => Err(ConfigError::Database(url.split_once(':').map_or(url, |(scheme, _)| scheme).into())),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not a database that this program knows.
    #[error("--database {0}: expected sqlite:PATH, :memory: or mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    Database(String),
    /// Not a Redis that this program can use.
    #[error("--redis, --redis-prefix: {0}")]
    Redis(#[from] RedisUrlError),
    /// A CA for a Redis that is not asked for TLS.
    #[error("--redis-ca is for a --redis of rediss://, which asks for TLS")]
    RedisCa,
    /// Files that TLS needs.
    #[error("--{0}: {1}")]
    Tls(&'static str, TlsError),
    /// One of the two is missing.
    #[error("--tls-cert and --tls-key are given together or not at all")]
    TlsPair,
    /// A file that holds a secret.
    #[error("{}: {}", .0.display(), .1)]
    Secret(PathBuf, io::Error),
    /// A token that is too short, or that nobody could use.
    #[error("--admin-token-file {}: {}", .0.display(), .1)]
    Token(PathBuf, &'static str),
    /// A text of the longest kind could not be sent.
    #[error(
        "--frame-bytes-max {0}: a text of --text-bytes-max {1} and {TEXT_FRAMING_BYTES} bytes around it do not fit"
    )]
    Frame(u32, u32),
    /// The system has no data directory for this user.
    #[error("there is no data directory for this user; give --data-dir or --database")]
    NoDataDir,
}

impl Args {
    /// Where data is kept.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn database(&self) -> Result<Database, ConfigError> {
        if let Some(path) = &self.database_file {
            return secret(path)?.parse();
        }
        match (&self.database, &self.data_dir) {
            (Some(url), _) => url.parse(),
            (None, Some(folder)) => Ok(Database::Sqlite(folder.join("chat.db"))),
            (None, None) => {
                let dirs = choose_native_strategy().map_err(|_| ConfigError::NoDataDir)?;
                Ok(Database::Sqlite(dirs.data_dir().join("chatserver").join("chat.db")))
            }
        }
    }

    /// The Redis that nodes share, if there is one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn redis(&self) -> Result<Option<RedisConfig>, ConfigError> {
        let url = match (&self.redis_file, &self.redis) {
            (Some(path), _) => secret(path)?,
            (None, Some(Secret(url))) => url.clone(),
            (None, None) if self.redis_ca.is_some() => return Err(ConfigError::RedisCa),
            (None, None) => return Ok(None),
        };
        let mut config = RedisConfig::parse(&url, &self.redis_prefix)?;
        if let Some(ca) = &self.redis_ca {
            if !config.is_encrypted() {
                return Err(ConfigError::RedisCa);
            }
            config.trust(tls::connector(Some(ca)).map_err(|error| ConfigError::Tls("redis-ca", error))?);
        }
        Ok(Some(config))
    }

    /// What the port speaks TLS with, if it does.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn tls(&self) -> Result<Option<Arc<Tls>>, ConfigError> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificates), Some(key)) => {
                let tls = Tls::load(certificates, key);
                Ok(Some(Arc::new(tls.map_err(|error| ConfigError::Tls("tls-cert, --tls-key", error))?)))
            }
            _ => Err(ConfigError::TlsPair),
        }
    }

    /// The operators' token, if there is one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn admin_token(&self) -> Result<Option<AdminToken>, ConfigError> {
        let Some(path) = &self.admin_token_file else { return Ok(None) };
        let refused = |why| ConfigError::Token(path.clone(), why);
        if self.admin.is_none() {
            return Err(refused("it is of no use without --admin"));
        }
        AdminToken::new(&secret(path)?).ok_or_else(|| refused("a token has 16 bytes at least")).map(Some)
    }

    /// Whether the limits fit each other.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check_limits(&self) -> Result<(), ConfigError> {
        let (frame, text) = (self.frame_bytes_max, self.text_bytes_max);
        if frame < text + TEXT_FRAMING_BYTES { Err(ConfigError::Frame(frame, text)) } else { Ok(()) }
    }

    /// The node's settings.
    pub fn node(&self) -> NodeConfig {
        let penalty = |free| Penalty { free, longest: self.login_delay_max, ..Penalty::default() };
        let mut config = NodeConfig {
            connections_max: self.connections_max,
            login_timeout: self.login_timeout,
            write_timeout: self.write_timeout,
            reading_rate_min: self.reading_rate_min,
            sessions_per_user_max: self.user_sessions_max,
            token_lifetime: Duration::from_secs(u64::from(self.token_days) * 24 * 3600),
            sweep_interval: self.sweep_interval,
            drain_grace: self.drain_grace,
            retention: self.retention.map(Retention::days),
            proxy_protocol: self.proxy_protocol,
            proxies: self.proxies.clone(),
            rates: Rates {
                exempt: self.exempt.clone(),
                connections_per_address_max: self.address_connections_max,
                address_requests: self.address_requests,
                session_requests: self.session_requests,
                address_registrations: self.address_registrations,
                account_failures: penalty(self.account_failures),
                address_failures: penalty(self.address_failures),
            },
            ..NodeConfig::default()
        };
        config.limits.idle_timeout_ms = self.idle_timeout.as_millis() as u64;
        config.limits.text_bytes_max = self.text_bytes_max as usize;
        config.limits.anonymous_frame_bytes_max = self.anonymous_frame_bytes_max as usize;
        config.limits.frame_bytes_max = self.frame_bytes_max as usize;
        config.limits.requests_in_flight_max = self.requests_in_flight_max as usize;
        config.bounds = Bounds {
            members_per_group_max: self.group_members_max,
            groups_per_user_max: self.user_groups_max,
            friends_per_user_max: self.user_friends_max,
        };
        config
    }
}

/// What a file holds, without the line's end.
///
/// # Errors
/// See [`ConfigError`].
pub fn secret(path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Secret(path.to_owned(), error))?;
    Ok(text.trim().to_owned())
}

/// A network, or one address.
fn net(text: &str) -> Result<IpNet, String> {
    let address = text.parse().map(|address: IpAddr| IpNet::from(address));
    text.parse().or(address).map_err(|_| "expected an address, or a network such as 192.0.2.0/24".into())
}

/// A duration in seconds, down to a tenth and up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.1 to 86400 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(args: &[&str]) -> Result<Database, String> {
        let args = Args::try_parse_from(["chatserver", "127.0.0.1", "6000"].iter().chain(args)).unwrap();
        args.database().map_err(|e| e.to_string())
    }

    #[test]
    fn the_arguments_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn databases() {
        assert_eq!(database(&["--database", "sqlite:a/b.db"]), Ok(Database::Sqlite("a/b.db".into())));
        assert_eq!(database(&["--database", "sqlite:///b.db"]), Ok(Database::Sqlite("/b.db".into())));
        assert_eq!(database(&["--database", "sqlite://b.db"]), Ok(Database::Sqlite("b.db".into())));
        assert_eq!(database(&["--database", ":memory:"]), Ok(Database::Memory));
        assert_eq!(database(&["--database", "sqlite::memory:"]), Ok(Database::Memory));
        assert_eq!(database(&["--data-dir", "/x"]), Ok(Database::Sqlite("/x/chat.db".into())));
        let url = "mysql://kirito:asuna@db:3306/chat";
        assert_eq!(database(&["--database", url]), Ok(Database::MySql(url.into())));
        assert!(!format!("{:?}", database(&["--database", url])).contains("asuna"));
        let error = database(&["--database", "postgres://kirito:asuna@db/x"]).unwrap_err();
        assert!(
            error.contains("sqlite:PATH") && error.contains("postgres:") && !error.contains("asuna"),
            "{error}"
        );
        assert!(database(&["--database", "sqlite:"]).is_err());
    }

    #[test]
    fn redis() {
        let parse = |more: &[&str]| {
            Args::try_parse_from(["chatserver", "127.0.0.1", "6000"].iter().chain(more)).unwrap()
        };
        assert!(parse(&[]).redis().unwrap().is_none());
        let args = parse(&["--redis", "redis://:secret@cache:7000/2", "--redis-prefix", "staging"]);
        assert_eq!(args.redis().unwrap().unwrap().address(), "cache:7000");
        assert!(!format!("{args:?}").contains("secret"), "{args:?}");
        for bad in [&["--redis", "http://:secret@h"][..], &["--redis", "redis://h", "--redis-prefix", "a b"]]
        {
            let error = parse(bad).redis().unwrap_err().to_string();
            assert!(error.contains("--redis") && !error.contains("secret"), "{error}");
        }
    }

    /// Every limit that an operator may want to set can be set.
    #[test]
    fn limits_reach_the_node() {
        type Look = fn(&NodeConfig) -> String;
        let looks: [(&str, &str, Look); 18] = [
            ("connections-max", "7", |c| c.connections_max.to_string()),
            ("address-connections-max", "7", |c| c.rates.connections_per_address_max.to_string()),
            ("login-timeout", "7", |c| c.login_timeout.as_secs().to_string()),
            ("idle-timeout", "7", |c| (c.limits.idle_timeout_ms / 1000).to_string()),
            ("write-timeout", "7", |c| c.write_timeout.as_secs().to_string()),
            ("reading-rate-min", "7", |c| c.reading_rate_min.to_string()),
            ("anonymous-frame-bytes-max", "3000", |c| c.limits.anonymous_frame_bytes_max.to_string()),
            ("frame-bytes-max", "70000", |c| c.limits.frame_bytes_max.to_string()),
            ("text-bytes-max", "7", |c| c.limits.text_bytes_max.to_string()),
            ("requests-in-flight-max", "7", |c| c.limits.requests_in_flight_max.to_string()),
            ("session-requests", "7/s:9", |c| c.rates.session_requests.to_string()),
            ("address-requests", "7/s:9", |c| c.rates.address_requests.to_string()),
            ("address-registrations", "7/h:9", |c| c.rates.address_registrations.to_string()),
            ("account-failures", "7", |c| c.rates.account_failures.free.to_string()),
            ("address-failures", "7", |c| c.rates.address_failures.free.to_string()),
            ("user-groups-max", "7", |c| c.bounds.groups_per_user_max.to_string()),
            ("user-friends-max", "7", |c| c.bounds.friends_per_user_max.to_string()),
            ("user-sessions-max", "7", |c| c.sessions_per_user_max.to_string()),
        ];
        let parse = |more: &[&str]| {
            Args::try_parse_from(["chatserver", "127.0.0.1", "6000"].iter().chain(more)).unwrap()
        };
        for (name, value, look) in looks {
            let args = parse(&[&format!("--{name}"), value]);
            args.check_limits().unwrap();
            assert_eq!(look(&args.node()), value, "{name}");
        }
        let (ours, default) = (parse(&[]).node(), NodeConfig::default());
        assert_eq!(format!("{ours:?}"), format!("{default:?}"), "the defaults are the same");
        let error = parse(&["--frame-bytes-max", "66047"]).check_limits().unwrap_err().to_string();
        assert!(error.starts_with("--frame-bytes-max 66047"), "{error}");
        parse(&["--frame-bytes-max", "66048"]).check_limits().unwrap();
    }

    #[test]
    fn bad_arguments_are_refused() {
        for bad in [
            &["127.0.0.1"][..],
            &["localhost", "6000"],
            &["127.0.0.1", "70000"],
            &["127.0.0.1", "6000", "--login-timeout", "-1"],
            &["127.0.0.1", "6000", "--text-bytes-max", "65537"],
            &["127.0.0.1", "6000", "--requests-in-flight-max", "0"],
            &["127.0.0.1", "6000", "--database", "x", "--data-dir", "y"],
            &["127.0.0.1", "6000", "surplus"],
        ] {
            assert!(Args::try_parse_from(["chatserver"].iter().chain(bad)).is_err(), "{bad:?}");
        }
    }
}
