//! A client's end of a connection, and what it is owed.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use protocol::{
    Conversation, ConversationId, Entry, ErrorCode, Limits, Push, Request, RequestId, Seq, ServerLine,
    UserId,
    message::{ClosingCode, LoggedIn},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt as _, DuplexStream, ReadBuf},
    task::JoinHandle,
    time::{Duration, Instant},
};

pub(super) struct Peer {
    stream: DuplexStream,
    /// Until it has ended.
    task: Option<JoinHandle<()>>,
    limits: Limits,
    unread: Vec<u8>,
    pub(super) token: Option<String>,
    user: Option<UserId>,
    /// Replies that are to come, by the id they will have.
    owed: BTreeMap<Option<RequestId>, usize>,
    /// Confirmations without an id: only a refusal answers them.
    perhaps: usize,
    /// Lines that are no requests.
    bad: u32,
    logout: bool,
    /// The last entry of each conversation.
    cursors: BTreeMap<ConversationId, Seq>,
    greeted: bool,
    closing: Option<ClosingCode>,
    /// We send no more.
    stopped: bool,
    /// The node sends no more.
    ended: bool,
    connected: Instant,
    spoke: Instant,
}

impl Peer {
    pub(super) fn new(stream: DuplexStream, task: JoinHandle<()>, limits: Limits) -> Self {
        Self {
            stream,
            task: Some(task),
            limits,
            unread: Vec::new(),
            token: None,
            user: None,
            owed: BTreeMap::new(),
            perhaps: 0,
            bad: 0,
            logout: false,
            cursors: BTreeMap::new(),
            greeted: false,
            closing: None,
            stopped: false,
            ended: false,
            connected: Instant::now(),
            spoke: Instant::now(),
        }
    }

    /// Sends a line, and notes what is owed for it.
    pub(super) async fn send(&mut self, line: &[u8]) {
        if self.stopped || self.ended {
            return;
        }
        self.spoke = Instant::now();
        let bytes = [line, b"\n"].concat();
        if self.stream.write_all(&bytes).await.is_err() {
            // It may just have said goodbye.
            return;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let limits = &self.limits;
        let most =
            if self.user.is_some() { limits.frame_bytes_max } else { limits.anonymous_frame_bytes_max };
        let owed = match Request::parse(line) {
            _ if line.is_empty() => return,
            _ if line.len() > most => None,
            Ok((None, _)) => {
                self.perhaps += 1;
                return;
            }
            Ok((id, request)) => {
                self.logout |= matches!(request, Request::Logout);
                *self.owed.entry(id).or_default() += 1;
                return;
            }
            Err(error) => error.id,
        };
        self.bad += 1;
        *self.owed.entry(owed).or_default() += 1;
    }

    /// Ends it from this side. What is left of the other one.
    pub(super) fn hang_up(self) -> Option<JoinHandle<()>> {
        self.task
    }

    pub(super) async fn stop(&mut self) {
        self.stopped = true;
        // Nobody is there any more if it fails.
        let _ = self.stream.shutdown().await;
    }

    /// Takes what has come; whether anything has.
    pub(super) async fn read(&mut self) -> bool {
        let mut moved = false;
        let mut bytes = [0; 4096];
        while !self.ended {
            let mut buffer = ReadBuf::new(&mut bytes);
            let stream = &mut self.stream;
            let look = |cx: &mut Context<'_>| match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => Poll::Ready(true),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => Poll::Ready(false),
            };
            if !poll_fn(look).await {
                break;
            }
            moved = true;
            self.ended = buffer.filled().is_empty();
            self.unread.extend_from_slice(buffer.filled());
        }
        let mut lines = std::mem::take(&mut self.unread);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let rest = lines.split_off(end + 1);
            self.take(&lines[..end]);
            lines = rest;
        }
        self.unread = lines;
        moved
    }

    fn take(&mut self, line: &[u8]) {
        assert!(self.closing.is_none(), "nothing follows a closing: {}", line.escape_ascii());
        let parsed = ServerLine::parse(line).unwrap_or_else(|e| panic!("{e}: {}", line.escape_ascii()));
        let page = matches!(parsed, ServerLine::Reply { result: Ok(_), .. });
        let most =
            if page { Limits::default().server_frame_bytes_max } else { self.limits.server_frame_bytes_max };
        assert!(line.len() <= most, "a line of {} bytes", line.len());
        match parsed {
            ServerLine::Push(push) => self.take_push(&push),
            ServerLine::Reply { id, result } => {
                match self.owed.get_mut(&id) {
                    Some(owed) if *owed > 1 => *owed -= 1,
                    Some(_) => {
                        self.owed.remove(&id);
                    }
                    None if id.is_none() && self.perhaps > 0 && result.is_err() => self.perhaps -= 1,
                    None => panic!("nobody asked: {}", line.escape_ascii()),
                }
                match result {
                    Ok(ok) => {
                        if let Ok(LoggedIn { user, token, .. }) = serde_json::from_str(ok.get()) {
                            self.user = Some(user);
                            self.token = token.map(|token| token.to_string());
                        }
                    }
                    Err(error) => {
                        assert_eq!(error.definite, error.code.is_definite());
                        assert!(ErrorCode::ALL.contains(&error.code), "{}", line.escape_ascii());
                        let failed = matches!(error.code, ErrorCode::Internal | ErrorCode::Unavailable);
                        assert!(!failed, "{}", line.escape_ascii());
                    }
                }
            }
        }
    }

    fn take_push(&mut self, push: &Push) {
        assert_eq!(matches!(push, Push::Hello { .. }), !self.greeted, "the greeting is the first line");
        self.greeted = true;
        match push {
            Push::Hello { .. } => {}
            Push::Open { conv, after } => {
                self.check_reads(*conv);
                self.cursors.insert(*conv, *after);
            }
            Push::Entry(Entry { conv, seq, .. }) => {
                self.check_reads(*conv);
                if let Some(cursor) = self.cursors.insert(*conv, *seq) {
                    assert_eq!(cursor.next(), *seq, "{conv} has no gaps");
                }
            }
            Push::Closing { code, .. } => self.closing = Some(*code),
            Push::CaughtUp | Push::Presence { .. } => assert!(self.user.is_some()),
            Push::Lost { conv, .. } => panic!("{conv} is lost"),
            Push::Unknown => panic!("an unknown push"),
        }
    }

    /// SPEC.md, guarantee 5, as far as it can be told from an id.
    fn check_reads(&self, conv: ConversationId) {
        let user = self.user.expect("logged in");
        let may = match conv.parse() {
            Conversation::Direct(a, b) => a == user || b == user,
            Conversation::Group(_) => true,
            Conversation::Notices(owner) => owner == user,
        };
        assert!(may, "user {user} is told of {conv}");
    }

    /// Nothing more is to be expected: everything was answered, or the connection has ended as SPEC.md says.
    pub(super) async fn check_at_rest(&mut self, passwd: bool) {
        if let Some(task) = self.task.take_if(|task| task.is_finished()) {
            task.await.expect("no connection panics");
        }
        assert!(self.unread.is_empty(), "half a line");
        let silent = Instant::now() - self.spoke;
        match self.closing {
            Some(code) => {
                assert!(self.ended, "after its closing a connection ends");
                let right = match code {
                    ClosingCode::LoggedOut => self.logout,
                    ClosingCode::TooManyErrors => self.bad >= 10,
                    ClosingCode::LoginTimeout => self.connected.elapsed() >= Duration::from_secs(30),
                    ClosingCode::Idle => silent >= self.limits.idle_timeout(),
                    ClosingCode::Revoked => passwd,
                    _ => false,
                };
                assert!(right, "closed because of {code:?}");
            }
            None => {
                assert!(self.owed.is_empty(), "no answer to {:?}", self.owed);
                assert_eq!(self.ended, self.stopped, "it ends when the client has stopped, and not before");
            }
        }
    }
}
