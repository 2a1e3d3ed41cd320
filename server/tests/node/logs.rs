//! What is logged while a request is carried out says for whom: STYLE.md's spans, as JSON. One thread, so that the subscriber is this test's.

use std::{
    io::Write,
    sync::{Arc, Mutex, atomic::Ordering},
};

use serde_json::{Value, json};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    faults::Faulty,
    harness::{TestNode, mid},
};

/// The lines so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn start(&self, filter: &str) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// Those with this message.
    fn lines(&self, message: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["fields"]["message"] == message).collect()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The spans that a line lies in, outermost first, and what they say.
fn spans(line: &Value) -> Vec<(String, Value)> {
    let spans = line["spans"].as_array().cloned().unwrap_or_default();
    let what = |span: &Value| match span["name"].as_str().unwrap() {
        "connection" => span["peer"].clone(),
        "session" => span["user"].clone(),
        _ => span["op"].clone(),
    };
    spans.iter().map(|span| (span["name"].as_str().unwrap().to_owned(), what(span))).collect()
}

#[tokio::test]
async fn what_is_logged_says_for_whom() {
    let log = Log::default();
    let _guard = log.start("debug,server::connection=trace");
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), _bob) = node.friends().await;
    // In the middle of a command that waits for the store.
    store.away.store(true, Ordering::Relaxed);
    assert_eq!(alice.error(json!({"op": "friends"})).await, "unavailable");
    store.away.store(false, Ordering::Relaxed);
    let secret = "a text that nobody logs";
    alice.ok(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": secret})).await;
    let failed = log.lines("a command failed");
    assert_eq!(failed.len(), 1, "{}", log.text());
    let [connection, session, command] = &spans(&failed[0])[..] else { panic!("{}", failed[0]) };
    assert_eq!((connection.0.as_str(), session.0.as_str()), ("connection", "session"));
    assert!(connection.1.as_str().unwrap().starts_with("127.0.0.1:"), "{connection:?}");
    assert_eq!((&session.1, &command.1), (&json!("1"), &json!("friends")));
    assert!(failed[0]["spans"][0]["id"].is_u64());
    // Of each request, also those that are not waited for; before a login there is no session.
    let taken = log.lines("taken");
    let of = |name: &str| -> Vec<_> {
        let of_name = |line: &&Value| line["span"]["name"] == name;
        taken.iter().filter(of_name).map(|line| spans(line).len()).collect()
    };
    assert_eq!((of("send"), of("login"), of("friends")), (vec![3], vec![2, 2], vec![3]), "{}", log.text());
    assert_eq!(log.lines("opened").iter().map(|line| spans(line).len()).collect::<Vec<_>>(), [2, 2]);
    assert!(!log.text().contains(secret));
}

/// By default there are no spans: they cost nothing where most is sent.
#[tokio::test]
async fn by_default_spans_are_not_made() {
    let log = Log::default();
    let _guard = log.start("info");
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), _bob) = node.friends().await;
    store.away.store(true, Ordering::Relaxed);
    assert_eq!(alice.error(json!({"op": "friends"})).await, "unavailable");
    let failed = log.lines("a command failed");
    assert_eq!((failed.len(), spans(&failed[0]).len()), (1, 0), "{}", log.text());
}
