//! The way to the nodes: plain HTTP to their admin listeners, in bounded time.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::Context as _;
use serde::{Serialize, de::DeserializeOwned};
use server::admin::view::{Refusal, RefusedView};
use ureq::Agent;

/// How long a node may take to answer: longer than the store is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read: some thousand sessions of one conversation.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Nodes that are asked at the same time.
const AT_ONCE: usize = 16;

/// Why a node did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not answer, or not so that it could be understood.
    Silent(String),
    /// It said why.
    Refused(Refusal),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(why) => f.write_str(why),
            Self::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}

impl Failure {
    /// Whether another node may do better.
    fn is_of_this_node(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Refused(refusal) => {
                matches!(refusal.code.as_str(), "overloaded" | "going_away" | "disabled")
            }
        }
    }
}

/// What each of some nodes said.
pub(crate) type Answers<T> = Vec<(String, Result<T, Failure>)>;

/// The nodes that are known.
pub(crate) struct Nodes {
    agent: Agent,
    addresses: Vec<String>,
    authorization: String,
}

impl Nodes {
    /// Those with these admin listeners, which take the token in a file.
    pub(crate) fn new(addresses: &[String], token_file: &Path) -> anyhow::Result<Self> {
        let token = fs::read_to_string(token_file).with_context(|| token_file.display().to_string())?;
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .http_status_as_error(false)
            // The token goes to the nodes and nowhere else.
            .max_redirects(0)
            .proxy(None)
            .build();
        let mut addresses = addresses.to_vec();
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        Ok(Self { agent: agent.into(), addresses, authorization: format!("Bearer {}", token.trim()) })
    }

    /// Asks one node.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        node: &str,
        path: &str,
        wanted: &impl Serialize,
    ) -> Result<T, Failure> {
        let mut request = self.agent.get(url(node, path)).header("Authorization", &self.authorization);
        let fields = serde_json::to_value(wanted).map_err(silent)?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) => request = request.query(name, text),
                other => request = request.query(name, other.to_string()),
            }
        }
        answer(request.call())
    }

    /// Has one node do something.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        node: &str,
        path: &str,
        wanted: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(wanted).map_err(silent)?;
        let request = self.agent.post(url(node, path)).header("Authorization", &self.authorization);
        answer(request.header("Content-Type", "application/json").send(&body[..]))
    }

    /// Asks every node, some at a time.
    pub(crate) fn all<T: Send>(&self, ask: impl Fn(&str) -> Result<T, Failure> + Sync) -> Answers<T> {
        let mut answers = Vec::with_capacity(self.addresses.len());
        for some in self.addresses.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let asked: Vec<_> = some.iter().map(|node| (node, scope.spawn(|| ask(node)))).collect();
                for (node, asked) in asked {
                    let answer =
                        asked.join().unwrap_or_else(|_| Err(Failure::Silent("asking it failed".into())));
                    answers.push((node.clone(), answer));
                }
            });
        }
        answers
    }

    /// Asks one node after the other until one answers. Those that did not come first; the last one is the answer, if there is one.
    pub(crate) fn first<T>(&self, ask: impl Fn(&str) -> Result<T, Failure>) -> Answers<T> {
        let mut answers = Vec::new();
        for node in &self.addresses {
            let answer = ask(node);
            let over = answer.as_ref().err().is_none_or(|failure| !failure.is_of_this_node());
            answers.push((node.clone(), answer));
            if over {
                break;
            }
        }
        answers
    }
}

fn url(node: &str, path: &str) -> String {
    format!("http://{node}/admin/v1/{path}")
}

fn silent(error: impl fmt::Display) -> Failure {
    Failure::Silent(error.to_string())
}

fn answer<T: DeserializeOwned>(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, Failure> {
    let mut response = response.map_err(silent)?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(silent)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| silent(format!("not a node's answer: {error}")));
    }
    match serde_json::from_slice::<RefusedView>(&body) {
        Ok(refused) => Err(Failure::Refused(refused.error)),
        Err(_) => Err(silent(format!("not a node's answer: HTTP {}", status.as_u16()))),
    }
}
