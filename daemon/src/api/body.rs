//! Reads a request's body: media type, size and time are bounded.

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::Payload;
use futures_util::StreamExt;

/// The body could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("Content-Type must be application/json, in UTF-8")]
    MediaType,
    #[error("Content-Encoding is not taken: send the body as it is")]
    ContentEncoding,
    #[error("the body must not be larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {0} ms")]
    Late(u128),
    #[error("the body was cut short")]
    CutShort,
    #[error("the body's transfer encoding is broken")]
    Broken,
}

impl BodyError {
    /// Each of them once.
    pub(super) const EVERY: [Self; 6] = [
        Self::MediaType,
        Self::ContentEncoding,
        Self::TooLarge(65_536),
        Self::Late(5_000),
        Self::CutShort,
        Self::Broken,
    ];

    /// The HTTP status that says so.
    pub(super) fn http(&self) -> StatusCode {
        match self {
            Self::MediaType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::CutShort | Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads the whole body, at most `most` octets, within `deadline`. A request without a body has an empty one.
pub(super) async fn read(
    headers: &HeaderMap,
    mut payload: Payload,
    most: usize,
    deadline: Duration,
) -> Result<Vec<u8>, BodyError> {
    let declared = match headers.get(header::CONTENT_LENGTH) {
        // The HTTP parser has taken it as a number already; what is beyond a usize is too large in any case.
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.trim().parse().ok());
            Some(length.unwrap_or(usize::MAX))
        }
        None => None,
    };
    if declared.unwrap_or(0) == 0 && !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(Vec::new());
    }
    check_media_type(headers)?;
    if declared.is_some_and(|length| length > most) {
        return Err(BodyError::TooLarge(most));
    }
    let whole = async {
        let mut body = Vec::new();
        while let Some(part) = payload.next().await {
            let part = part.map_err(|error| match error {
                PayloadError::Incomplete(_) => BodyError::CutShort,
                _ => BodyError::Broken,
            })?;
            if part.len() > most.saturating_sub(body.len()) {
                return Err(BodyError::TooLarge(most));
            }
            body.extend_from_slice(&part);
        }
        match declared {
            Some(length) if length != body.len() => Err(BodyError::CutShort),
            _ => Ok(body),
        }
    };
    tokio::time::timeout(deadline, whole).await.unwrap_or(Err(BodyError::Late(deadline.as_millis())))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), BodyError> {
    let mut given = headers.get_all(header::CONTENT_TYPE);
    let (Some(media_type), None) = (given.next(), given.next()) else {
        return Err(BodyError::MediaType);
    };
    if !media_type.to_str().is_ok_and(is_json) {
        return Err(BodyError::MediaType);
    }
    let is_plain = headers
        .get_all(header::CONTENT_ENCODING)
        .all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    if is_plain { Ok(()) } else { Err(BodyError::ContentEncoding) }
}

/// Whether a Content-Type is `application/json`, with no charset or with UTF-8.
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            let value = value.trim().trim_matches('"');
            !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::is_json;

    #[test]
    fn media_types_are_told_apart() {
        for right in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json ; q=1; charset=utf-8",
        ] {
            assert!(is_json(right), "{right}");
        }
        for wrong in [
            "",
            "json",
            "text/json",
            "application/jsonp",
            "application/json, text/html",
            "application/problem+json",
            "application/json; charset=utf-16",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!is_json(wrong), "{wrong}");
        }
    }
}
