//! The end of a run: until nothing is on its way any more, and then what the store shows.

use std::{sync::Arc, time::Duration};

use protocol::{ConversationId, Entry, Net, Request, UserId, message::History as HistoryRequest};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{actor::Actor, device::Asker, people::Person};
use crate::{
    checker,
    history::{Outcome, Recorder, Reply, What},
};

/// Between two looks at whether all is settled: at first, and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Between two attempts to read.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// One user in so many goes before the others.
const GOING: usize = 3;
/// The longest page there is.
const PAGE: u32 = 100;

/// Waits, reads and waits again, for as long as the plan allows.
pub(super) async fn settle<N: Net>(actors: &mut [Actor<N>], recorder: &Recorder) {
    let Some(shared) = actors.first().map(|actor| Arc::clone(&actor.shared)) else { return };
    let until = Instant::now() + shared.plan.settle;
    for actor in &mut *actors {
        actor.log_in(Some(until)).await;
    }
    quiet(recorder, shared.plan.quiet, until).await;

    let mut readers = Vec::new();
    for actor in actors.iter().filter(|actor| actor.place.1 == 0) {
        let Some(device) = &actor.device else { continue };
        let (asker, person, user) = (device.asker.clone(), Arc::clone(&actor.person), actor.user);
        let recorder = recorder.clone();
        readers.push(shared.tracker.spawn(read_all(asker, person, user, recorder, until)));
    }
    for reader in readers {
        if let Err(error) = reader.await {
            warn!(%error, "a final reader ended early");
        }
    }

    converge(actors, recorder, until).await;
    // Some go, so that the others have an absence to be told of.
    for actor in actors.iter_mut().filter(|actor| actor.place.0 % GOING == GOING - 1) {
        if let Some(device) = actor.device.take() {
            device.close().await;
        }
    }
    converge(actors, recorder, Instant::now() + shared.plan.settle).await;
}

/// Waits until every device was shown what there is and told who is online.
async fn converge<N: Net>(actors: &[Actor<N>], recorder: &Recorder, until: Instant) {
    let (mut pause, longest) = LOOKS;
    loop {
        // Who is online is told to whoever asks.
        for device in actors.iter().filter_map(|actor| actor.device.as_ref()) {
            device.asker.friends().await;
        }
        if recorder.look(checker::unsettled).is_empty() || Instant::now() >= until {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Waits until nothing was recorded for a while: every delivery is.
async fn quiet(recorder: &Recorder, quiet: Duration, until: Instant) {
    let (mut events, mut since) = (recorder.len(), Instant::now());
    while since.elapsed() < quiet && Instant::now() < until {
        sleep(quiet / 10).await;
        let now = recorder.len();
        if now != events {
            (events, since) = (now, Instant::now());
        }
    }
}

/// Reads all that a user can know of.
async fn read_all(asker: Asker, person: Arc<Person>, user: UserId, recorder: Recorder, until: Instant) {
    person.met(ConversationId::notices(user));
    for conv in person.convs() {
        while let Err(()) = read(&asker, user, conv, &recorder).await {
            if Instant::now() >= until {
                warn!(%user, %conv, "not read at the end");
                break;
            }
            sleep(READ_PAUSE).await;
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
        sleep(READ_PAUSE).await;
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
