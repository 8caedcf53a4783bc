//! What an integration proves itself with at its provider, opened. It never leaves memory unsealed, and nothing prints it.

use std::fmt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::{Error, Json, Result};

/// Digest of a secret path, in hex: what a call is compared with, so that nothing has to be opened for it.
pub fn callback_digest(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

/// Credentials by name, and the secret path of the provider's callbacks where it signs nothing.
#[derive(Clone, Default, PartialEq)]
pub struct Credentials {
    values: Map<String, Json>,
    callback_token: Option<String>,
}

impl Credentials {
    /// Credentials of these values.
    pub fn new(values: Map<String, Json>, callback_token: Option<String>) -> Credentials {
        Credentials { values, callback_token }
    }

    /// Reads what [`Credentials::to_bytes`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Credentials> {
        // What is wrong with it is not told: the parser's words would quote it.
        let unreadable = || Error::internal("credentials were sealed in a form that is not known");
        let Ok(Value::Object(mut sealed)) = serde_json::from_slice(bytes) else { return Err(unreadable()) };
        let Some(Value::Object(values)) = sealed.remove("credentials") else { return Err(unreadable()) };
        let callback_token = match sealed.remove("callbackToken") {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) => Some(token),
            Some(_) => return Err(unreadable()),
        };
        Ok(Credentials { values, callback_token })
    }

    /// What is sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sealed = json!({ "credentials": self.values });
        if let Some(token) = &self.callback_token {
            sealed["callbackToken"] = json!(token);
        }
        sealed.to_string().into_bytes()
    }

    /// A credential that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    /// A credential that is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.values.get(name)?.as_u64()
    }

    /// The secret at the end of the callbacks' path.
    pub fn callback_token(&self) -> Option<&str> {
        self.callback_token.as_deref()
    }

    /// Everything by name.
    pub fn values(&self) -> &Map<String, Json> {
        &self.values
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_they_were_written_and_print_nothing() {
        let values = json!({ "host": "mail.example", "port": 587, "password": "hunter22" });
        let Value::Object(values) = values else { unreachable!() };
        for token in [None, Some("path".to_owned())] {
            let credentials = Credentials::new(values.clone(), token.clone());
            let read = Credentials::parse(&credentials.to_bytes()).unwrap();
            assert_eq!(read, credentials);
            assert_eq!((read.text("password"), read.number("port")), (Some("hunter22"), Some(587)));
            assert_eq!((read.text("port"), read.text("other"), read.callback_token()), (None, None, token.as_deref()));
            assert_eq!(format!("{read:?}"), "Credentials(…)");
        }
    }

    #[test]
    fn what_is_not_credentials_is_a_fault_that_quotes_nothing() {
        for bytes in [&b""[..], b"hunter22", b"{}", b"{\"credentials\":\"hunter22\"}", b"\xff"] {
            let error = Credentials::parse(bytes).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter22"));
        }
    }
}
