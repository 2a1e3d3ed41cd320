//! The end of a run: what senders know is compared with what every device was shown.

use super::{
    arrivals::Anomalies,
    layout::Layout,
    user::{Outcome, OwnLine},
};

/// All anomalies of a run; `outcomes` are sorted by user. What was not `verified` on arrival cannot be compared.
pub(super) fn reconcile(layout: &Layout, outcomes: &[Outcome], verified: bool) -> Anomalies {
    let mut anomalies = Anomalies::default();
    outcomes.iter().for_each(|outcome| anomalies.add(&outcome.anomalies));
    if !verified {
        return anomalies;
    }
    let mut lines: Vec<&OwnLine> = outcomes.iter().flat_map(|outcome| &outcome.lines).collect();
    lines.sort_by_key(|line| line.id);
    let lines_of = layout.lines_of();
    // The first device of each conversation: the others were shown the same.
    let mut digests: Vec<Option<u64>> = vec![None; layout.convs.len()];
    for outcome in outcomes {
        for (conv, inbox) in &outcome.inboxes {
            let mut of_this = Anomalies::default();
            for id in &lines_of[*conv as usize] {
                if let Ok(at) = lines.binary_search_by_key(id, |line| line.id) {
                    inbox.reconcile(*id, lines[at].sent(), &mut of_this);
                }
            }
            // A missing message is a missing entry: it counts once.
            of_this.lost = of_this.lost.max(inbox.skipped());
            let digest = digests[*conv as usize].get_or_insert(inbox.digest());
            // What is not there differs, and is counted as lost.
            of_this.diverged += u64::from(*digest != inbox.digest() && of_this.total() == 0);
            anomalies.add(&of_this);
        }
    }
    anomalies
}
