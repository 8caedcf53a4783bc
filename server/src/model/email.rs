//! An e-mail address that is one.

use std::fmt;

use super::{Error, Result};

/// An e-mail address in lower case: two spellings of one address are one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Trims and lowers `text`. `field` names it in the error. The address's form is the contract's to check.
    pub fn parse(text: &str, field: &'static str) -> Result<Email> {
        let text = text.trim().to_lowercase();
        let parts = text.split_once('@');
        if parts.is_none_or(|(local, host)| local.is_empty() || host.is_empty()) || text.len() > 255 {
            return Err(Error::invalid(field, "must be an e-mail address"));
        }
        Ok(Email(text))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
