//! Takes hints from the queue and publishes them, many in one round trip.

use std::sync::atomic::Ordering;

use redis::{RedisError, aio::MultiplexedConnection};
use tokio::sync::mpsc;
use tracing::debug;

use super::{Shared, hint_bytes, link::is_refusal};
use crate::relay::{Hint, channels::Channel};

/// Hints in one round trip.
const HINTS_MAX: usize = 256;
/// Bytes of entries in one round trip, beyond the first hint's; each may go to two channels.
const BYTES_MAX: usize = 1 << 20;

/// Publishes until the link fails.
pub(super) async fn publish(
    shared: &Shared,
    queue: &mut mpsc::Receiver<Hint>,
    mut connection: MultiplexedConnection,
) -> RedisError {
    let mut refused = false;
    loop {
        // The node's end is held open by whoever could fill it; when it is gone, the supervisor is told to stop.
        let Some(mut hint) = queue.recv().await else { return std::future::pending().await };
        let mut pipe = redis::pipe();
        let (mut hints, mut bytes) = (0, 0);
        loop {
            let own = hint_bytes(&hint);
            shared.queued_bytes.fetch_sub(own, Ordering::Relaxed);
            let payload = shared.origin.hint(&hint);
            for channel in Channel::all_of(hint.conv) {
                pipe.cmd("PUBLISH").arg(shared.channel(channel)).arg(&payload).ignore();
            }
            hints += 1;
            bytes += own;
            if hints == HINTS_MAX || bytes > BYTES_MAX {
                break;
            }
            match queue.try_recv() {
                Ok(next) => hint = next,
                Err(_) => break,
            }
        }
        match pipe.query_async::<()>(&mut connection).await {
            Ok(()) => refused = false,
            // What this Redis does not allow, no new link would make it allow. Hints may be lost.
            Err(error) if is_refusal(&error) => {
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "redis refuses hints");
                }
            }
            Err(error) => {
                debug!(%error, hints, "hints may not have been published");
                return error;
            }
        }
    }
}
