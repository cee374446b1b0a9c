//! A way in for fuzzing: the octets of a request's body through every check, up to the call.

use super::json;
use super::schema::Members;
use super::{Settings, close, get_key, open_connect};
use crate::calls::Call;

/// Reads a body as open-connect (0), get-key (1) or close takes it.
///
/// # Errors
/// The answer, in words.
pub fn call(settings: &Settings, endpoint: u8, body: &[u8]) -> Result<Call, String> {
    let value = json::parse(body).map_err(|why| why.to_string())?;
    let members = Members::of_body(value).map_err(|why| why.to_string())?;
    let call = match endpoint {
        0 => open_connect::call(settings, None, members),
        1 => get_key::call(None, members),
        _ => close::call(None, members),
    };
    call.map_err(|reply| format!("{reply:?}"))
}
