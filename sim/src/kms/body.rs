//! Reads the body of a `key-material` request.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

/// What a `key-material` request says. The key is still base64.
pub(crate) struct KeyMaterial<'a> {
    /// Zero with key, else what the module has to tell.
    pub(crate) status: u32,
    /// Low 32 bits of the position.
    pub(crate) index: u32,
    /// Base64.
    pub(crate) key: Cow<'a, [u8]>,
    /// Key stream.
    pub(crate) stream: Uuid,
}

/// Reads `body`, the object as well as the string form of `metadata.buffer`.
///
/// # Errors
/// A sentence that says what is wrong. It never quotes the body, which may hold key.
pub(crate) fn parse(body: &[u8]) -> Result<KeyMaterial<'_>, String> {
    if let Some(material) = usual_form(body) {
        return Ok(material);
    }
    any_form(body)
}

const AFTER_KEY: &[u8] = br#"","metadata":{"size":57,"buffer":{"key_stream_id": ""#;
const UUID_CHARACTERS: usize = 36;
const END: &[u8] = br#""}}}"#;

/// The body exactly as a module most often writes it, which spares a JSON parser. `None`: some other form.
fn usual_form(body: &[u8]) -> Option<KeyMaterial<'_>> {
    let rest = body.strip_prefix(br#"{"status":"#)?;
    let (status, rest) = number(rest)?;
    let rest = rest.strip_prefix(br#","index":"#)?;
    let (index, rest) = number(rest)?;
    let rest = rest.strip_prefix(br#","key_buffer":""#)?;
    let rest = rest.strip_suffix(END)?;
    let (rest, stream) = rest.split_at_checked(rest.len().checked_sub(UUID_CHARACTERS)?)?;
    let key = rest.strip_suffix(AFTER_KEY)?;
    // Without early exit, so that many octets are looked at together.
    let plain = |octet: &u8| octet.is_ascii_graphic() & (*octet != b'"') & (*octet != b'\\');
    if !key.iter().fold(true, |all, octet| all & plain(octet)) {
        return None;
    }
    let stream = Uuid::try_parse_ascii(stream).ok()?;
    Some(KeyMaterial { status, index, key: Cow::Borrowed(key), stream })
}

/// A number as JSON writes it, without sign, fraction or leading zero, and what follows it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    if digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[derive(Deserialize)]
struct Body<'a> {
    status: u32,
    index: u32,
    #[serde(borrow)]
    key_buffer: Cow<'a, str>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    size: u32,
    buffer: Buffer,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Buffer {
    Object(Named),
    Text(String),
}

#[derive(Deserialize)]
struct Named {
    key_stream_id: Uuid,
}

/// Characters of the object without any space.
const SMALLEST_SIZE: u32 = 56;

fn any_form(body: &[u8]) -> Result<KeyMaterial<'_>, String> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
        // The parser's own words may quote a value; its place and class cannot.
        format!(
            "the body is not as the interface says ({:?} error at octet {})",
            error.classify(),
            error.column()
        )
    })?;
    let metadata = body.metadata.ok_or("metadata is missing, so the key stream is unknown")?;
    let stream = match metadata.buffer {
        Buffer::Object(named) if metadata.size >= SMALLEST_SIZE => named.key_stream_id,
        Buffer::Object(_) => {
            return Err(format!("metadata.size is {}, smaller than any metadata.buffer", metadata.size));
        }
        Buffer::Text(text) => {
            let characters = text.chars().count();
            if usize::try_from(metadata.size) != Ok(characters) {
                return Err(format!(
                    "metadata.size is {}, but metadata.buffer has {characters} characters",
                    metadata.size
                ));
            }
            let named: Named = serde_json::from_str(&text)
                .map_err(|_| "metadata.buffer is a text, but not an object with key_stream_id".to_owned())?;
            named.key_stream_id
        }
    };
    let key = match body.key_buffer {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    Ok(KeyMaterial { status: body.status, index: body.index, key, stream })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0b9c5b1a-6a04-4b8e-9a52-3a2f0f6c1d2e";

    fn usual(index: u32, key: &str) -> String {
        format!(
            r#"{{"status":0,"index":{index},"key_buffer":"{key}","metadata":{{"size":57,"buffer":{{"key_stream_id": "{ID}"}}}}}}"#
        )
    }

    #[test]
    fn the_form_that_modules_write_is_read_without_a_parser() {
        let body = usual(4_294_967_295, "AAEC");
        let material = usual_form(body.as_bytes()).expect("usual form");
        assert_eq!(
            (material.status, material.index, material.key.as_ref()),
            (0, u32::MAX, b"AAEC".as_slice())
        );
        assert_eq!(material.stream.to_string(), ID);
    }

    #[test]
    fn other_spellings_of_the_same_request_are_read_alike() {
        let text = format!(r#"{{\"key_stream_id\": \"{ID}\"}}"#);
        let bodies = [
            usual(7, "AAEC"),
            usual(7, "AAEC").replace(",", ", "),
            usual(7, "AAEC").replace("AAEC", "A\\u0041EC"),
            format!(
                r#"{{"metadata":{{"buffer":"{text}","size":57}},"key_buffer":"AAEC","index":7,"status":0}}"#
            ),
            format!(
                r#"{{"new":[1],"status":0,"index":7,"key_buffer":"AAEC","metadata":{{"size":56,"buffer":{{"key_stream_id":"{ID}"}}}}}}"#
            ),
        ];
        for body in bodies {
            let material = parse(body.as_bytes()).map_err(|why| format!("{why}: {body}")).expect("read");
            assert_eq!((material.index, material.key.as_ref()), (7, b"AAEC".as_slice()), "{body}");
        }
    }

    #[test]
    fn wrong_requests_are_refused_and_never_quoted() {
        let good = usual(7, "U0VDUkVU");
        let wrong = [
            good.replace("\"index\":7", "\"index\":-7"),
            good.replace("\"index\":7", "\"index\":07"),
            good.replace("\"index\":7", "\"index\":7.5"),
            good.replace("\"index\":7", "\"index\":4294967296"),
            good.replace("\"index\":7", "\"index\":7,\"index\":8"),
            good.replace("57", "55"),
            good.replace(ID, "0b9c5b1a"),
            good.replace("\"status\":0,", ""),
            good.replace("\"U0VDUkVU\"", "5"),
            good[..good.len() - 1].to_owned(),
            format!("{good}x"),
            r#"{"status":0,"index":7,"key_buffer":"U0VDUkVU"}"#.to_owned(),
        ];
        for body in wrong {
            let Err(why) = parse(body.as_bytes()) else { panic!("taken: {body}") };
            assert!(!why.contains("U0VDUkVU"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_that_panic_are_caught(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
        }

        #[test]
        fn the_short_way_that_reads_otherwise_than_the_parser_is_caught(
            index in any::<u32>(), key in "[A-Za-z0-9+/]{0,60}", at in 0_usize..200, octet in any::<u8>(),
        ) {
            let mut body = usual(index, &key).into_bytes();
            if let Some(changed) = body.get_mut(at) {
                *changed = octet;
            }
            if let Some(short) = usual_form(&body) {
                let long = any_form(&body).expect("what the short way takes is JSON");
                prop_assert_eq!((short.status, short.index, &short.key, short.stream),
                    (long.status, long.index, &long.key, long.stream));
            }
        }
    }
}
