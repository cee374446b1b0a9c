//! As much of JSON Schema as the published schemas use.

use serde_json::Value;

/// Holds a value against a schema.
///
/// # Panics
/// Where it does not fit, or the schema uses what is not known here.
pub fn check(value: &Value, schema: &Value) {
    let known = [
        "$schema",
        "title",
        "description",
        "type",
        "required",
        "additionalProperties",
        "properties",
        "items",
        "enum",
    ];
    for keyword in schema.as_object().expect("a schema").keys() {
        assert!(known.contains(&keyword.as_str()), "{keyword} is not checked here");
    }
    let fits = match schema["type"].as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{other} is not checked here"),
    };
    assert!(fits, "{value} is no {}", schema["type"]);
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{value} is none of {allowed:?}");
    }
    for member in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(member.as_str().expect("a name")).is_some(), "{member} is missing in {value}");
    }
    for (name, inside) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => check(inside, schema),
            None => assert_ne!(schema["additionalProperties"], false, "{name} is not described"),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(item, &schema["items"]);
    }
}
