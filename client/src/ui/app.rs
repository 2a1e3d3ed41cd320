//! The dialogue: menu, login, commands, and what happens in between.
//!
//! `commands` carries the commands out; `events` tells what happens unasked.

mod commands;
mod events;

use std::{collections::BTreeSet, future::Future, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use client::{Client, Config, DisconnectReason, Event, Events, RequestError, Tls};
use protocol::{
    ClientMsgId, Tcp,
    clock::SystemEntropy,
    message::{Friend, GroupInfo, LoggedIn},
};
use tokio::{
    select,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::{
    args::Args,
    away::Away,
    command::{BadCommand, Command},
    input::{Answer, Ask, Input},
    output::{Output, Sink},
    roster::Roster,
    say::{self, About},
    stop::Stop,
    tell::{Failure, Tell},
};

/// How long the server may take to greet at the start.
const START_MAX: Duration = Duration::from_secs(5);
/// How long a login's catch-up may take before the first command is taken anyway.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// How long leaving may take: a script has time for a reconnect, so that what was shown is confirmed.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// How long a person is made to wait for that.
const LEAVE_MAX_INTERACTIVE: Duration = Duration::from_secs(3);
/// How long to wait for the entry of a command that was carried out.
const ENTRY_MAX: Duration = Duration::from_secs(5);
/// Commands whose entries have not come back yet; more are never outstanding but by a fault.
const TYPED_MAX: usize = 1024;

/// The program's state.
struct App {
    client: Client,
    events: Events,
    input: Input,
    output: Output,
    interactive: bool,
    stop: Stop,
    /// Since the login.
    roster: Option<Roster>,
    /// While a login's catch-up is going on.
    away: Option<Away>,
    /// The keys of this program's own commands whose entries have not come back.
    typed: BTreeSet<ClientMsgId>,
    link_lost: bool,
    /// The session ended without our doing.
    session_over: bool,
    /// The client has ended.
    gone: bool,
    /// We are logging out: what arrives now is for the next login.
    leaving: bool,
    /// A signal asked to stop.
    stopped: bool,
    /// A command failed.
    failed: bool,
    /// The last answer was an interruption.
    interrupted: bool,
}

/// Runs the dialogue to its end.
pub(crate) async fn run(args: &Args, interactive: bool) -> ExitCode {
    let (input, sink) = match open(interactive) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("chatclient: cannot use the terminal: {error}");
            return ExitCode::FAILURE;
        }
    };
    let stop = match Stop::new(interactive) {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("chatclient: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let tracker = TaskTracker::new();
    let addr = args.addr();
    let entropy = Arc::new(SystemEntropy);
    let (client, mut events) = match args.tls_peer() {
        Ok(None) => Client::start(Tcp, &addr, Config::default(), entropy, &tracker),
        Ok(Some(peer)) => Client::start(Tls::new(Tcp, peer), &addr, Config::default(), entropy, &tracker),
        Err(error) => {
            eprintln!("chatclient: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = greeted(&mut events).await {
        eprintln!("chatclient: cannot reach {addr}: {why}");
        return ExitCode::FAILURE;
    }
    let mut app = App {
        client,
        events,
        input,
        output: Output::new(args.json, sink),
        interactive,
        stop,
        roster: None,
        away: None,
        typed: BTreeSet::new(),
        link_lost: false,
        session_over: false,
        gone: false,
        leaving: false,
        stopped: false,
        failed: false,
        interrupted: false,
    };
    Box::pin(app.menu()).await;
    // A person has seen what failed.
    if app.failed && !interactive || app.output.is_broken() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn open(interactive: bool) -> Result<(Input, Sink), rustyline::error::ReadlineError> {
    if !interactive {
        return Ok((Input::pipe(), Sink::Stdout));
    }
    let (input, printer) = Input::terminal()?;
    let to_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let printer = printer.filter(|_| to_terminal);
    Ok((input, printer.map_or(Sink::Stdout, Sink::Terminal)))
}

/// Waits until the server has greeted.
async fn greeted(events: &mut Events) -> Result<(), String> {
    match timeout(START_MAX, events.next()).await {
        Ok(Some(Event::Connected)) => Ok(()),
        Ok(Some(Event::Disconnected { reason: DisconnectReason::Connect(why) })) => Err(why),
        Ok(Some(Event::Disconnected { reason })) => Err(reason.to_string()),
        Ok(Some(Event::SessionEnded { reason })) => Err(reason.to_string()),
        Ok(_) => Err("the connection ended".into()),
        Err(_) => Err("no answer in time".into()),
    }
}

impl App {
    // The menu.

    async fn menu(&mut self) {
        let mut show = true;
        while !self.is_done() {
            if show {
                self.output.tell(&Tell::Menu);
            }
            let answer = self.line(Ask::Line("choice:")).await;
            // An empty line, or an interruption, is no reason to show it again.
            show = false;
            let Some(choice) = self.usable("menu", answer) else { continue };
            match choice.trim() {
                "" => {}
                "1" | "login" => {
                    show = true;
                    if self.login().await {
                        self.session().await;
                    }
                }
                "2" | "register" => {
                    show = true;
                    self.register().await;
                }
                "3" | "quit" => return,
                _ => {
                    show = true;
                    self.fail(Failure::local("menu", "unknown_choice", "choose 1, 2 or 3"));
                }
            }
        }
    }

    /// Whether the dialogue has to end.
    fn is_done(&self) -> bool {
        self.stopped || self.gone || self.output.is_broken()
    }

    async fn login(&mut self) -> bool {
        let prompts = [Ask::Line("account (number or name):"), Ask::Secret("password:")];
        let Some([account, password]) = self.form("login", prompts).await else { return false };
        // What the login brings may come before its reply is handled.
        self.away = Some(Away::default());
        self.session_over = false;
        let client = self.client.clone();
        let result = self.taking(async move { client.login(account.trim(), &password).await }).await;
        match result {
            Some(Ok(LoggedIn { user, name, .. })) => {
                self.roster = Some(Roster::new(user, name));
                true
            }
            Some(Err(error)) => {
                self.away = None;
                self.fail(say::failure("login", About::default(), &error, None));
                false
            }
            None => false,
        }
    }

    async fn register(&mut self) {
        let prompts = [Ask::Line("name:"), Ask::Secret("password:")];
        let Some([name, password]) = self.form("register", prompts).await else { return };
        let client = self.client.clone();
        match self.taking(async move { client.register(&name, &password).await }).await {
            Some(Ok(registered)) => drop(self.output.tell(&Tell::Registered(registered.user))),
            Some(Err(error)) => self.fail(say::failure("register", About::default(), &error, None)),
            None => {}
        }
    }

    /// Asks for lines; `None` if one of them did not come.
    async fn form<const N: usize>(&mut self, command: &'static str, asks: [Ask; N]) -> Option<[String; N]> {
        let mut lines = [const { String::new() }; N];
        for (line, ask) in lines.iter_mut().zip(asks) {
            let answer = self.line(ask).await;
            if answer == Answer::End && !self.interactive && !self.stopped {
                self.fail(Failure::local(command, "input_ended", "the input ended before the answers"));
            }
            *line = self.usable(command, answer)?;
        }
        Some(lines)
    }

    // The session.

    async fn session(&mut self) {
        self.refresh("login").await;
        if let Some(roster) = &self.roster {
            self.output.tell(&Tell::Lists(roster));
            if !self.output.is_json() {
                self.output.tell(&Tell::Help);
            }
        }
        self.catch_up().await;
        while !self.is_done() && !self.session_over {
            let answer = self.line(Ask::Command).await;
            if self.session_over && !self.stopped && answer != Answer::End {
                // What was typed was meant for the session.
                self.fail(Failure::local("session", "bad_token", "the session has ended; log in again"));
                break;
            }
            let Some(line) = self.usable("command", answer) else { continue };
            if line.trim().is_empty() {
                continue;
            }
            match Command::parse(&line) {
                Ok(Command::Quit) => break,
                Ok(command) => self.carry_out(command).await,
                Err(BadCommand::Unknown(name)) => {
                    let message = format!("there is no command `{name}`; type `help` to see them all");
                    self.fail(Failure::local("unknown", "unknown_command", message));
                }
                Err(BadCommand::Usage(usage)) => {
                    let message = format!("write it as {}", usage.form);
                    self.fail(Failure::local(usage.name, "usage", message));
                }
            }
        }
        if !self.session_over {
            self.leave().await;
        }
        self.roster = None;
        self.away = None;
    }

    /// Waits until what was missed is there, and tells it.
    async fn catch_up(&mut self) {
        let until = Instant::now() + CATCH_UP_MAX;
        while self.away.as_ref().is_some_and(|away| !away.caught_up) && !self.is_done() && !self.session_over
        {
            if !self.take_one(until).await {
                break;
            }
        }
        self.end_away();
    }

    /// Confirms what was shown, and logs out. The program ends with it.
    async fn leave(&mut self) {
        self.leaving = true;
        let client = self.client.clone();
        let most = if self.interactive { LEAVE_MAX_INTERACTIVE } else { LEAVE_MAX };
        let logout = async move { timeout(most, client.logout()).await };
        let message = match self.taking(logout).await {
            Some(Ok(Ok(()))) => "logged out",
            // Not a failure of a command: the session ends by itself.
            _ => "left without logging out: the server did not answer",
        };
        self.output.tell(&Tell::Done {
            command: "quit",
            message: message.into(),
            details: serde_json::Map::new(),
        });
        self.gone = true;
        self.client.close();
    }

    /// Reads the lists anew; tells why if it cannot.
    async fn refresh(&mut self, command: &'static str) -> bool {
        match self.reload().await {
            Some(Err(error)) => {
                let failure = say::failure(command, About::default(), &error, self.roster.as_ref());
                self.fail(failure);
                false
            }
            result => result.is_some(),
        }
    }

    /// Reads the lists anew. If that fails, the old ones stay, and stay marked as stale.
    async fn reload(&mut self) -> Option<Result<(), RequestError>> {
        let client = self.client.clone();
        let lists = async move { Ok((client.friends().await?, client.groups().await?)) };
        let lists: Result<(Vec<Friend>, Vec<GroupInfo>), RequestError> = self.taking(lists).await?;
        Some(lists.map(|(friends, groups)| {
            if let Some(roster) = &mut self.roster {
                roster.replace(friends, groups);
            }
        }))
    }

    // Waiting, while events go on.

    /// Asks for a line and waits for it.
    async fn line(&mut self, ask: Ask) -> Answer {
        if self.is_done() {
            return Answer::End;
        }
        self.input.ask(ask);
        loop {
            select! {
                answer = self.input.answer() => return answer,
                event = self.events.next(), if !self.gone => self.on_event(event),
                // Reading a password makes the signal itself, and answers once the terminal is as before.
                () = self.stop.requested() => {
                    self.stopped |= !self.interactive || !matches!(ask, Ask::Secret(_));
                }
            }
            if self.stopped || self.output.is_broken() || self.gone && !self.interactive {
                return Answer::End;
            }
        }
    }

    /// The line of an answer, if there is one; what else it means is done here.
    fn usable(&mut self, command: &'static str, answer: Answer) -> Option<String> {
        let again = std::mem::take(&mut self.interrupted);
        match answer {
            Answer::Line(line) => return Some(line),
            Answer::End => self.stopped = true,
            Answer::Interrupted if again => self.stopped = true,
            Answer::Interrupted => {
                self.interrupted = true;
                self.output.tell(&Tell::Note("to leave, type quit, or press Ctrl-D, or Ctrl-C again"));
            }
            Answer::Unusable(why) => self.fail(Failure::local(command, "bad_line", why)),
        }
        None
    }

    /// Waits for something, and takes events meanwhile; `None` if a signal came first.
    async fn taking<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            select! {
                result = &mut work => return Some(result),
                event = self.events.next(), if !self.gone => self.on_event(event),
                () = self.stop.requested() => {
                    self.stopped = true;
                    return None;
                }
            }
        }
    }

    /// Waits for one event; whether it came.
    async fn take_one(&mut self, until: Instant) -> bool {
        select! {
            event = timeout_at(until, self.events.next()) => match event {
                Ok(event) => self.on_event(event),
                Err(_) => return false,
            },
            () = self.stop.requested() => self.stopped = true,
        }
        true
    }

    /// Waits for the entry of an own command that was carried out; whether it came.
    async fn entry_of(&mut self, mid: ClientMsgId) -> bool {
        let until = Instant::now() + ENTRY_MAX;
        while self.typed.contains(&mid) && !self.is_done() && !self.session_over {
            if !self.take_one(until).await {
                break;
            }
        }
        !self.typed.contains(&mid)
    }

    /// A key for an own command, whose entry is then known as such.
    fn typed_mid(&mut self) -> ClientMsgId {
        if self.typed.len() >= TYPED_MAX {
            self.typed.clear();
        }
        let mid = self.client.fresh_mid();
        self.typed.insert(mid);
        mid
    }

    /// That command has no entry.
    fn forget_typed(&mut self, mid: ClientMsgId) {
        self.typed.remove(&mid);
    }
}
