//! Reading configuration: every problem is reported at once and names its variable, never its value. What the variables
//! are is each server's own; this is the only room that reads the environment.
//!
//! The real environment wins over `.env.<environment>`, that over `.env.local`, that over `.env`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::distr::Alphanumeric;

use crate::model::address::Networks;
use crate::serve::Tls;
use crate::storage::dialect::{Dialect, create_private_directory};

/// Shortest secret, in bytes: 32 are as strong as the HMAC they key.
pub const SECRET_BYTES: usize = 32;

/// A value that cannot be printed.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps a value from being printed.
    pub fn new(value: impl Into<Arc<str>>) -> Secret {
        Secret(value.into())
    }

    /// The value, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value, for those who keep it.
    pub fn share(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Each of them, beginning with the name of its variable.
    pub fn list(&self) -> &[String] {
        &self.0
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// The variables of this process and of the `.env` files of the working directory; the one named `environment` says which
/// `.env.<environment>` is read, `development` when nobody says.
pub fn gather(environment: &str) -> anyhow::Result<BTreeMap<String, String>> {
    // An empty value counts as unset, so that it hides nothing a weaker source sets.
    let process: BTreeMap<String, String> = std::env::vars().filter(|(_, value)| !value.is_empty()).collect();
    let mut variables = BTreeMap::new();
    read_file(".env", &mut variables)?;
    read_file(".env.local", &mut variables)?;
    let named = process.get(environment).or(variables.get(environment));
    let environment = named.map_or_else(|| "development".to_owned(), String::clone);
    read_file(&format!(".env.{environment}"), &mut variables)?;
    variables.extend(process);
    Ok(variables)
}

fn read_file(file: &str, variables: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    if !Path::new(file).exists() {
        return Ok(());
    }
    for entry in dotenvy::from_path_iter(file)? {
        // The error of a line repeats the line, which may hold a secret.
        let (name, value) = entry.map_err(|_| anyhow::anyhow!("{file} has a line that is not NAME=value"))?;
        if !value.is_empty() {
            variables.insert(name, value);
        }
    }
    Ok(())
}

/// Those of `names` that this process has, for programs it starts and gives nothing else.
pub fn inherited(names: &[&str]) -> Vec<(String, OsString)> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?))).collect()
}

/// The program that runs, for starting it once more.
pub fn executable() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Secrets made for development live here, readable by their owner alone.
pub fn secrets_file(data: &Path) -> PathBuf {
    data.join("secrets.env")
}

/// The file of secrets, made when there is none, for this process alone until it is closed.
fn lock_secrets(data: &Path) -> std::io::Result<File> {
    create_private_directory(data)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(secrets_file(data))?;
    file.lock()?;
    Ok(file)
}

fn keep(mut file: File, made: &BTreeMap<&'static str, String>) -> std::io::Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    // In one piece, so that somebody who only reads finds whole lines.
    let lines: String = made.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

/// Values that examples print and nobody should run with.
pub fn is_placeholder(value: &str) -> bool {
    let lowered = value.to_lowercase();
    lowered.starts_with("your") || lowered.contains("changeme") || lowered.contains("change-me")
}

/// Reads variables into what a server is told, and remembers what is wrong with them.
pub struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: Vec<String>,
    made: BTreeMap<&'static str, String>,
    data: &'a Path,
    /// The file of secrets, from the first that was not in it until the end: of two servers that start in one empty
    /// directory at once, one makes the secrets and the other waits for them.
    secrets: Option<std::io::Result<File>>,
}

impl<'a> Reader<'a> {
    /// Reads `variables`. Secrets that development may lack are made once and kept in `data`.
    pub fn new(variables: &'a BTreeMap<String, String>, data: &'a Path) -> Reader<'a> {
        Reader { variables, problems: Vec::new(), made: BTreeMap::new(), data, secrets: None }
    }

    /// Ends the reading, and keeps the secrets it made when nothing is wrong.
    ///
    /// Errors: every problem that was found.
    pub fn finish(self) -> Result<(), Problems> {
        let Reader { mut problems, made, data, secrets, .. } = self;
        if problems.is_empty()
            && let Some(secrets) = secrets
            && let Err(error) = secrets.and_then(|file| keep(file, &made))
        {
            problems.push(format!("{}: the secrets made for development cannot be kept: {error}", data.display()));
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Notes what is wrong with a variable; the value that stands in for it is never used.
    pub fn problem<T: Default>(&mut self, name: &str, what: &str) -> T {
        self.problems.push(format!("{name} {what}"));
        T::default()
    }

    /// An empty variable counts as unset, so that a copied `.env.example` means its defaults.
    pub fn optional(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// A variable's text, or what it means to say nothing.
    pub fn text(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// A variable as a value of another type; `what` says what it must be.
    pub fn parse<T: std::str::FromStr>(&mut self, name: &str, default: &str, what: &str) -> T {
        match self.text(name, default).parse() {
            Ok(value) => value,
            Err(_) => {
                self.problem::<()>(name, what);
                default.parse().unwrap_or_else(|_| unreachable!("the default of {name} parses"))
            }
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let what = format!("must be a whole number from {least} to {most}");
        let value = self.parse(name, &default.to_string(), &what);
        if (least..=most).contains(&value) {
            return value;
        }
        self.problem::<()>(name, &what);
        default
    }

    /// A time in whole seconds, within bounds.
    pub fn seconds(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_secs(self.number(name, default, least, most))
    }

    /// A time in whole milliseconds, within bounds.
    pub fn millis(&mut self, name: &str, default: u64, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.number(name, default, least, most))
    }

    /// A truth.
    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, if default { "true" } else { "false" }, "must be true or false")
    }

    /// One of some words, by default the first.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let (first, default) = choices[0];
        let text = self.text(name, first);
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.problem::<()>(name, &format!("must be {}", words.join(" or ")));
                default
            }
        }
    }

    /// Networks and addresses of peers.
    pub fn networks(&mut self, name: &str) -> Networks {
        let read = Networks::parse(&self.text(name, ""));
        read.unwrap_or_else(|| {
            self.problem(name, "must be addresses or networks such as 10.0.0.0/8 separated by commas")
        })
    }

    /// Where a database is.
    pub fn database(&mut self, name: &str, default: &str) -> Secret {
        let url = self.text(name, default);
        if Dialect::of(&url).is_err() {
            self.problem::<()>(name, "must be sqlite://<file>?mode=rwc or postgres://<user>@<host>/<database>");
        }
        Secret::new(url)
    }

    /// A certificate and its key, by the names of the variables that name their files; both or neither.
    pub fn tls(&mut self, certificate: &str, key: &str) -> Option<Tls> {
        match (self.optional(certificate), self.optional(key)) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => self.problem(key, &format!("is required with {certificate}")),
            (None, Some(_)) => self.problem(certificate, &format!("is required with {key}")),
        }
    }

    /// Origins of browsers, separated by commas, or `off`.
    pub fn origins(&mut self, name: &str, default: &str) -> Vec<String> {
        let text = self.text(name, default);
        if text == "off" {
            return Vec::new();
        }
        let origins: BTreeSet<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
        if origins.iter().any(|origin| {
            !origin.contains("://") || origin.contains('*') || origin.parse::<http::HeaderValue>().is_err()
        }) {
            return self.problem(name, "must be off, or origins such as https://app.digiup.com separated by commas");
        }
        origins.into_iter().collect()
    }

    /// A secret: given, made earlier, or made now; in production it must be given.
    pub fn secret(&mut self, name: &'static str, production: bool) -> Secret {
        if let Some(value) = self.optional(name) {
            if production && (is_placeholder(&value) || value.len() < SECRET_BYTES) {
                self.problem::<()>(
                    name,
                    &format!("must be a secret of at least {SECRET_BYTES} bytes, not a placeholder"),
                );
            }
            return Secret(value.into());
        }
        if production {
            self.problem::<()>(name, "is required in production");
            return Secret("".into());
        }
        let value = self.kept(name).or_else(|| {
            self.secrets.get_or_insert_with(|| lock_secrets(self.data));
            self.kept(name)
        });
        let value = value.unwrap_or_else(|| {
            let made: String = rand::rng().sample_iter(Alphanumeric).take(48).map(char::from).collect();
            self.made.insert(name, made.clone());
            made
        });
        Secret(value.into())
    }

    /// A secret that was made earlier.
    fn kept(&self, name: &str) -> Option<String> {
        let entries = dotenvy::from_path_iter(secrets_file(self.data)).ok()?;
        entries.filter_map(Result::ok).find(|(kept, _)| kept == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// The two servers' secrets: two they share, and one of the hub's own.
    const HUB: &[&str] = &["JWT_SECRET", "CREATORUP_API_KEY", "WEBHOOK_SECRET"];
    const CREATORUP: &[&str] = &["CREATORUP_API_KEY", "WEBHOOK_SECRET"];

    #[test]
    fn two_that_start_in_an_empty_directory_at_once_have_the_same_secrets() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let data = directory.path().join("data");
            let together = Barrier::new(2);
            let start = |names: &[&'static str]| {
                let variables = BTreeMap::new();
                let mut reader = Reader::new(&variables, &data);
                together.wait();
                let secrets: Vec<Secret> = names.iter().map(|name| reader.secret(name, false)).collect();
                reader.finish().unwrap();
                secrets.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
            };
            let (hub, creatorup) = std::thread::scope(|threads| {
                let hub = threads.spawn(|| start(HUB));
                let creatorup = start(CREATORUP);
                (hub.join().unwrap(), creatorup)
            });
            assert_eq!(hub[1..], creatorup);
            let kept = std::fs::read_to_string(secrets_file(&data)).unwrap();
            assert_eq!(kept.lines().count(), HUB.len(), "each is there once");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(secrets_file(&data)).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }
}
