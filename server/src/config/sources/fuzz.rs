//! Configuration files: what is read can be shown, and read again as the same; passwords are not shown. And the forms of single values.

use std::{net::IpAddr, path::Path};

use clap::error::ErrorKind;
use tokio::time::Instant;

use super::{LoadError, Loaded, parse, without_password};
use crate::{
    config::{Database, net, seconds},
    relay::redis::RedisConfig,
    throttle::{Pace, Rate},
};

/// A file. Each of its lines, and what stands behind an equals sign, is also taken for a value of each kind.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load(text) {
        Ok(loaded) => check_loaded(&loaded),
        Err(LoadError::Arguments(error)) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            assert!(!asked, "a file cannot ask for help: {error}");
        }
        Err(_) => {}
    }
    for line in text.lines() {
        check_value(line);
        if let Some((_, value)) = line.split_once('=') {
            check_value(value.trim_matches([' ', '"', '\'', '[', ']']));
        }
    }
}

fn load(text: &str) -> Result<Loaded, LoadError> {
    let words = ["chatserver", "--config", "FILE"].map(Into::into);
    Loaded::with_file(words, |path: &Path| parse(path, text))
}

fn check_loaded(loaded: &Loaded) {
    let shown = loaded.to_string();
    let again = load(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(again.settings.len(), loaded.settings.len());
    for (old, new) in loaded.settings.iter().zip(&again.settings) {
        assert_eq!((&new.name, &new.value), (&old.name, &old.value), "{shown}");
    }
    let config = loaded.args.node();
    assert!(config.limits.idle_timeout_ms >= 100);
    // Not what is in other files.
    if loaded.args.database_file.is_none() {
        drop(loaded.args.database());
    }
    if loaded.args.redis_file.is_none() {
        drop(loaded.args.redis());
    }
}

fn check_value(text: &str) {
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.to_string().parse(), Ok(rate));
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.take(&rate, now).is_zero(), "the first is free");
        pace.take(&rate, now);
    }
    if let Ok(time) = seconds(text) {
        assert!((0.1..=86_400.0).contains(&time.as_secs_f64()), "{time:?}");
    }
    if let Ok(found) = net(text) {
        assert_eq!(net(&found.to_string()), Ok(found));
        assert!(found.contains(&found.network()));
        assert_eq!(text.parse::<IpAddr>().is_ok(), !text.contains('/'));
    }
    match text.parse::<Database>() {
        Ok(database) => {
            let hidden = matches!(database, Database::MySql(_));
            assert!(!hidden || format!("{database:?}") == "MySql");
        }
        Err(error) => {
            // It says nothing of what follows the scheme, which may hold a password.
            let other = text.split_once(':').map(|(scheme, _)| format!("{scheme}:?").parse::<Database>());
            if let Some(Err(other)) = other {
                assert_eq!(error.to_string(), other.to_string());
            }
        }
    }
    if let Ok(redis) = RedisConfig::parse(text, "chat") {
        let port = redis.address().rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        assert!(matches!(port, Some(Ok(_))), "{}", redis.address());
    }
    drop(RedisConfig::parse("redis://h", text));
    if !text.is_empty() {
        let url = format!("redis://user:{text}@host/0");
        assert_eq!(without_password(&url), "redis://user:***@host/0");
    }
}
