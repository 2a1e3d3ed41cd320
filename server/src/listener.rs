//! The accept loop.

use std::{sync::Arc, time::Duration};

use protocol::{
    Net, Push,
    message::{ClosingCode, write_push},
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::{connection, node::Node};

/// The pause after a failed accept: it fails for want of file descriptors, and trying at once would only burn time.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that is refused may take to read why.
const REFUSAL: Duration = Duration::from_secs(1);

/// Accepts connections until the node drains. Each is a task on `connections`.
pub async fn accept<N: Net>(net: N, listener: N::Listener, node: Arc<Node>, connections: TaskTracker) {
    let mut number = 0u64;
    let draining = node.draining.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = draining.cancelled() => return,
            accepted = net.accept(&listener) => accepted,
        };
        match accepted {
            Ok((mut stream, peer)) => {
                number += 1;
                // This task is one of those counted.
                if connections.len() > node.config.connections_max {
                    node.metrics.connection_refused("node_full");
                    warn!(%peer, "too many connections");
                    refuse(&node, &mut stream).await;
                    continue;
                }
                let span = debug_span!("connection", id = number, %peer);
                let serving = connection::serve(Arc::clone(&node), stream, peer.ip(), number);
                connections.spawn(serving.instrument(span));
            }
            Err(error) => {
                debug!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Says that there are too many connections. Over TLS it could only be said after a handshake, which is what is to be spared.
pub(crate) async fn refuse(node: &Node, stream: &mut (impl AsyncWrite + Unpin)) {
    if node.config.tls.is_none() {
        say_closing(stream, ClosingCode::TooManyConnections, Some(1000)).await;
    }
}

/// Says the one line that a connection which is not served gets.
pub(crate) async fn say_closing(
    stream: &mut (impl AsyncWrite + Unpin),
    code: ClosingCode,
    reconnect_after_ms: Option<u64>,
) {
    let mut line = Vec::new();
    write_push(&mut line, &Push::Closing { code, reconnect_after_ms });
    // One short line fits into the socket's buffer at once.
    let _ = tokio::time::timeout(REFUSAL, stream.write_all(&line)).await;
}
