//! The end of a run: until nothing is on its way any more, and then what the store shows.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{ConversationId, Entry, Net, Request, UserId, message::History as HistoryRequest};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Part, Shared, actor::Actor, device::Asker, people::Person};
use crate::{
    checker,
    history::{Event, Outcome, Recorder, Reply, What},
};

/// Between the first two looks at whether all is settled; the later pauses are longer.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// One user in so many goes before the others.
const GOING: usize = 3;
/// The longest page there is.
const PAGE: u32 = 100;

/// Waits, reads and waits again, for as long as the plan allows. Every part does so with its own actors, and
/// the first one looks for all.
pub(super) async fn settle<N: Net>(part: &Part<N>, actors: &mut [Actor<N>], first: bool) {
    let (shared, plan) = (&part.shared, &part.shared.plan);
    let until = Instant::now() + plan.settle;
    for actor in &mut *actors {
        actor.log_in(Some(until)).await;
    }
    shared.meet().await;
    if first {
        quiet(&shared.recorder, plan.quiet, until).await;
    }
    shared.meet().await;

    let mut readers = Vec::new();
    for actor in actors.iter().filter(|actor| actor.session == 0) {
        let Some(device) = &actor.device else { continue };
        let (asker, person, user) = (device.asker.clone(), Arc::clone(&actor.person), actor.user);
        readers.push(part.tracker.spawn(read_all(asker, person, user, Arc::clone(shared), until)));
    }
    for reader in readers {
        if let Err(error) = reader.await {
            warn!(%error, "a final reader ended early");
        }
    }

    converge(shared, actors, first, until).await;
    // Some go, so that the others have an absence to be told of.
    for actor in actors.iter_mut().filter(|actor| actor.person.at % GOING == GOING - 1) {
        if let Some(device) = actor.device.take() {
            device.close().await;
        }
    }
    converge(shared, actors, first, Instant::now() + plan.settle).await;
}

/// Waits until every device was shown what there is and told who is online.
async fn converge<N: Net>(shared: &Shared, actors: &[Actor<N>], first: bool, until: Instant) {
    let (mut pause, longest) = (LOOK_MIN.min(shared.plan.look_max), shared.plan.look_max);
    loop {
        // Who is online is told to whoever asks.
        for device in actors.iter().filter_map(|actor| actor.device.as_ref()) {
            device.asker.friends().await;
        }
        shared.meet().await;
        if first {
            let settled = shared.recorder.look(checker::unsettled).is_empty() || Instant::now() >= until;
            shared.settled.store(settled, Ordering::Relaxed);
        }
        // All part here, or all look again.
        shared.meet().await;
        if shared.settled.load(Ordering::Relaxed) {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Waits until for a while nothing was shown to any device and nothing answered.
async fn quiet(recorder: &Recorder, quiet: Duration, until: Instant) {
    let (mut seen, mut since) = (recorder.len(), Instant::now());
    while since.elapsed() < quiet && Instant::now() < until {
        sleep(quiet / 10).await;
        let moved = |event: &Event| matches!(event.what, What::Entry { .. } | What::Returned { .. });
        let (now, moved) = recorder.look(|history| {
            (history.events.len(), history.events.get(seen..).unwrap_or_default().iter().any(moved))
        });
        seen = now;
        if moved {
            since = Instant::now();
        }
    }
}

/// Reads all that a user can know of.
async fn read_all(asker: Asker, person: Arc<Person>, user: UserId, shared: Arc<Shared>, until: Instant) {
    let recorder = &shared.recorder;
    person.met(ConversationId::notices(user));
    for conv in person.convs() {
        while let Err(()) = read(&asker, user, conv, recorder).await {
            if Instant::now() >= until {
                warn!(%user, %conv, "not read at the end");
                break;
            }
            sleep(shared.plan.retry_pause).await;
        }
    }
    loop {
        if let (
            Outcome::Ok { reply: Reply::Friends { friends } },
            Outcome::Ok { reply: Reply::Groups { groups } },
        ) = (asker.friends().await, asker.groups().await)
        {
            let listed = |which: fn(&protocol::message::Friend) -> bool| {
                friends.iter().filter(|friend| which(friend)).map(|friend| friend.user).collect()
            };
            recorder.record(What::FinalLists {
                user,
                groups: groups.iter().map(|group| group.group).collect(),
                friends: listed(|friend| friend.friend),
                blocked: listed(|friend| friend.blocked),
            });
            return;
        }
        if Instant::now() >= until {
            return;
        }
        sleep(shared.plan.retry_pause).await;
    }
}

/// Reads a log from its end to its beginning. A log that is refused is one without entries: whoever was shown
/// some of it will wonder.
async fn read(asker: &Asker, user: UserId, conv: ConversationId, recorder: &Recorder) -> Result<(), ()> {
    let (mut pages, mut before): (Vec<Vec<Entry>>, _) = (Vec::new(), None);
    loop {
        let request = Request::History(HistoryRequest { conv, before, limit: Some(PAGE) });
        let page = match asker.ask_aside(request).await {
            Ok(client::Reply::History(page)) => page,
            Err(client::RequestError::Refused(error))
                if error.code == protocol::ErrorCode::NoSuchConversation =>
            {
                break;
            }
            _ => return Err(()),
        };
        let first = page.entries.first().map(|entry| entry.seq);
        pages.push(page.entries);
        match first {
            // A page that does not advance would be read for ever.
            Some(first) if page.more && before.is_none_or(|before| first < before) => before = Some(first),
            _ => break,
        }
    }
    let entries = pages.into_iter().rev().flatten().collect();
    recorder.record(What::Final { user, conv, entries });
    Ok(())
}
