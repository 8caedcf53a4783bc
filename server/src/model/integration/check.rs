//! What somebody gives to configure an integration: whether it is what the provider takes, how it joins what is held,
//! and what may be shown of it. An error names the field and never what is in it.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::Provider;
use super::catalogue::{CredentialSpec, Form};
use super::credentials::Credentials;
use crate::model::outward::{NotCallable, Outward};
use crate::model::{Error, Json, Result};

/// What stands for a secret, before its last characters.
pub const MASK: &str = "••••";
/// Characters of a secret that are shown.
const SHOWN: usize = 4;
/// Secrets shorter than this show nothing: what is left to guess would be too little.
const LEAST_TO_SHOW: usize = 12;
/// Longest key, in characters.
const LONGEST_KEY: usize = 500;
/// Longest line of text, in characters.
const LONGEST_LINE: usize = 255;

/// Credentials as they are after somebody gave some.
#[derive(Debug)]
pub struct Merged {
    /// All of them.
    pub credentials: Credentials,
    /// The names of those that are other than before.
    pub changed: Vec<&'static str>,
}

/// Joins what is given with what is held: what is not named, or comes as it was shown, stays; `null` removes what is
/// optional.
pub fn merge(provider: Provider, held: &Credentials, given: &Credentials, outward: &dyn Outward) -> Result<Merged> {
    let spec = provider.spec();
    if let Some(unknown) = given.values().keys().find(|name| spec.credentials.iter().all(|one| one.name != **name)) {
        return Err(unknown_name(provider, unknown));
    }
    let (mut values, mut changed) = (Map::new(), Vec::new());
    for credential in spec.credentials {
        let (before, now) = (held.values().get(credential.name), given.values().get(credential.name));
        let after = match now {
            None => before.cloned(),
            Some(Value::Null) => None,
            Some(now) if before.is_some_and(|before| *now == masked(credential, before)) => before.cloned(),
            Some(now) => Some(checked(credential, now, outward)?),
        };
        if after.is_none() && credential.required {
            return Err(wrong(credential, "is required"));
        }
        if after.as_ref() != before {
            changed.push(credential.name);
        }
        values.extend(after.map(|after| (credential.name.to_owned(), after)));
    }
    Ok(Merged { credentials: Credentials::new(values, held.callback_token().map(str::to_owned)), changed })
}

/// What may be shown of credentials.
pub fn shown(provider: Provider, credentials: &Credentials) -> Json {
    let specs = provider.spec().credentials.iter();
    let shown = specs.filter_map(|spec| {
        let value = credentials.values().get(spec.name)?;
        Some((spec.name.to_owned(), masked(spec, value)))
    });
    Value::Object(shown.collect())
}

fn masked(spec: &CredentialSpec, value: &Json) -> Json {
    match value {
        Value::String(text) if spec.secret => {
            let length = text.chars().count();
            let shown = if length < LEAST_TO_SHOW { 0 } else { SHOWN };
            Value::String(MASK.chars().chain(text.chars().skip(length - shown)).collect())
        }
        _ if spec.secret => Value::String(MASK.to_owned()),
        value => value.clone(),
    }
}

fn wrong(spec: &CredentialSpec, what: impl Into<String>) -> Error {
    Error::invalid(format!("credentials.{}", spec.name), what)
}

/// Names the member when it can be a name: one who mixed up names and values must not find the value in a log.
fn unknown_name(provider: Provider, name: &str) -> Error {
    let spec = provider.spec();
    let taken: Vec<_> = spec.credentials.iter().map(|one| one.name).collect();
    let description = format!("is not a credential of {}, which takes {}", spec.name, taken.join(", "));
    let is_name = name.len() <= 20 && !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_alphabetic());
    match is_name {
        true => Error::invalid(format!("credentials.{name}"), description),
        false => Error::invalid("credentials", format!("has a member that {description}")),
    }
}

/// A value in the form that is kept.
fn checked(spec: &CredentialSpec, value: &Json, outward: &dyn Outward) -> Result<Json> {
    if spec.form == Form::Port {
        let port = value.as_u64().filter(|port| (1..=65_535).contains(port));
        return port.map(Json::from).ok_or_else(|| wrong(spec, "must be a number from 1 to 65535"));
    }
    let text = value.as_str().ok_or_else(|| wrong(spec, "must be text"))?;
    if text.is_empty() {
        return Err(wrong(
            spec,
            if spec.required { "must not be empty" } else { "must not be empty; null removes it" },
        ));
    }
    if spec.secret && text.starts_with(MASK) {
        return Err(wrong(spec, "is masked, and not as it was shown; give the credential itself or leave it out"));
    }
    let problem = match spec.form {
        Form::Host => {
            return match outward.judge_host(text) {
                Ok(host) if host.len() <= LONGEST_LINE => Ok(Json::String(host)),
                Ok(_) => Err(wrong(spec, NotCallable::MalformedHost.to_string())),
                Err(why) => Err(wrong(spec, why.to_string())),
            };
        }
        Form::Choice if !spec.choices.contains(&text) => {
            return Err(wrong(spec, format!("must be one of {}", spec.choices.join(", "))));
        }
        Form::Key | Form::SecretKey | Form::AccountSid if !is_key(text) => {
            Some("must be at most 500 visible ASCII characters without spaces")
        }
        Form::SecretKey if text.starts_with("pk_") => {
            Some("is a publishable key; give a secret key (sk_…) or a restricted one (rk_…)")
        }
        Form::AccountSid if !is_account_sid(text) => Some("must be AC and 32 hexadecimal digits"),
        Form::Mailbox if !is_mailbox(text) => Some("must be an e-mail address"),
        Form::Password if text.chars().count() > LONGEST_KEY || text.chars().any(char::is_control) => {
            Some("must be at most 500 characters, none of them a control character")
        }
        Form::Line if !is_line(text) => {
            Some("must be at most 255 characters, without control characters and without spaces around them")
        }
        _ => None,
    };
    problem.map_or_else(|| Ok(value.clone()), |problem| Err(wrong(spec, problem)))
}

/// What fits into a header as it is.
fn is_key(text: &str) -> bool {
    text.len() <= LONGEST_KEY && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_line(text: &str) -> bool {
    text.trim() == text && text.chars().count() <= LONGEST_LINE && !text.chars().any(char::is_control)
}

fn is_account_sid(text: &str) -> bool {
    let digits = text.strip_prefix("AC").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn is_mailbox(text: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|letter: char| letter.is_whitespace() || letter.is_control() || "<>,;\"".contains(letter))
    };
    let parts = text.rsplit_once('@');
    text.len() <= LONGEST_LINE
        && parts.is_some_and(|(local, host)| is_plain(local) && is_plain(host) && !local.contains('@'))
}
