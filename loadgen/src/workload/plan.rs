//! What a workload is to do: a value.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::script::Operation;
use crate::{history::micros, rng::Rng};

/// A workload. The same plan asks for the same things in the same order, as far as the answers allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Begins the users' names; must be new to the deployment, since names are unique.
    pub prefix: String,
    /// How many users.
    pub users: usize,
    /// The users have accounts already, numbered from 1, with the names and passwords of [`Self::name`]. The
    /// deployment must be theirs alone.
    pub registered: bool,
    /// Sessions of each user, kept up at the same time.
    pub sessions: usize,
    /// Operations of all users together, after each has found its first friend and group. [`u64::MAX`]: until
    /// stopped.
    pub operations: u64,
    /// Exactly this is done, and nothing is drawn: `operations`, `pause`, `mix` and `crowd` mean nothing then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Vec<Operation>>,
    /// The mean pause of a session between two operations: none, as fast as the answers come.
    #[serde(with = "micros")]
    pub pause: Duration,
    /// How often which operation.
    pub mix: Mix,
    /// Each session keeps to one of the addresses: those of a user take them in turn, and the next user begins
    /// with the next one. Otherwise every device draws one.
    pub in_turn: bool,
    /// All talk in one group and nowhere else: the first user makes it, and the others join before they do
    /// anything else.
    pub crowd: bool,
    /// The longest wait for the answer to one request.
    #[serde(with = "micros")]
    pub request_timeout: Duration,
    /// The longest wait of a client for a connection.
    #[serde(with = "micros")]
    pub connect_timeout: Duration,
    /// The longest pause of a client between two attempts to connect.
    #[serde(with = "micros")]
    pub backoff_max: Duration,
    /// Between two attempts to register, to log in, to join the crowd, and to read at the end.
    #[serde(with = "micros")]
    pub retry_pause: Duration,
    /// A drawn absence is shorter: a new device comes after it.
    #[serde(with = "micros")]
    pub away_max: Duration,
    /// After the last operation: no delivery for so long is taken for the end of the deliveries. Too short,
    /// and the final readers read too early, which the checker notices.
    #[serde(with = "micros")]
    pub quiet: Duration,
    /// After that: the longest pause between two looks at whether all is delivered and told.
    #[serde(with = "micros")]
    pub look_max: Duration,
    /// After the last operation: how long to wait at most until all is delivered, told and read. To be longer
    /// than the bounds that the history is judged by.
    #[serde(with = "micros")]
    pub settle: Duration,
}

/// Weights of the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "named after the operations")]
pub struct Mix {
    pub send: u32,
    /// Several sends without waiting for their answers.
    pub burst: u32,
    /// Something that the user asked for before, with the same message id.
    pub repeat: u32,
    pub history: u32,
    pub lists: u32,
    pub befriend: u32,
    pub unfriend: u32,
    pub block: u32,
    pub unblock: u32,
    pub create_group: u32,
    pub join: u32,
    pub quit: u32,
    pub delete_group: u32,
    pub remove_member: u32,
    /// The device ends, with or without logging out, and a new one logs in.
    pub reconnect: u32,
    /// The device is gone at once, and a new one logs in.
    pub crash: u32,
    /// All devices of the user are gone at once.
    pub storm: u32,
    /// The device takes nothing from its connection for a while.
    pub stall: u32,
}

/// What a session does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Send,
    Burst,
    Repeat,
    History,
    Lists,
    Befriend,
    Unfriend,
    Block,
    Unblock,
    CreateGroup,
    Join,
    Quit,
    DeleteGroup,
    RemoveMember,
    Reconnect,
    Crash,
    Storm,
    Stall,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 0,
            prefix: "user".into(),
            users: 8,
            registered: false,
            sessions: 2,
            operations: 1000,
            script: None,
            pause: Duration::ZERO,
            mix: Mix::default(),
            in_turn: false,
            crowd: false,
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            backoff_max: Duration::from_secs(10),
            retry_pause: Duration::from_millis(200),
            away_max: Duration::from_millis(500),
            quiet: Duration::from_secs(3),
            look_max: Duration::from_secs(2),
            settle: Duration::from_secs(120),
        }
    }
}

impl Plan {
    /// The name of the user at a place, which is the password, too.
    pub fn name(&self, at: usize) -> String {
        format!("{}-{at}", self.prefix)
    }

    /// Like the default, in a world whose time is short: a client tries again soon, and nobody waits longer
    /// than the nodes need that were set up likewise.
    pub fn compressed() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
            retry_pause: Duration::from_millis(100),
            quiet: Duration::from_secs(1),
            look_max: Duration::from_millis(500),
            settle: Duration::from_secs(60),
            ..Self::default()
        }
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            send: 50,
            burst: 5,
            repeat: 5,
            history: 5,
            lists: 3,
            befriend: 4,
            unfriend: 1,
            block: 1,
            unblock: 2,
            create_group: 2,
            join: 8,
            quit: 2,
            delete_group: 1,
            remove_member: 3,
            reconnect: 4,
            crash: 0,
            storm: 0,
            stall: 0,
        }
    }
}

impl Mix {
    /// No operation, to be varied.
    pub const NONE: Self = Self {
        send: 0,
        burst: 0,
        repeat: 0,
        history: 0,
        lists: 0,
        befriend: 0,
        unfriend: 0,
        block: 0,
        unblock: 0,
        create_group: 0,
        join: 0,
        quit: 0,
        delete_group: 0,
        remove_member: 0,
        reconnect: 0,
        crash: 0,
        storm: 0,
        stall: 0,
    };

    /// Whether a step occurs.
    pub(super) fn has(&self, step: Step) -> bool {
        self.weights().iter().any(|(weight, of)| *of == step && *weight > 0)
    }

    /// Draws a step.
    pub(super) fn draw(&self, rng: &mut Rng) -> Step {
        let weights = self.weights();
        let mut at = rng.below(weights.iter().map(|(weight, _)| u64::from(*weight)).sum());
        for (weight, step) in weights {
            match at.checked_sub(u64::from(weight)) {
                Some(rest) => at = rest,
                None => return step,
            }
        }
        // All weights are zero.
        Step::Send
    }

    fn weights(&self) -> [(u32, Step); 18] {
        [
            (self.send, Step::Send),
            (self.burst, Step::Burst),
            (self.repeat, Step::Repeat),
            (self.history, Step::History),
            (self.lists, Step::Lists),
            (self.befriend, Step::Befriend),
            (self.unfriend, Step::Unfriend),
            (self.block, Step::Block),
            (self.unblock, Step::Unblock),
            (self.create_group, Step::CreateGroup),
            (self.join, Step::Join),
            (self.quit, Step::Quit),
            (self.delete_group, Step::DeleteGroup),
            (self.remove_member, Step::RemoveMember),
            (self.reconnect, Step::Reconnect),
            (self.crash, Step::Crash),
            (self.storm, Step::Storm),
            (self.stall, Step::Stall),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        let mut rng = Rng::new(1);
        assert_eq!(Mix::NONE.draw(&mut rng), Step::Send);
        let mix = Mix { history: 1, reconnect: 3, ..Mix::NONE };
        let steps: Vec<Step> = (0..1000).map(|_| mix.draw(&mut rng)).collect();
        let reconnects = steps.iter().filter(|step| **step == Step::Reconnect).count();
        assert!((650..850).contains(&reconnects), "{reconnects}");
        assert!(steps.iter().all(|step| matches!(step, Step::History | Step::Reconnect)));
    }

    #[test]
    fn a_plan_is_a_value() {
        let plan = Plan { seed: 7, pause: Duration::from_micros(1500), ..Plan::default() };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert_eq!(serde_json::from_str::<Plan>("{}").unwrap(), Plan::default());
        assert!(serde_json::from_str::<Plan>(r#"{"user":1}"#).is_err());
    }
}
