//! A JSON text as the schema checks need it: no member twice, lists checked and dropped.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::config::excerpt;

/// A JSON value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    Null,
    Flag,
    /// Written without fraction and exponent, and not negative.
    Natural(u64),
    Negative,
    /// Written with fraction or exponent, or beyond 64 bits.
    OtherNumber,
    Text(String),
    /// No list is part of the interface, so what stands in it is not kept.
    List,
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// What kind of value this is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag => "true or false",
            Self::Natural(_) => "a number",
            Self::Negative => "a negative number",
            Self::OtherNumber => "a number with a fraction, an exponent or too many digits",
            Self::Text(_) => "a string",
            Self::List => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a text is not JSON, as a sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body must be one JSON object in UTF-8: {0}")]
pub(super) struct NotJson(String);

/// Reads one JSON value that is the whole text. Nesting is bounded.
pub(super) fn parse(text: &[u8]) -> Result<Json, NotJson> {
    if text.is_empty() {
        return Err(NotJson(
            "it is empty; a client that cannot send a body with GET may use POST".to_owned(),
        ));
    }
    if text.starts_with(b"\xEF\xBB\xBF") {
        return Err(NotJson("it begins with a byte order mark".to_owned()));
    }
    let text =
        str::from_utf8(text).map_err(|e| NotJson(format!("octet {} is not UTF-8", e.valid_up_to())))?;
    serde_json::from_str(text).map_err(|e| NotJson(e.to_string()))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Flag)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Natural(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Negative, Json::Natural))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        while list.next_element::<Json>()?.is_some() {}
        Ok(Json::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = object.next_key::<String>()? {
            match members.entry(name) {
                Entry::Occupied(twice) => {
                    return Err(A::Error::custom(format!(
                        "member \"{}\" stands twice",
                        excerpt(twice.key())
                    )));
                }
                Entry::Vacant(place) => {
                    place.insert(object.next_value::<Json>()?);
                }
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn member_that_stands_twice_at_any_depth_is_refused() {
        assert!(wrong(r#"{"a":1,"a":1}"#).contains("\"a\" stands twice"));
        assert!(wrong(r#"{"x":[{"b":1,"b":2}]}"#).contains("\"b\" stands twice"));
        // The same name written with an escape.
        assert!(wrong(r#"{"a":1,"\u0061":2}"#).contains("stands twice"));
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_overflow() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
            assert!(wrong(&deep).contains("recursion limit"), "{open}");
        }
    }

    #[test]
    fn what_is_not_one_json_text_is_refused() {
        assert!(wrong("").contains("empty"));
        assert!(wrong("\u{feff}{}").contains("byte order mark"));
        assert!(wrong("{} {}").contains("trailing"));
        assert!(parse(b"{\"a\":\"\xff\"}").unwrap_err().to_string().contains("octet 6 is not UTF-8"));
        for text in
            ["{", "{\"a\"}", "{'a':1}", "{\"a\":1,}", "nul", "{\"a\":01}", "{\"a\":NaN}", "{\"a\":1e999}"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_what_the_schema_asks_for() {
        assert_eq!(parse(b"18446744073709551615"), Ok(Json::Natural(u64::MAX)));
        assert_eq!(parse(b"18446744073709551616"), Ok(Json::OtherNumber));
        assert_eq!(parse(b"-1"), Ok(Json::Negative));
        assert_eq!(parse(b"1.0"), Ok(Json::OtherNumber));
        assert_eq!(parse(b"1e3"), Ok(Json::OtherNumber));
    }
}
