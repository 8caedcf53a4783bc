//! JSON that is passed on and not looked into.

use std::sync::Arc;

use serde::Serialize;

use super::{Error, Json, Result};

/// JSON as the text it is stored as. It is made once, and a copy of it is a reference: a document that goes into several
/// rows is printed once, and no tree of it is built, copied or taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(Arc<str>);

impl JsonText {
    /// The text of whatever can be one.
    ///
    /// Errors: a value that JSON has no form for, which is a fault of the server.
    pub fn of(value: &impl Serialize) -> Result<JsonText> {
        Ok(JsonText(serde_json::to_string(value).map_err(Error::internal)?.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Json> for JsonText {
    fn from(json: Json) -> JsonText {
        JsonText(json.to_string().into())
    }
}
