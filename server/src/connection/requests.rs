//! What each request does on its connection.

use std::sync::Arc;

use protocol::{
    Conversation, ErrorBody, ErrorCode, Request, RequestId,
    message::{CursorsSet, Done, LoggedIn, Refused, Resume, Send, SetCursors, write_error, write_reply},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug_span, trace};

use super::{Connection, State, in_background};
use crate::{
    commands::{self, Effect},
    committer,
    store::TokenRecord,
};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Carries out a request, or begins to.
    pub(super) fn take_request(&mut self, id: Option<RequestId>, request: Request) {
        debug_span!("command", op = request.name()).in_scope(|| self.take_in_span(id, request));
    }

    fn take_in_span(&mut self, id: Option<RequestId>, request: Request) {
        trace!("taken");
        self.node.metrics.request(&request);
        // Only `ack` comes without an id, and is then not answered, unless it is refused.
        let answer = id.unwrap_or_default();
        match (&mut self.state, request) {
            (_, Request::Ping) => write_reply(&mut self.out, answer, &Done {}),
            (_, Request::Register(request)) => {
                self.start(commands::register(
                    Arc::clone(&self.node),
                    Arc::clone(&self.visitor),
                    answer,
                    request,
                ));
            }
            (State::Anonymous, Request::Login(request)) => {
                self.start(commands::login(
                    Arc::clone(&self.node),
                    Arc::clone(&self.visitor),
                    answer,
                    request,
                ));
            }
            (State::Anonymous, Request::Resume(resume)) => self.resume(answer, resume),
            (State::Resuming(_), Request::Cursors(more)) => self.more_cursors(answer, more),
            (State::Session(_) | State::Resuming(_), Request::Login(_) | Request::Resume(_)) => {
                self.refuse(id, &ErrorCode::AlreadyLoggedIn.into());
            }
            (_, Request::Cursors(_)) => {
                let error = ErrorBody::field(ErrorCode::BadRequest, "op", "only while a resume is under way");
                self.refuse(id, &error);
            }
            (State::Anonymous | State::Resuming(_), _) => {
                self.refuse(id, &ErrorCode::NotLoggedIn.into());
            }
            (State::Session(_), Request::Send(request)) => self.send(answer, request),
            (State::Session(_), Request::Ack(ack)) => self.acknowledge(id, &ack),
            (State::Session(opened), Request::Logout) => {
                let (node, user, token) = (Arc::clone(&self.node), opened.who.user, opened.token);
                self.start(async move {
                    match commands::close(&node, user, token).await {
                        Ok(()) => Effect::LoggedOut(commands::reply(answer, Ok(Done {}))),
                        Err(error) => Effect::Reply(commands::reply::<Done>(answer, Err(error))),
                    }
                });
            }
            (State::Session(opened), Request::Passwd(request)) => {
                let (who, token) = (opened.who.clone(), opened.token);
                let (node, visitor) = (Arc::clone(&self.node), Arc::clone(&self.visitor));
                self.start(commands::passwd(node, visitor, who, token, answer, request));
            }
            (State::Session(opened), request) => {
                let who = opened.who.clone();
                self.start(commands::run(Arc::clone(&self.node), who, answer, request));
            }
        }
    }

    fn refuse(&mut self, id: Option<RequestId>, error: &ErrorBody) {
        self.node.metrics.refusal(error.code);
        write_error(&mut self.out, id, error);
    }

    fn start(&mut self, command: impl Future<Output = Effect> + std::marker::Send + 'static) {
        self.command = Some(in_background(command));
    }

    fn send(&mut self, id: RequestId, request: Send) {
        let State::Session(opened) = &self.state else { return };
        let Send { mid, conv, text } = request;
        let text_max = self.node.config.limits.text_bytes_max;
        if text.is_empty() || text.len() > text_max {
            let error = ErrorBody::field(ErrorCode::BadText, "text", format_args!("1 to {text_max} bytes"));
            return self.refuse(Some(id), &error);
        }
        let user = opened.who.user;
        let cell = match (opened.session.cell(conv), conv.parse()) {
            (Some(cell), Conversation::Direct(..) | Conversation::Group(_)) => Arc::clone(cell),
            (_, Conversation::Direct(a, b)) if a != user && b != user => {
                return self.refuse(Some(id), &ErrorCode::NoSuchConversation.into());
            }
            (_, Conversation::Notices(_)) => {
                return self.refuse(Some(id), &ErrorCode::NoSuchConversation.into());
            }
            // Not one that the session reads, but a retry may ask for what was sent when it did.
            _ => self.node.feeds.cell(conv),
        };
        let job = committer::Send {
            cell,
            from: user,
            name: Arc::clone(&opened.who.name),
            mid,
            text,
            outbox: Arc::clone(&opened.outbox),
            id,
        };
        match self.node.committer.submit(committer::Job::Send(job)) {
            Ok(()) => {
                self.in_flight += 1;
                if self.in_flight == self.node.config.limits.requests_in_flight_max {
                    self.node.metrics.pause("replies");
                }
            }
            Err(code) => self.refuse(Some(id), &code.into()),
        }
    }

    fn acknowledge(&mut self, id: Option<RequestId>, ack: &SetCursors) {
        if ack.cursors.len() > self.node.config.limits.cursors_per_request_max {
            let error = ErrorBody::field(ErrorCode::BadRequest, "cursors", "too many");
            return self.refuse(id, &error);
        }
        let State::Session(opened) = &mut self.state else { return };
        let grown = opened.session.acknowledge(&ack.cursors);
        let user = opened.who.user;
        self.node.delivered.raise(user, grown);
        if let Some(id) = id {
            let node = Arc::clone(&self.node);
            self.start(async move {
                let written = node.delivered.write_user(user).await;
                let result = written.map(|()| Done {}).map_err(|_| ErrorCode::Unavailable.into());
                Effect::Reply(commands::reply(id, result))
            });
        }
    }

    // --- Resuming ---

    fn resume(&mut self, id: RequestId, resume: Resume) {
        let Resume { token, cursors, more } = resume;
        if cursors.len() > self.node.config.limits.cursors_per_request_max {
            let error = ErrorBody::field(ErrorCode::BadRequest, "cursors", "too many");
            return self.refuse(Some(id), &error);
        }
        let node = Arc::clone(&self.node);
        if !more {
            self.start(async move {
                commands::opened(id, commands::open_with_token(&node, token, &cursors).await)
            });
            return;
        }
        self.start(async move {
            match commands::check_token(&node, token).await {
                Ok(TokenRecord { user, name, .. }) => {
                    let refused = Refused::new();
                    let reply = LoggedIn { user, name, token: None, token_expires_at: None, refused };
                    Effect::Resuming(commands::reply(id, Ok(reply)), token, cursors)
                }
                Err(error) => Effect::Reply(commands::reply::<Done>(id, Err(error))),
            }
        });
    }

    fn more_cursors(&mut self, id: RequestId, request: SetCursors) {
        let State::Resuming(resuming) = &mut self.state else { return };
        let (token, cursors) = &mut **resuming;
        let limits = &self.node.config.limits;
        let all_max = 10 * limits.cursors_per_request_max;
        if request.cursors.len() > limits.cursors_per_request_max || cursors.len() > all_max {
            let error = ErrorBody::field(ErrorCode::BadRequest, "cursors", "too many");
            return self.refuse(Some(id), &error);
        }
        cursors.extend(request.cursors);
        if request.more {
            return write_reply(&mut self.out, id, &Done {});
        }
        let (node, token, cursors) = (Arc::clone(&self.node), *token, std::mem::take(cursors));
        self.state = State::Anonymous;
        self.start(async move {
            let result = commands::open_with_token(&node, token, &cursors).await;
            commands::opened(
                id,
                result.map(|(reply, opened)| (CursorsSet { refused: reply.refused }, opened)),
            )
        });
    }
}
