//! The command lines of what operators do to a database: it is done, and the program ends.

use std::path::PathBuf;

use clap::Parser;
use protocol::UnixMillis;

/// Brings a database's schema up to date, and ends. Nodes do it themselves when they start.
#[derive(Debug, Parser)]
#[command(name = "chatserver migrate", version, max_term_width = 100)]
pub struct MigrateArgs {
    /// Which database: sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: String,
}

/// Deletes the texts of messages that are older than so long, and ends. Nothing else of them is deleted, and nothing but messages.
///
/// It can be ended and started again at any time, also while nodes serve clients: it goes on where it was, and leaves the database half of the time.
/// Nodes do the same by themselves with --retention.
#[derive(Debug, Parser)]
#[command(name = "chatserver expire", version, max_term_width = 100)]
#[command(group(clap::ArgGroup::new("age").required(true).args(["before", "days"])))]
pub struct ExpireArgs {
    /// Which database: sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: String,
    /// What was sent before this day began, in UTC: as 2026-11-24, and a day ago at least.
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub before: Option<UnixMillis>,
    /// What was sent longer ago than so many days.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    pub days: Option<u16>,
}

/// Erases an account for ever, and ends: its name, its password, the texts of all its messages; it leaves its friends and groups, and the groups that it
/// created are deleted.
///
/// With MySQL nodes may go on serving clients; SQLite's one node has to be stopped. What was not done in the end, since the database failed, is done by
/// another call with the account's number.
#[derive(Debug, Parser)]
#[command(name = "chatserver erase-user", version, max_term_width = 100)]
pub struct EraseUserArgs {
    /// Which database: sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: String,
    /// Whose account: a name, or an account number.
    pub account: String,
}

/// Copies everything from an embedded database into an empty one of a MySQL server, compares both sides, and ends.
///
/// Users, groups, logs, cursors, passwords and sessions stay what they are: after it, nodes are started with the MySQL database in place of the file.
/// No node may use either of them meanwhile. A database is marked while its copy is not whole and compared, and no node starts on it; the same
/// command begins the copy anew. The exit code is 0 only if both sides are the same.
#[derive(Debug, Parser)]
#[command(name = "chatserver migrate-data", version, max_term_width = 100)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["to", "to_file"])))]
pub struct MigrateDataArgs {
    /// The embedded database: sqlite:PATH.
    #[arg(long, env = "CHAT_MIGRATE_FROM", value_name = "URL")]
    pub from: String,
    /// The database to fill: mysql://USER:PASSWORD@HOST:PORT/DATABASE.
    #[arg(long, env = "CHAT_MIGRATE_TO", value_name = "URL", hide_env_values = true)]
    pub to: Option<String>,
    /// A file that holds the URL of --to, and nothing else.
    #[arg(long, env = "CHAT_MIGRATE_TO_FILE", value_name = "FILE")]
    pub to_file: Option<PathBuf>,
    /// Copies nothing, and only compares: before nodes use the copy.
    #[arg(long)]
    pub compare: bool,
}

/// Writes a copy of an embedded database to a new file, and ends. A node may use the database meanwhile.
///
/// The copy holds all that was committed before this began. It was checked, and is on the disk, when it has its name. Of a MySQL database, make a dump
/// with the server's tools.
#[derive(Debug, Parser)]
#[command(name = "chatserver backup", version, max_term_width = 100)]
pub struct BackupArgs {
    /// Which database: sqlite:PATH.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: String,
    /// The file to write, which must not be there.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

/// Puts a backup where a node looks for its embedded database, and ends. What was there has to be moved away before.
///
/// All clients have to log in again: a log that grew since the backup, and grows again otherwise, has two entries by the same number, and a client that
/// went on with its cursor could miss some without a sign.
#[derive(Debug, Parser)]
#[command(name = "chatserver restore", version, max_term_width = 100)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Which database: sqlite:PATH.
    #[arg(long, env = "CHAT_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: String,
    /// Sessions can be resumed: only if nothing was written since the backup.
    #[arg(long)]
    pub keep_sessions: bool,
}

/// The first moment of a day, in UTC.
pub(crate) fn date(text: &str) -> Result<UnixMillis, String> {
    const WRONG: &str = "a date such as 2026-11-24";
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return Err(WRONG.into()) };
    let number = |text: &str, digits: usize| {
        let digits_only = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        digits_only.then(|| text.parse::<i64>().ok()).flatten().ok_or_else(|| WRONG.to_owned())
    };
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(WRONG.into()),
    };
    if !(1..=days_of_month).contains(&day) {
        return Err(WRONG.into());
    }
    // Days of the proleptic Gregorian calendar, in eras of 400 years that begin in March.
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Ok((era * 146_097 + day_of_era - 719_468) * 86_400_000)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        MigrateArgs::command().debug_assert();
        ExpireArgs::command().debug_assert();
        EraseUserArgs::command().debug_assert();
        MigrateDataArgs::command().debug_assert();
        BackupArgs::command().debug_assert();
        RestoreArgs::command().debug_assert();
    }

    #[test]
    fn dates() {
        assert_eq!(date("1970-01-01"), Ok(0));
        assert_eq!(date("2000-02-29"), Ok(951_782_400_000));
        assert_eq!(date("2023-11-14"), Ok(1_699_920_000_000));
        assert_eq!(date("2099-12-31"), Ok(4_102_358_400_000));
        for day in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026-1-01",
            "26-01-01",
            "2026",
            "",
            "+026-01-01",
        ] {
            assert!(date(day).is_err(), "{day}");
        }
    }

    #[test]
    fn an_age_is_needed_and_one_only() {
        let parse = |more: &[&str]| {
            ExpireArgs::try_parse_from(["expire", "--database", ":memory:"].iter().chain(more)).is_ok()
        };
        assert!(parse(&["--days", "30"]) && parse(&["--before", "2026-01-31"]));
        for bad in [
            &[][..],
            &["--days", "0"],
            &["--before", "yesterday"],
            &["--days", "1", "--before", "2026-01-31"],
        ] {
            assert!(!parse(bad), "{bad:?}");
        }
    }
}
