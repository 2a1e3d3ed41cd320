//! What a workload is to do: a value.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Sessions of each user, kept up at the same time.
    pub sessions: usize,
    /// Operations of all users together, after each has found its first friend and group. [`u64::MAX`]: until
    /// stopped.
    pub operations: u64,
    /// The mean pause of a session between two operations: none, as fast as the answers come.
    #[serde(with = "micros")]
    pub pause: Duration,
    /// How often which operation.
    pub mix: Mix,
    /// The longest wait for the answer to one request.
    #[serde(with = "micros")]
    pub request_timeout: Duration,
    /// The longest pause of a client between two attempts to connect.
    #[serde(with = "micros")]
    pub backoff_max: Duration,
    /// After the last operation: no delivery for so long is taken for the end of the deliveries. Too short,
    /// and the final readers read too early, which the checker notices.
    #[serde(with = "micros")]
    pub quiet: Duration,
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
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 0,
            prefix: "user".into(),
            users: 8,
            sessions: 2,
            operations: 1000,
            pause: Duration::ZERO,
            mix: Mix::default(),
            request_timeout: Duration::from_secs(60),
            backoff_max: Duration::from_secs(10),
            quiet: Duration::from_secs(3),
            settle: Duration::from_secs(120),
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
        }
    }
}

impl Mix {
    /// Draws a step.
    pub(super) fn draw(&self, rng: &mut Rng) -> Step {
        let weights = [
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
        ];
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        let mut rng = Rng::new(1);
        let none = Mix {
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
        };
        assert_eq!(none.draw(&mut rng), Step::Send);
        let mix = Mix { history: 1, reconnect: 3, ..none };
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
