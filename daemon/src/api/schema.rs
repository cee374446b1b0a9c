//! Checks of a request's members. Every refusal names the member and what it must be.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::json::Json;
use crate::config::check_uri;

/// A member that is not what it must be, as a sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SchemaError(String);

/// The members of one object.
pub(super) struct Members {
    prefix: &'static str,
    members: BTreeMap<String, Json>,
}

impl Members {
    /// The members of the object that is the request's body.
    pub(super) fn of_body(body: Json) -> Result<Self, SchemaError> {
        match body {
            Json::Object(members) => Ok(Self { prefix: "", members }),
            other => Err(SchemaError(format!("the body must be a JSON object; it is {}", other.kind()))),
        }
    }

    /// A member that must be there and be an object; `prefix` is its name with a dot.
    pub(super) fn object(&mut self, name: &str, prefix: &'static str) -> Result<Self, SchemaError> {
        self.must_have(name, "an object")?;
        self.optional_object(name, prefix)?.ok_or_else(|| self.wrong(name, "an object", "null"))
    }

    /// An object, if there is one.
    pub(super) fn optional_object(
        &mut self,
        name: &str,
        prefix: &'static str,
    ) -> Result<Option<Self>, SchemaError> {
        match self.take(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Object(members)) => Ok(Some(Self { prefix, members })),
            Some(other) => Err(self.wrong(name, "an object", other.kind())),
        }
    }

    /// A whole number of 32 bits that is at least `least`, if there is one.
    pub(super) fn optional_u32(&mut self, name: &str, least: u32) -> Result<Option<u32>, SchemaError> {
        let is = match self.take(name) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::Natural(number)) => match u32::try_from(number) {
                Ok(number) if number >= least => return Ok(Some(number)),
                _ => number.to_string(),
            },
            Some(other) => other.kind().to_owned(),
        };
        Err(self.wrong(name, &format!("a whole number from {least} to {}", u32::MAX), &is))
    }

    /// A string, if there is one.
    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, SchemaError> {
        match self.take(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", other.kind())),
        }
    }

    /// A member that must be there and be an absolute URI.
    pub(super) fn uri(&mut self, name: &str) -> Result<String, SchemaError> {
        const WHAT: &str = "an absolute URI as a string";
        self.must_have(name, WHAT)?;
        match self.take(name) {
            Some(Json::Text(uri)) => match check_uri(&uri) {
                Ok(()) => Ok(uri),
                Err(why) => Err(SchemaError(format!("{}{name} must be {WHAT}: {why}", self.prefix))),
            },
            other => Err(self.wrong(name, WHAT, other.map_or("null", |o| o.kind()))),
        }
    }

    /// A member that must be there and be a key stream ID.
    pub(super) fn key_stream_id(&mut self) -> Result<Uuid, SchemaError> {
        const WHAT: &str = "a UUID such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
        self.must_have("key_stream_id", WHAT)?;
        self.uuid_or_null(WHAT)?.ok_or_else(|| self.wrong("key_stream_id", WHAT, "null"))
    }

    /// A member that must be there and be a key stream ID or null.
    pub(super) fn key_stream_id_or_null(&mut self) -> Result<Option<Uuid>, SchemaError> {
        const WHAT: &str = "null or a UUID such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
        self.must_have("key_stream_id", WHAT)?;
        self.uuid_or_null(WHAT)
    }

    fn uuid_or_null(&mut self, what: &str) -> Result<Option<Uuid>, SchemaError> {
        match self.take("key_stream_id") {
            None | Some(Json::Null) => Ok(None),
            // 36 characters: of the forms that Uuid reads, only the one with four hyphens is that long.
            Some(Json::Text(text)) => match Uuid::try_parse(&text) {
                Ok(uuid) if text.len() == 36 => Ok(Some(uuid)),
                _ => Err(self.wrong("key_stream_id", what, "another string")),
            },
            Some(other) => Err(self.wrong("key_stream_id", what, other.kind())),
        }
    }

    /// Refuses an object that lacks the member, whatever its value may be.
    fn must_have(&self, name: &str, what: &str) -> Result<(), SchemaError> {
        if self.members.contains_key(name) {
            Ok(())
        } else {
            Err(SchemaError(format!("{}{name} is missing: it must be {what}", self.prefix)))
        }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        self.members.remove(name)
    }

    fn wrong(&self, name: &str, what: &str, is: &str) -> SchemaError {
        SchemaError(format!("{}{name} must be {what}; it is {is}", self.prefix))
    }
}
