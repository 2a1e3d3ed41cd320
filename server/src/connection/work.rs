//! What is done for a session in the background, one thing at a time.

use std::sync::Arc;

use protocol::{ConversationId, Seq, message::ClosingCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{Connection, State, in_background};
use crate::{commands, feed::Line, feeds::Attached, session::Need, store};

/// What was done for the session in the background.
pub(super) enum Work {
    Page(ConversationId, store::Result<Vec<Arc<Line>>>),
    Attached(ConversationId, Seq, store::Result<Attached>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Starts what the session needs next, one thing at a time.
    pub(super) fn start_work(&mut self) {
        let State::Session(opened) = &self.state else { return };
        let full = self.out.len() - self.out_taken > self.node.config.sizes.outbox_bytes;
        if self.work.is_some() || self.closing.is_some() || full {
            return;
        }
        let Some(need) = self.needs.pop_front() else { return };
        let (feeds, user) = (Arc::clone(&self.node.feeds), opened.who.user);
        self.work = match need {
            Need::Page { conv, after } => {
                Some(in_background(async move { Work::Page(conv, feeds.page(user, conv, after).await) }))
            }
            Need::Attach { conv, after } => {
                let outbox = Arc::clone(&opened.outbox);
                Some(in_background(
                    async move { Work::Attached(conv, after, feeds.open(&outbox, conv).await) },
                ))
            }
            Need::Watch(_) | Need::Unwatch(_) => None,
        };
    }

    pub(super) fn finish_work(&mut self, work: Work) {
        let State::Session(opened) = &mut self.state else { return };
        if self.closing.is_some() {
            return;
        }
        match work {
            Work::Page(conv, Ok(lines)) => opened.session.page(conv, &lines, &mut self.out),
            Work::Page(conv, Err(error)) => {
                debug!(%error, "a page could not be read");
                let (after, pause) = (opened.session.cursor(conv), self.node.config.sweep_interval / 4);
                let (feeds, user) = (Arc::clone(&self.node.feeds), opened.who.user);
                self.work = Some(in_background(async move {
                    tokio::time::sleep(pause).await;
                    Work::Page(conv, feeds.page(user, conv, after).await)
                }));
            }
            Work::Attached(_, after, Ok(place)) => opened.session.add(place, after),
            Work::Attached(conv, after, Err(error)) => {
                debug!(%error, "a conversation could not be opened");
                let (outbox, pause) = (Arc::clone(&opened.outbox), self.node.config.sweep_interval / 4);
                let feeds = Arc::clone(&self.node.feeds);
                self.work = Some(in_background(async move {
                    tokio::time::sleep(pause).await;
                    Work::Attached(conv, after, feeds.open(&outbox, conv).await)
                }));
            }
        }
    }

    pub(super) fn finish_check(&mut self, valid: store::Result<bool>) {
        let State::Session(opened) = &self.state else { return };
        match valid {
            Ok(true) => {}
            Ok(false) => self.close(ClosingCode::Revoked, None),
            Err(error) => {
                debug!(%error, "a token could not be checked");
                let (node, token) = (Arc::clone(&self.node), opened.token);
                let pause = self.node.config.sweep_interval / 4;
                self.check = Some(in_background(async move {
                    tokio::time::sleep(pause).await;
                    commands::is_valid(&node, &token).await
                }));
            }
        }
    }
}
