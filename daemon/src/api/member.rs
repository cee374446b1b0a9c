//! The members of requests: name, what each must be and what it means, said once for the checks and for the OpenAPI document.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object as Definition, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};

use crate::config::LONGEST_URI;

/// Characters of a key stream ID: of the forms that Uuid reads, only the one with four hyphens is that long.
pub(super) const STREAM_ID_LENGTH: usize = 36;

/// A member of an object in a request.
pub(super) struct Member<K> {
    pub(super) name: &'static str,
    pub(super) kind: K,
    /// Unit and meaning.
    pub(super) about: &'static str,
}

/// An absolute URI, which must be there.
pub(super) struct Uri;

/// A key stream ID, which must be there.
pub(super) struct StreamId;

/// A key stream ID or null, which must be there.
pub(super) struct StreamIdOrNull;

/// A whole number of 32 bits, which may be absent or null.
pub(super) struct Number {
    pub(super) least: u32,
}

/// A string, which may be absent or null.
pub(super) struct Text;

/// An object. One that is not required may be null.
pub(super) struct Object {
    pub(super) required: bool,
    /// What stands before its members' names in a refusal.
    pub(super) prefix: &'static str,
    pub(super) members: &'static [&'static dyn Described],
}

/// A member as a document tells of it.
pub(super) trait Described {
    /// Its name, and whether it must be there.
    fn head(&self) -> (&'static str, bool);

    /// What it must be.
    fn schema(&self) -> RefOr<Schema>;
}

impl Described for Member<Uri> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, true)
    }

    fn schema(&self) -> RefOr<Schema> {
        uri(self.about).into()
    }
}

impl Described for Member<StreamId> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, true)
    }

    fn schema(&self) -> RefOr<Schema> {
        stream_id(self.about).into()
    }
}

impl Described for Member<StreamIdOrNull> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, true)
    }

    fn schema(&self) -> RefOr<Schema> {
        or_null(stream_id(self.about), Type::String).into()
    }
}

impl Described for Member<Number> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, false)
    }

    fn schema(&self) -> RefOr<Schema> {
        or_null(number(self.kind.least, self.about), Type::Integer).into()
    }
}

impl Described for Member<Text> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, false)
    }

    fn schema(&self) -> RefOr<Schema> {
        or_null(text(self.about), Type::String).into()
    }
}

impl Described for Member<Object> {
    fn head(&self) -> (&'static str, bool) {
        (self.name, self.kind.required)
    }

    fn schema(&self) -> RefOr<Schema> {
        let object = object(self.kind.members, self.about);
        if self.kind.required { object.into() } else { or_null(object, Type::Object).into() }
    }
}

/// An object with these members; others are ignored.
pub(super) fn object(members: &[&dyn Described], about: &str) -> Definition {
    let object = ObjectBuilder::new().description(Some(about));
    members
        .iter()
        .fold(object, |object, member| {
            let (name, required) = member.head();
            let object = object.property(name, member.schema());
            if required { object.required(name) } else { object }
        })
        .build()
}

/// An absolute URI.
pub(super) fn uri(about: &str) -> Definition {
    string(about).format(Some(SchemaFormat::Custom("uri".to_owned()))).max_length(Some(LONGEST_URI)).build()
}

/// A key stream ID.
pub(super) fn stream_id(about: &str) -> Definition {
    string(about)
        .format(Some(SchemaFormat::Custom("uuid".to_owned())))
        .min_length(Some(STREAM_ID_LENGTH))
        .max_length(Some(STREAM_ID_LENGTH))
        .build()
}

/// A whole number of 32 bits.
pub(super) fn number(least: u32, about: &str) -> Definition {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(u32::MAX))
        .description(Some(about))
        .build()
}

/// Any string.
pub(super) fn text(about: &str) -> Definition {
    string(about).build()
}

fn string(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about))
}

fn or_null(mut definition: Definition, or: Type) -> Definition {
    definition.schema_type = SchemaType::Array(vec![or, Type::Null]);
    definition
}
