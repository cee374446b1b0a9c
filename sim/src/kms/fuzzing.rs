//! A way in for fuzzing: the body of a key-material request.

use super::body;

/// Reads a body: status, index, octets of base64 and key stream.
///
/// # Errors
/// What is wrong with it.
pub fn key_material(octets: &[u8]) -> Result<(u32, u32, usize, u128), String> {
    let read = body::parse(octets)?;
    Ok((read.status, read.index, read.key.len(), read.stream.as_u128()))
}
