//! The database's host: a task for each connection, which carries out one request after the other.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use protocol::Net;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    database::{Database, Fate},
    frames::Frames,
    methods::{Reply, Request},
};

/// Connections at a time; one more is closed at once, as MySQL refuses it.
const CONNECTIONS_MAX: usize = 512;
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a database at `HOST:PORT`, until it is dropped: that is the host's crash, which nothing under way survives unless it was carried out.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve<N: Net>(
    net: N,
    address: &str,
    database: Database,
    tracker: TaskTracker,
) -> io::Result<()> {
    let listener = net.bind(address).await?;
    match serve_on(net, listener, database, tracker).await {}
}

/// [`serve`], where an address is bound already.
pub async fn serve_on<N: Net>(
    net: N,
    listener: N::Listener,
    database: Database,
    tracker: TaskTracker,
) -> Infallible {
    let crash = CancellationToken::new();
    let _at_the_end = crash.clone().drop_guard();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match net.accept(&listener).await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "the store's host could not accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (database, crash) = (database.clone(), crash.clone());
        tracker.spawn(async move {
            let _permit = permit;
            tokio::select! {
                // A host that is down does nothing more.
                biased;
                () = crash.cancelled() => {}
                ended = converse(Frames::new(stream), database) => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection to the store ended");
                    }
                }
            }
        });
    }
}

/// Answers until the other side has closed, or a fault ends the connection. That it has closed is noticed only when it is read or written: what it
/// asked for before is carried out, and nobody is told.
async fn converse<S>(mut frames: Frames<S>, database: Database) -> io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(frame) = frames.receive().await? {
        if frame.is_empty() {
            frames.ping().await?;
            continue;
        }
        let request: Request<'static> = serde_json::from_slice(frame)?;
        let asked_at = database.now();
        let (before, fate, after) = database.draw(request.kind());
        if fate != Fate::Answered {
            debug!(request = request.name(), ?fate, "a fault of the store");
        }
        pause(before).await;
        let reply = match fate {
            Fate::Answered => database.carry_out(&request, asked_at),
            Fate::Failed => Reply::Failed("the query was ended".into()),
            Fate::Deadlock => Reply::Deadlock,
            Fate::RequestLost => return Ok(()),
            Fate::ReplyLost => {
                database.carry_out(&request, asked_at);
                return Ok(());
            }
            Fate::Late { by, silent } => {
                let open = silent.then_some(frames);
                pause(by).await;
                database.carry_out(&request, asked_at);
                drop(open);
                return Ok(());
            }
        };
        pause(after).await;
        frames.send(&reply).await?;
    }
    Ok(())
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
