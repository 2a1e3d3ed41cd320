//! What migrations a node finds in a database that later versions have used as well.
//!
//! Migrations first add (expand), and remove only in a later release (contract), so that old and new nodes run side by side (SPEC.md, section
//! 11). A node cannot know what an unknown one did but by its name: those that remove are called `contract_…`.

use sqlx::migrate::Migrator;

/// What the description of a migration begins with that removes what earlier versions need: `0007_contract_roles.sql`, as sqlx describes it.
const CONTRACTS: &str = "contract";

/// The first of the migrations applied that this version does not know and that removed something.
pub(super) fn contraction(known: &Migrator, applied: &[(i64, String)]) -> Option<String> {
    let unknown = applied.iter().filter(|(version, _)| !known.version_exists(*version));
    let mut contracting = unknown.filter(|(_, description)| {
        description.split_once(' ').map_or(description.as_str(), |(word, _)| word) == CONTRACTS
    });
    contracting.next().map(|(version, description)| format!("{version} ({description})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_later_versions_removed() {
        let known = sqlx::migrate!("../migrations/sqlite");
        let check = |applied: &[(i64, &str)]| {
            let applied: Vec<_> = applied.iter().map(|(at, name)| (*at, (*name).to_owned())).collect();
            contraction(&known, &applied)
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[(1, "logs and cursors"), (9998, "later")]), None);
        assert_eq!(check(&[(9998, "contracts of employment")]), None);
        assert_eq!(check(&[(9998, "later"), (9999, "contract roles")]), Some("9999 (contract roles)".into()));
        assert_eq!(check(&[(9999, "contract")]), Some("9999 (contract)".into()));
        // What this version knows it was written for.
        assert_eq!(check(&[(1, "contract roles")]), None);
    }
}
