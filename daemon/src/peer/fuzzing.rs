//! A way in for fuzzing: what a peer's octets are cut into.

use futures_util::{FutureExt, StreamExt};

use super::connection::framed;

/// The frames in `octets`, and whether the framing broke before their end.
#[must_use]
pub fn frames(octets: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut stream = framed(tokio::io::join(octets, tokio::io::sink()));
    let mut frames = Vec::new();
    // All octets are there, so that nothing ever waits.
    while let Some(Some(frame)) = stream.next().now_or_never() {
        match frame {
            Ok(frame) => frames.push(frame.to_vec()),
            Err(_) => return (frames, true),
        }
    }
    (frames, false)
}
