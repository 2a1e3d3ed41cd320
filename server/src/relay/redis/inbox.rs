//! What Redis pushes, taken as it arrives: no queue stands between the socket and the node's events.

use std::sync::Arc;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::{
    Shared,
    view::Heard,
    wire::{PAYLOAD_BYTES_MAX, WireError},
};
use crate::relay::{EVENTS_MAX, RelayEvent};

/// While more events than this wait for the node, it is told of heads alone: entries would fill its memory.
const EVENTS_WITH_ENTRIES_MAX: usize = 512;

/// Where a link's pushes go.
pub(super) struct Inbox {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<RelayEvent>,
    pub(super) presence_channel: Vec<u8>,
    pub(super) canary_channel: Vec<u8>,
    /// Notified when the link is gone.
    pub(super) disconnected: Arc<Notify>,
}

impl Inbox {
    /// Takes a push. Never waits.
    pub(super) fn take(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => {
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                    (data.next(), data.next())
                {
                    self.message(&channel, &payload);
                }
            }
            PushKind::Disconnection => self.disconnected.notify_one(),
            _ => {}
        }
    }

    fn message(&self, channel: &[u8], payload: &[u8]) {
        let taken = if payload.len() > PAYLOAD_BYTES_MAX {
            Err(WireError::Malformed)
        } else if channel == self.presence_channel {
            self.presence(payload)
        } else if channel == self.canary_channel {
            self.canary(payload)
        } else {
            self.hint(payload)
        };
        match taken {
            Ok(()) | Err(WireError::Own) => {}
            Err(error) => debug!(%error, bytes = payload.len(), "a relay message was ignored"),
        }
    }

    fn hint(&self, payload: &[u8]) -> Result<(), WireError> {
        let event = match self.shared.origin.read_hint(payload)? {
            RelayEvent::Hint(hint) if EVENTS_MAX - self.events.capacity() > EVENTS_WITH_ENTRIES_MAX => {
                let head = hint.lines.last().map(|line| line.seq).unwrap_or_default();
                RelayEvent::Head(hint.conv, head)
            }
            event => event,
        };
        if self.events.try_send(event).is_err() {
            // The node is behind: it compares all heads when it has caught up.
            self.shared.news.gap();
        }
        Ok(())
    }

    fn canary(&self, payload: &[u8]) -> Result<(), WireError> {
        self.shared.canary.hear(self.shared.origin.read_canary(payload)?);
        Ok(())
    }

    fn presence(&self, payload: &[u8]) -> Result<(), WireError> {
        let (who, number, change) = self.shared.origin.read_presence(payload)?;
        let heard = self.shared.view().hear(who, number, &change);
        match heard {
            Heard::Users(users) => self.shared.news.presence(users),
            Heard::Read => self.shared.read_soon.notify_one(),
            Heard::Nothing => {}
        }
        Ok(())
    }
}
