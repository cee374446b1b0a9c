//! Checks of a request's members. Every refusal names the member and what it must be.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::json::Json;
use super::member::{Member, Number, Object, STREAM_ID_LENGTH, StreamId, StreamIdOrNull, Text, Uri};
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

    /// An object's members; those of an empty one where it is absent or null and may be.
    pub(super) fn object(&mut self, member: &Member<Object>) -> Result<Self, SchemaError> {
        const WHAT: &str = "an object";
        let (name, Object { required, prefix, .. }) = (member.name, &member.kind);
        if *required {
            self.must_have(name, WHAT)?;
        }
        match self.take(name) {
            None => Ok(Self { prefix, members: BTreeMap::new() }),
            Some(Json::Null) if !required => Ok(Self { prefix, members: BTreeMap::new() }),
            Some(Json::Object(members)) => Ok(Self { prefix, members }),
            Some(other) => Err(self.wrong(name, WHAT, other.kind())),
        }
    }

    /// A whole number of 32 bits, if there is one.
    pub(super) fn number(&mut self, member: &Member<Number>) -> Result<Option<u32>, SchemaError> {
        let (name, least) = (member.name, member.kind.least);
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
    pub(super) fn text(&mut self, member: &Member<Text>) -> Result<Option<String>, SchemaError> {
        match self.take(member.name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(member.name, "a string", other.kind())),
        }
    }

    /// A member that must be there and be an absolute URI.
    pub(super) fn uri(&mut self, member: &Member<Uri>) -> Result<String, SchemaError> {
        const WHAT: &str = "an absolute URI as a string";
        let name = member.name;
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
    pub(super) fn stream_id(&mut self, member: &Member<StreamId>) -> Result<Uuid, SchemaError> {
        const WHAT: &str = "a UUID such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
        self.must_have(member.name, WHAT)?;
        self.uuid_or_null(member.name, WHAT)?.ok_or_else(|| self.wrong(member.name, WHAT, "null"))
    }

    /// A member that must be there and be a key stream ID or null.
    pub(super) fn stream_id_or_null(
        &mut self,
        member: &Member<StreamIdOrNull>,
    ) -> Result<Option<Uuid>, SchemaError> {
        const WHAT: &str = "null or a UUID such as \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"";
        self.must_have(member.name, WHAT)?;
        self.uuid_or_null(member.name, WHAT)
    }

    fn uuid_or_null(&mut self, name: &str, what: &str) -> Result<Option<Uuid>, SchemaError> {
        match self.take(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Text(text)) => match Uuid::try_parse(&text) {
                Ok(uuid) if text.len() == STREAM_ID_LENGTH => Ok(Some(uuid)),
                _ => Err(self.wrong(name, what, "another string")),
            },
            Some(other) => Err(self.wrong(name, what, other.kind())),
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
