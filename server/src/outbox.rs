//! What the node has for a session: replies, and signals that something can be fetched.
//!
//! Entries are never queued here. A signal says that a conversation advanced; the session then takes from the feed what its
//! socket can carry. So an outbox is bounded: by the requests in flight, by the number of the
//! session's conversations, and by the number of the user's friends.

use std::{
    collections::BTreeSet,
    mem,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use protocol::{ConversationId, UserId};
use tokio::{sync::oneshot, time::Instant};

use crate::session::Standing;

/// Operators' questions that a session has not answered yet. It answers as soon as it is opened; beyond, a question stays unanswered.
const INQUIRIES_MAX: usize = 16;

/// The shared end of a session: the node writes, the connection's task takes.
#[derive(Debug)]
pub struct Outbox {
    /// Whose session it is.
    pub user: UserId,
    /// Who is at the other end, from when the session is open.
    pub peer: OnceLock<Peer>,
    letters: Mutex<Letters>,
    /// Whether a wake-up is under way.
    touched: AtomicBool,
    /// Whether the session was woken and has not looked yet.
    woken: AtomicBool,
    /// The connection's task.
    waker: AtomicWaker,
    /// Bytes that the connection's task has taken or made and the socket has not.
    unwritten: AtomicUsize,
}

/// Who is at the other end of a session.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The connection's number on this node, as in the log.
    pub connection: u64,
    /// The user's name.
    pub name: Arc<str>,
    /// The client's address.
    pub address: IpAddr,
    /// When the session was opened.
    pub since: Instant,
}

/// An operator's question.
#[derive(Debug)]
pub struct Inquiry {
    /// About this conversation above all.
    pub conv: Option<ConversationId>,
    /// Who gets the answer; they may be gone.
    pub answer: oneshot::Sender<Standing>,
}

/// What a session has to look at.
#[derive(Debug, Default)]
pub struct Letters {
    /// Replies, as lines.
    pub replies: Vec<u8>,
    /// How many replies that is.
    pub replied: usize,
    /// Conversations that advanced; each at most once until the session looked at its feed.
    pub signals: Vec<ConversationId>,
    /// Whether the session's token may have been revoked.
    pub revoked: bool,
    /// Whether the session has to see soon if its client is there.
    pub probe: bool,
    /// Friends whose state changed.
    pub presence: BTreeSet<UserId>,
    /// Operators' questions.
    pub inquiries: Vec<Inquiry>,
}

impl Outbox {
    /// An empty one.
    pub fn new(user: UserId) -> Arc<Self> {
        Arc::new(Self {
            user,
            peer: OnceLock::new(),
            letters: Mutex::default(),
            touched: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            unwritten: AtomicUsize::new(0),
        })
    }

    /// Adds to it; the session is woken when `wakes` are fired.
    pub fn put(self: &Arc<Self>, wakes: &mut Wakes, add: impl FnOnce(&mut Letters)) {
        add(&mut self.letters());
        if !self.touched.swap(true, Ordering::AcqRel) {
            wakes.0.push(Arc::clone(self));
        }
    }

    /// Takes what there is.
    pub fn take(&self) -> Letters {
        // Before the lock: what is put from here on wakes the session again.
        self.touched.store(false, Ordering::Release);
        mem::take(&mut self.letters())
    }

    /// Ready once for every time that the session was woken: not before a whole batch is done. For one task at a time.
    pub fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        // A look that finds nothing costs no write.
        let woken = self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel);
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Asks the session where it stands. The answer comes as soon as its connection looks, or never.
    pub fn inquire(self: &Arc<Self>, conv: Option<ConversationId>) -> oneshot::Receiver<Standing> {
        let (answer, standing) = oneshot::channel();
        let mut wakes = Wakes::default();
        self.put(&mut wakes, |letters| {
            if letters.inquiries.len() < INQUIRIES_MAX {
                letters.inquiries.push(Inquiry { conv, answer });
            }
        });
        wakes.fire();
        standing
    }

    /// Says how many bytes wait for the socket.
    pub fn set_unwritten(&self, bytes: usize) {
        self.unwritten.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes wait for the socket, besides replies that were not taken.
    pub fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        // Its fields are valid at any point of a writer.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions to be woken, each once, when a whole batch is done: fewer wake-ups, fuller writes.
#[derive(Debug, Default)]
#[must_use = "sessions sleep until the wakes are fired"]
pub struct Wakes(Vec<Arc<Outbox>>);

impl Wakes {
    /// Wakes them.
    pub fn fire(self) {
        for outbox in self.0 {
            outbox.woken.store(true, Ordering::Release);
            outbox.waker.wake();
        }
    }
}
