//! What each kind of attacker does.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::sleep;

use super::{Shared, options::Kind, wire::Wire};
use crate::{
    load::{Accounts, PASSWORD},
    rng::Rng,
};

/// Between the end of a connection and the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two of those that only come and go.
const CHURN_PAUSE: Duration = Duration::from_millis(50);
/// Messages in the group's log, each of control characters, which take six bytes each to write.
const ENTRIES: u32 = 12;
const ENTRY_CHARS: usize = 20_000;

pub(super) struct Attacker {
    shared: Arc<Shared>,
    number: u32,
    kind: Kind,
    rng: Rng,
    token: Option<String>,
    armed: bool,
}

impl Attacker {
    pub(super) fn new(shared: Arc<Shared>, number: u32) -> Self {
        let (kind, rng) = (shared.options.kind(number), Rng::of_part(shared.options.seed, u64::from(number)));
        Self { shared, number, kind, rng, token: None, armed: false }
    }

    /// Attacks for as long as it is let.
    pub(super) async fn run(mut self) {
        if !self.kind.needs_session() {
            self.take_position().await;
        }
        loop {
            let shared = Arc::clone(&self.shared);
            let small = matches!(self.kind, Kind::NeverReading | Kind::SlowReading);
            if let Ok(mut wire) = Wire::connect(&shared, self.kind, self.number, small).await {
                // An error is the end of the connection.
                if self.attack(&mut wire).await.is_err() {
                    wire.ended();
                }
            }
            let pause = if self.kind == Kind::Churn { CHURN_PAUSE } else { PAUSE };
            sleep(pause + Duration::from_millis(self.rng.below(200))).await;
        }
    }

    /// Is ready, and waits for the others.
    async fn take_position(&mut self) {
        if !std::mem::replace(&mut self.armed, true) {
            self.shared.armed.fetch_add(1, Relaxed);
        }
        let mut begun = self.shared.begun.subscribe();
        // It ends with the run.
        let _ = begun.wait_for(|begun| *begun).await;
    }

    async fn attack(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        match self.kind {
            Kind::Silent => wire.until_ended().await,
            Kind::HalfALine => {
                wire.send(format!("{{\"id\":1,\"op\":\"{}", "x".repeat(3000))).await?;
                wire.until_ended().await
            }
            Kind::ByteByByte => self.byte_by_byte(wire).await,
            Kind::NeverReading => self.never_reading(wire).await,
            Kind::SlowReading => self.slow_reading(wire).await,
            Kind::LongHalfALine => {
                self.open_session(wire).await?;
                wire.send(vec![b'x'; 130_000]).await?;
                wire.until_ended().await
            }
            Kind::PingFlood => self.ping_flood(wire).await,
            Kind::Malformed => self.malformed(wire).await,
            Kind::LongLines => self.long_lines(wire).await,
            Kind::OddJson => self.odd_json(wire).await,
            Kind::GuessKnown | Kind::GuessRandom | Kind::GuessTokens => self.guess(wire).await,
            Kind::Register => self.register(wire).await,
            Kind::Churn => self.churn(wire).await,
        }
    }

    /// Logs in once, and resumes from then on, which costs the node no hash.
    async fn open_session(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        if let Some(token) = &self.token {
            let resume = format!(r#"{{"id":1,"op":"resume","token":"{token}","cursors":{{}}}}"#);
            if wire.ask(&resume).await? != "ok" {
                self.token = None;
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        } else {
            // The run ends before the semaphore does.
            let _permit = shared.logins.acquire().await;
            let options = &shared.options;
            let account = Accounts::name(&options.prepared, self.number % options.accounts);
            let login = format!(r#"{{"id":1,"op":"login","account":"{account}","password":"{PASSWORD}"}}"#);
            if wire.ask(&login).await? != "ok" {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.token = wire.token.take();
        }
        shared.tally.count(self.kind, |report| report.sessions += 1);
        if matches!(self.kind, Kind::NeverReading | Kind::SlowReading) {
            let group = *shared.group.get_or_try_init(|| self.group(wire)).await?;
            let mid = self.mid();
            // Whoever is in it already is told so.
            wire.ask(&format!(r#"{{"id":2,"op":"join","mid":"{mid}","group":{group}}}"#)).await?;
        }
        if !self.armed {
            self.take_position().await;
        }
        Ok(())
    }

    /// The group for those who read slowly or not at all.
    async fn group(&self, wire: &mut Wire<'_>) -> io::Result<u64> {
        let mut rng = Rng::of_part(!self.shared.options.seed, u64::from(self.number));
        let mid = |rng: &mut Rng| format!("{:016x}{:016x}", rng.number(), rng.number());
        let create = mid(&mut rng);
        let line = format!(r#"{{"id":2,"op":"create_group","mid":"{create}","name":"h","description":""}}"#);
        wire.ask(&line).await?;
        let group = wire.group.ok_or(io::ErrorKind::InvalidData)?;
        let text = "\\u0001".repeat(ENTRY_CHARS);
        for _ in 0..ENTRIES {
            let mid = mid(&mut rng);
            wire.ask(&format!(r#"{{"id":3,"op":"send","mid":"{mid}","conv":"g{group}","text":"{text}"}}"#))
                .await?;
        }
        Ok(group)
    }

    async fn byte_by_byte(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            wire.send("x").await?;
            tokio::select! {
                read = wire.read(4096) => read?,
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    fn pages(&self) -> String {
        let group = self.shared.group.get().copied().unwrap_or_default();
        format!("{{\"id\":5,\"op\":\"history\",\"conv\":\"g{group}\",\"limit\":100}}\n")
    }

    async fn never_reading(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        self.open_session(wire).await?;
        let requests = format!("{}{{\"id\":6,\"op\":\"ping\"}}\n", self.pages()).repeat(100);
        loop {
            wire.send(&requests).await?;
        }
    }

    async fn slow_reading(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        self.open_session(wire).await?;
        wire.send(self.pages().repeat(100)).await?;
        loop {
            wire.read(256).await?;
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn ping_flood(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        self.open_session(wire).await?;
        let pings = "{\"id\":1,\"op\":\"ping\"}\n".repeat(64);
        loop {
            wire.send(&pings).await?;
            wire.read(16 << 10).await?;
        }
    }

    async fn malformed(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            let kinds = [
                "hello\n".to_owned(),
                "[".repeat(3000) + "\n",
                "{\"id\":1}\n".into(),
                "\u{0}\u{1}\n".into(),
                format!("{{\"id\":{},\"op\":\"x\"}}\n", self.rng.number()),
                "GET / HTTP/1.1\r\n".into(),
            ];
            let at = self.rng.below(kinds.len() as u64) as usize;
            wire.ask(kinds[at].trim_end_matches('\n')).await?;
        }
    }

    async fn long_lines(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            for _ in 0..16 {
                wire.send(vec![b'x'; 8192]).await?;
            }
            wire.ask("x").await?;
        }
    }

    async fn odd_json(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            let depth = 1 + self.rng.below(1900) as usize;
            let lines = [
                format!(r#"{{"id":1,"op":"ping","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
                format!(r#"{{"id":1,"op":"ping","x":{}}}"#, "{\"a\":".repeat(depth % 700)),
                format!(r#"{{{}"id":1,"op":"ping"}}"#, "\"a\":1,".repeat(depth % 500)),
                format!(r#"{{"id":1,"op":"ping","x":1e{depth}}}"#),
                format!(r#"{{"id":1,"op":"ping","x":"{}"}}"#, "\\u0000".repeat(depth % 600)),
                r#"{"id":1,"op":"\u0070ing"}"#.to_owned(),
            ];
            let at = self.rng.below(lines.len() as u64) as usize;
            wire.ask(&lines[at]).await?;
        }
    }

    async fn guess(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            let options = &self.shared.options;
            let line = match self.kind {
                Kind::GuessTokens => {
                    let token: String = (0..4).map(|_| format!("{:016x}", self.rng.number())).collect();
                    format!(r#"{{"id":1,"op":"resume","token":"{token}","cursors":{{}}}}"#)
                }
                kind => {
                    let account = if kind == Kind::GuessKnown {
                        let victim = self.rng.below(u64::from(options.victims_count)) as u32;
                        Accounts::name(&options.victims, victim)
                    } else {
                        format!("nobody{:x}", self.rng.number())
                    };
                    let guess = self.rng.number();
                    format!(r#"{{"id":1,"op":"login","account":"{account}","password":"{guess:x}"}}"#)
                }
            };
            if wire.ask(&line).await? == "rate_limited" {
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn register(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        loop {
            let (mid, name) = (self.mid(), self.rng.number());
            let line =
                format!(r#"{{"id":1,"op":"register","mid":"{mid}","name":"h{name:x}","password":"x"}}"#);
            if wire.ask(&line).await? == "rate_limited" {
                sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn churn(&mut self, wire: &mut Wire<'_>) -> io::Result<()> {
        match self.rng.below(4) {
            0 => wire.reset(),
            1 => {
                wire.send("{\"id\":1,\"op\":\"login\",\"account\":\"nobody\",\"password\":\"x\"}\n").await?;
                wire.reset()
            }
            2 => wire.send("{\"id\":1,\"op\":").await,
            _ => Ok(()),
        }
    }

    fn mid(&mut self) -> String {
        format!("{:016x}{:016x}", self.rng.number(), self.rng.number())
    }
}
