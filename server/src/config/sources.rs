//! Where settings come from: flags override the environment, which overrides the configuration file, which overrides the defaults.
//!
//! The file names options as the command line does, without the dashes before them: `idle-timeout = 60`. Its values become arguments before
//! the ones that were given, so that there is one parser, and one set of rules.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::{
    ffi::OsString,
    fmt::{self, Write as _},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, parser::ValueSource};
use thiserror::Error;

use super::Args;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Options of which one replaces the others: what overrides one of them overrides all.
const ALTERNATIVES: [&[&str]; 2] = [&["database", "database_file", "data_dir"], &["redis", "redis_file"]];
/// Options whose values hold passwords.
const SECRETS: [&str; 2] = ["database", "redis"];

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum LoadError {
    /// What clap says: also help, and the version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, std::io::Error),
    /// The file is no TOML.
    #[error("{}: {}", .0.display(), .1)]
    NoToml(PathBuf, Box<toml::de::Error>),
    /// A name in the file is no option's.
    #[error("{}: there is no setting named {}; chatserver config shows all", .0.display(), .1)]
    Unknown(PathBuf, String),
    /// A value in the file cannot be an option's.
    #[error("{}: {} is to be a text, a number, true, false, or a list of texts", .0.display(), .1)]
    BadValue(PathBuf, String),
    /// What clap says of a value in the file.
    #[error("{}: {}", .0.display(), .1)]
    InFile(PathBuf, String),
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// A setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As in the file.
    pub name: String,
    /// As text, passwords hidden; `None` if it is not set.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Origin,
}

/// A configuration, and where each setting comes from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub args: Args,
    /// In the order of the help.
    pub settings: Vec<Setting>,
}

impl Loaded {
    /// Reads the command line, of which the first word is the program's name, the environment, and the file that they name.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, LoadError> {
        Self::with_file(words, read)
    }

    fn with_file(
        words: impl IntoIterator<Item = OsString>,
        read: impl FnOnce(&Path) -> Result<toml::Table, LoadError>,
    ) -> Result<Self, LoadError> {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_else(|| "chatserver".into());
        let rest: Vec<OsString> = words.collect();
        let command = Args::command();
        // What the file gives need not be given on the command line.
        let lenient = command.clone().mut_args(|arg| arg.required(false));
        let given = lenient.try_get_matches_from(std::iter::once(&program).chain(&rest))?;
        let mut own = Additions::default();
        if let Some(path) = given.get_one::<PathBuf>("config") {
            own = Additions::of_file(path, &read(path)?, &command, &given)?;
        }
        // What the file has for an address or a port is no option, whatever it looks like.
        let end = (!rest.iter().any(|word| word == "--")).then(|| OsString::from("--"));
        let all =
            std::iter::once(&program).chain(&own.options).chain(&rest).chain(&end).chain(&own.positions);
        let matches = command.clone().try_get_matches_from(all).map_err(|error| own.blame(error))?;
        let args = Args::from_arg_matches(&matches).map_err(|error| own.blame(error))?;
        let settings = command.get_arguments().filter(|arg| is_setting(arg)).map(|arg| {
            let id = arg.get_id().as_str();
            let origin = match (own.source_of(id), matches.value_source(id)) {
                (Some(path), _) => Origin::File(path.to_owned()),
                (None, Some(ValueSource::CommandLine)) => Origin::Flag,
                (None, Some(ValueSource::EnvVariable)) => {
                    Origin::Environment(arg.get_env().unwrap_or_default().to_string_lossy().into_owned())
                }
                (None, _) => Origin::Default,
            };
            Setting { name: name_of(arg), value: value(arg, &matches), origin }
        });
        Ok(Self { settings: settings.collect(), args })
    }
}

/// Every setting, as a file could state it; with where it comes from.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Setting { name, value, origin } in &self.settings {
            let mut line = String::new();
            match value {
                Some(value) => write!(line, "{name} = {}", toml::Value::String(value.clone()))?,
                None => write!(line, "# {name}")?,
            }
            writeln!(f, "{line:<44} # {origin}")?;
        }
        Ok(())
    }
}

/// What a file adds to the command line.
#[derive(Debug, Default)]
struct Additions {
    path: PathBuf,
    ids: Vec<String>,
    options: Vec<OsString>,
    positions: Vec<OsString>,
}

impl Additions {
    fn of_file(
        path: &Path,
        table: &toml::Table,
        command: &clap::Command,
        given: &ArgMatches,
    ) -> Result<Self, LoadError> {
        let mut own = Self { path: path.to_owned(), ..Self::default() };
        let is_given = |id: &str| {
            matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        for (name, value) in table {
            let known = |arg: &&Arg| is_setting(arg) && name_of(arg) == name.replace('_', "-");
            let unknown = || LoadError::Unknown(path.to_owned(), name.clone());
            let arg = command.get_arguments().find(known).ok_or_else(unknown)?;
            let id = arg.get_id().as_str();
            let text = text(value).ok_or_else(|| LoadError::BadValue(path.to_owned(), name.clone()))?;
            let alternatives = ALTERNATIVES.into_iter().find(|ids| ids.contains(&id)).unwrap_or(&[]);
            if is_given(id) || alternatives.iter().any(|id| is_given(id)) {
                continue;
            }
            own.ids.push(id.to_owned());
            match arg.get_long() {
                None => {}
                Some(long) if matches!(arg.get_action(), ArgAction::SetTrue) => match text.as_str() {
                    "true" => own.options.push(format!("--{long}").into()),
                    "false" => {}
                    _ => return Err(LoadError::BadValue(path.to_owned(), name.clone())),
                },
                Some(long) => own.options.push(format!("--{long}={text}").into()),
            }
        }
        // In the command's order, whatever the file's.
        for arg in command.get_positionals().filter(|arg| own.ids.iter().any(|id| arg.get_id() == id)) {
            own.positions.extend(table.get(&name_of(arg)).and_then(text).map(OsString::from));
        }
        Ok(own)
    }

    fn source_of(&self, id: &str) -> Option<&Path> {
        self.ids.iter().any(|own| own == id).then_some(self.path.as_path())
    }

    /// A value of the file that clap does not take is the file's fault.
    fn blame(&self, error: clap::Error) -> LoadError {
        let text = error.to_string();
        let names =
            |id: &str| [format!("--{}", id.replace('_', "-")), format!("for '<{}>'", id.to_uppercase())];
        let of_file = self.ids.iter().any(|id| names(id).iter().any(|name| text.contains(name)));
        if of_file {
            let line = text.lines().next().unwrap_or_default();
            LoadError::InFile(self.path.clone(), line.trim_start_matches("error: ").to_owned())
        } else {
            error.into()
        }
    }
}

fn read(path: &Path) -> Result<toml::Table, LoadError> {
    let unreadable = |error| LoadError::Unreadable(path.to_owned(), error);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    if read.map_err(unreadable)? as u64 > FILE_BYTES_MAX {
        let too_long = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::FileTooLarge, too_long)));
    }
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<toml::Table, LoadError> {
    text.parse().map_err(|error| LoadError::NoToml(path.to_owned(), Box::new(error)))
}

/// A value as the command line has it.
fn text(value: &toml::Value) -> Option<String> {
    Some(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Array(values) => {
            let texts: Option<Vec<&str>> = values.iter().map(toml::Value::as_str).collect();
            texts?.join(",")
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

fn is_setting(arg: &Arg) -> bool {
    !matches!(arg.get_id().as_str(), "help" | "version" | "config")
}

fn name_of(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    let values: Vec<_> = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned()).collect();
    let value = values.join(",");
    Some(if SECRETS.contains(&id) { without_password(&value) } else { value })
}

/// An URL whose password is not shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last @: a password may hold one.
    let Some((login, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    if password.is_empty() { url.to_owned() } else { format!("{scheme}://{user}:***@{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads with a file, and some words after it.
    fn load(file: &str, words: &[&str]) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let words = ["chatserver", "--config", &path].into_iter().chain(words.iter().copied());
        Loaded::from_words(words.map(OsString::from))
            .map_err(|error| error.to_string().replace(&path, "FILE"))
    }

    fn origin(loaded: &Loaded, name: &str) -> &'static str {
        match loaded.settings.iter().find(|setting| setting.name == name).unwrap().origin {
            Origin::Default => "default",
            Origin::File(_) => "file",
            Origin::Environment(_) => "environment",
            Origin::Flag => "flag",
        }
    }

    /// It would be cut where a line may end.
    #[test]
    fn a_file_that_is_too_long_is_refused_whole() {
        let settings = "ip = \"127.0.0.1\"\nport = 6000\n";
        let comment = |bytes| settings.to_owned() + &"#\n".repeat((bytes - settings.len()) / 2) + "\n";
        let longest = comment(FILE_BYTES_MAX as usize - 1);
        assert_eq!(load(&longest[..FILE_BYTES_MAX as usize], &[]).unwrap().args.port, 6000);
        let refused = load(&(longest + "idle-timeout = 30\n"), &[]).unwrap_err();
        assert_eq!(refused, "FILE: longer than 1048576 bytes");
    }

    #[test]
    fn a_file_gives_what_was_not_said() {
        let file = r#"
            ip = "127.0.0.1"
            port = 6000
            idle-timeout = 60
            proxy_protocol = true
            exempt = ["10.0.0.0/8", "192.0.2.1"]
            session-requests = "10/s:20"
            data-dir = "/x"
        "#;
        let loaded = load(file, &["--idle-timeout", "30"]).unwrap();
        let config = loaded.args.node();
        assert_eq!((loaded.args.port, config.limits.idle_timeout_ms), (6000, 30_000));
        assert_eq!(config.rates.exempt.len(), 2);
        assert!(config.proxy_protocol);
        let origins = ["port", "idle-timeout", "exempt", "login-timeout"].map(|name| origin(&loaded, name));
        assert_eq!(origins, ["file", "flag", "file", "default"]);
        // What takes the place of a setting takes it whole.
        let loaded = load(file, &["--database", ":memory:"]).unwrap();
        assert_eq!(loaded.args.data_dir, None);
        // The port alone.
        assert_eq!(load("port = 7000", &["127.0.0.1"]).unwrap().args.port, 7000);
    }

    #[test]
    fn mistakes_are_named() {
        let address = "ip = '::1'\nport = 1\n";
        let mistakes = [
            (
                "idle-timeuot = 60",
                "FILE: there is no setting named idle-timeuot; chatserver config shows all",
            ),
            ("config = 'x'", "FILE: there is no setting named config; chatserver config shows all"),
            ("[limits]", "FILE: there is no setting named limits; chatserver config shows all"),
            ("exempt = [1]", "FILE: exempt is to be a text, a number, true, false, or a list of texts"),
            (
                "proxy-protocol = 1",
                "FILE: proxy-protocol is to be a text, a number, true, false, or a list of texts",
            ),
            ("log = 1979-05-27", "FILE: log is to be a text, a number, true, false, or a list of texts"),
            (
                "idle-timeout = 0",
                "FILE: invalid value '0' for '--idle-timeout <SECONDS>': 0.1 to 86400 seconds",
            ),
        ];
        for (line, error) in mistakes {
            assert_eq!(load(&format!("{address}{line}"), &[]).unwrap_err(), error, "{line}");
        }
        let no_address = load("ip = '--help'\nport = 1", &[]).unwrap_err();
        assert!(no_address.starts_with("FILE: invalid value '--help' for '<IP>'"), "{no_address}");
        assert!(load("port = ", &[]).unwrap_err().contains("line 1"));
        assert!(load("", &[]).unwrap_err().contains("required"));
        let absent = Loaded::from_words(["chatserver", "--config", "/does/not/exist"].map(OsString::from));
        assert!(absent.unwrap_err().to_string().starts_with("/does/not/exist: "));
    }

    #[test]
    fn what_is_shown_can_be_a_file() {
        let shown = load("", &["127.0.0.1", "6000", "--exempt", "10.0.0.0/8", "--proxy-protocol"]).unwrap();
        let again = load(&shown.to_string(), &[]).unwrap();
        let values = |loaded: &Loaded| -> Vec<_> {
            loaded.settings.iter().map(|setting| (setting.name.clone(), setting.value.clone())).collect()
        };
        assert_eq!(values(&again), values(&shown));
    }

    #[test]
    fn passwords_are_not_shown() {
        let loaded =
            load("database = 'mysql://kirito:as:un@a@db/chat'", &["::1", "1", "--redis", "redis://:pina@r"]);
        let shown = loaded.unwrap().to_string();
        assert!(shown.contains("mysql://kirito:***@db/chat") && shown.contains("redis://:***@r"), "{shown}");
        assert!(!shown.contains("pina") && !shown.contains("as:un"), "{shown}");
    }
}
