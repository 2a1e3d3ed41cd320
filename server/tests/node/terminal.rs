//! People at the terminal program, through pipes: the dialogues that the project exists for.

use std::{path::PathBuf, process::Stdio, sync::OnceLock};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{harness::PATIENCE, process::Server};

/// The terminal program beside the server's binary. It belongs to another package, so it is built here if it is not up to date.
pub(crate) fn chatclient() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let server = PathBuf::from(env!("CARGO_BIN_EXE_chatserver"));
        let mut build = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--package", "client", "--bin", "chatclient"]);
        if server.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        let folder = server.parent().and_then(|folder| folder.parent()).unwrap();
        assert!(build.env("CARGO_TARGET_DIR", folder).status().unwrap().success(), "chatclient is built");
        server.with_file_name("chatclient")
    })
}

/// Someone at a terminal that is a pipe.
pub(crate) struct Person {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Every line seen.
    seen: Vec<String>,
}

impl Person {
    fn sits_down(server: &Server) -> Self {
        Self::sits_down_with(server, &[])
    }

    /// With options.
    pub(crate) fn sits_down_with(server: &Server, options: &[&str]) -> Self {
        let mut child = Command::new(chatclient())
            .args(["127.0.0.1", &server.port().to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, stdout, seen: Vec::new() }
    }

    /// Someone with a new account; returns its number too.
    async fn registers(server: &Server, name: &str) -> (Self, String) {
        Self::sits_down(server).registers_as(name).await
    }

    /// Someone who has sat down.
    pub(crate) async fn registers_as(self, name: &str) -> (Self, String) {
        let mut person = self;
        person.types(&format!("2\n{name}\nsecret of {name}")).await;
        let line = person.sees("registered, account:").await;
        person.logs_in(name).await;
        (person, line.rsplit(':').next().unwrap().to_owned())
    }

    pub(crate) async fn logs_in(&mut self, name: &str) {
        self.types(&format!("1\n{name}\nsecret of {name}")).await;
        self.sees(&format!("username:{name}")).await;
        self.sees("quit => ").await;
    }

    pub(crate) async fn types(&mut self, lines: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{lines}\n").as_bytes()).await.unwrap();
    }

    /// Waits for a line that has `text` in it.
    pub(crate) async fn sees(&mut self, text: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.stdout.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("no {text:?} in {:#?}", self.seen)).unwrap();
            let line = line.unwrap_or_else(|| panic!("the end, without {text:?}: {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Types a command and waits for its outcome.
    pub(crate) async fn does(&mut self, command: &str, outcome: &str) -> String {
        self.types(command).await;
        self.sees(outcome).await
    }

    /// Leaves; returns the exit code and all that was seen.
    pub(crate) async fn quits(mut self) -> (i32, Vec<String>) {
        self.types("quit").await;
        self.leaves().await
    }

    /// Closes the input; likewise.
    async fn leaves(mut self) -> (i32, Vec<String>) {
        drop(self.stdin.take());
        while let Some(line) =
            timeout(PATIENCE, self.stdout.next_line()).await.expect("an end in time").unwrap()
        {
            self.seen.push(line);
        }
        (self.child.wait().await.unwrap().code().unwrap(), self.seen)
    }
}

fn count(seen: &[String], text: &str) -> usize {
    seen.iter().filter(|line| line.contains(text)).count()
}

/// With `passwd`, the other session of the user is over, and only the new password opens one.
#[tokio::test]
async fn a_password_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0, &[]).await;
    let (mut kirito, _) = Person::registers(&server, "kirito").await;
    let mut elsewhere = Person::sits_down(&server);
    elsewhere.logs_in("kirito").await;
    kirito.does("passwd\nwrong\nnew", "that is not your password").await;
    kirito.does("passwd\nsecret of kirito\nnew", "your password is changed").await;
    elsewhere.sees("the password was changed").await;
    elsewhere.sees("the session has ended; log in again").await;
    elsewhere.types("showme").await;
    elsewhere.does("1\nkirito\nsecret of kirito", "wrong account or password").await;
    elsewhere.does("1\nkirito\nnew", "username:kirito").await;
    kirito.does("showme", "username:kirito").await;
    let (_, seen) = kirito.quits().await;
    assert_eq!(count(&seen, "your password was changed"), 0, "who did it is told the outcome");
}

#[tokio::test]
async fn two_friends_chat_online_and_offline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0, &[]).await;
    let (mut kirito, kirito_id) = Person::registers(&server, "kirito").await;
    let (mut kir, kir_id) = Person::registers(&server, "kir").await;
    kirito.does(&format!("addfriend:{kir_id}"), "friend").await;
    kir.sees("kirito").await;
    kirito.does(&format!("chat:{kir_id}:hello: with a colon"), "hello: with a colon").await;
    let line = kir.sees("hello: with a colon").await;
    assert!(line.contains(&format!("kirito({kirito_id})")), "{line}");
    kir.does(&format!("chat:{kirito_id}:hello yourself"), "hello yourself").await;
    kirito.sees("hello yourself").await;
    let (code, seen) = kir.quits().await;
    assert_eq!((code, count(&seen, "hello: with a colon")), (0, 1));

    kirito.does(&format!("chat:{kir_id}:while you sleep"), "while you sleep").await;
    // The next login shows it, once, and nothing that was shown before; the one after shows nothing.
    let mut kir = Person::sits_down(&server);
    kir.logs_in("kir").await;
    kir.sees("while you sleep").await;
    let (code, seen) = kir.leaves().await;
    assert_eq!((code, count(&seen, "while you sleep"), count(&seen, "hello")), (0, 1, 0));
    let mut kir = Person::sits_down(&server);
    kir.logs_in("kir").await;
    let (code, seen) = kir.quits().await;
    assert_eq!((code, count(&seen, "while you sleep")), (0, 0));
    let (code, seen) = kirito.quits().await;
    assert_eq!((code, count(&seen, "hello yourself")), (0, 1));
}

#[tokio::test]
async fn a_group_of_three() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0, &[]).await;
    let (mut kirito, _) = Person::registers(&server, "kirito").await;
    let (mut kir, _) = Person::registers(&server, "kir").await;
    let (mut silica, silica_id) = Person::registers(&server, "silica").await;
    let made = kirito.does("creategroup:happy game:happy play", "group created, groupid:").await;
    let group = made.rsplit(':').next().unwrap().to_owned();
    for person in [&mut kir, &mut silica] {
        person.does(&format!("joingroup:{group}"), "happy game").await;
    }
    // A second session of one of them sees everything too.
    let mut second = Person::sits_down(&server);
    second.logs_in("kir").await;
    kirito.does(&format!("groupchat:{group}:to all of you"), "to all of you").await;
    for person in [&mut kir, &mut silica, &mut second] {
        let line = person.sees("to all of you").await;
        assert!(line.contains("happy game"), "{line}");
    }
    let (code, _) = silica.quits().await;
    assert_eq!(code, 0);
    kir.does(&format!("groupchat:{group}:she is away"), "she is away").await;
    second.sees("she is away").await;
    kirito.sees("she is away").await;
    let mut silica = Person::sits_down(&server);
    silica.logs_in("silica").await;
    silica.sees("she is away").await;
    kirito.does(&format!("kick:{group}:{silica_id}"), "is removed").await;
    silica.sees("removed").await;
    silica.types(&format!("groupchat:{group}:am I in?")).await;
    let (code, seen) = silica.quits().await;
    assert_eq!((code, count(&seen, "she is away"), count(&seen, "am I in?")), (1, 1, 0), "{seen:#?}");
    kir.does(&format!("quitgroup:{group}"), "you left happy game").await;
    kirito.does(&format!("deletegroup:{group}"), "deleted").await;
    for person in [kirito, kir, second] {
        let (code, seen) = person.quits().await;
        assert_eq!(code, 0, "{seen:#?}");
    }
}

#[tokio::test]
async fn a_node_that_dies_is_no_failure_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), 0, &[]).await;
    let port = server.port();
    let (mut kirito, _) = Person::registers(&server, "kirito").await;
    let (mut kir, kir_id) = Person::registers(&server, "kir").await;
    kirito.does(&format!("addfriend:{kir_id}"), "friend").await;
    server.child.kill().await.unwrap();
    kir.sees("connection lost").await;
    let _server = Server::start(folder.path(), port, &[]).await;
    kir.sees("reconnected").await;
    kirito.does(&format!("chat:{kir_id}:are you there?"), "are you there?").await;
    kir.sees("are you there?").await;
    for person in [kirito, kir] {
        let (code, seen) = person.quits().await;
        assert_eq!((code, count(&seen, "are you there?")), (0, 1), "{seen:#?}");
    }
}
