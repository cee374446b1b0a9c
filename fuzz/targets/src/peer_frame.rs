//! What comes over the peer link: frames, and the messages in them.

use qkd_daemon::agreement::Message;
use qkd_daemon::peer::{FRAME_BYTES_MAX, fuzzing::frames};

use crate::Target;
use crate::peer_core::conversation;

pub(crate) const TARGET: Target = Target { name: "peer_frame", run, seeds, bounded: 10_000, longest: 16_384 };

fn run(octets: &[u8]) {
    let (frames, _) = frames(octets);
    let carried: usize = frames.iter().map(|frame| 4 + frame.len()).sum();
    assert!(carried <= octets.len(), "{carried} octets of frames from {}", octets.len());
    for frame in &frames {
        assert!(frame.len() <= FRAME_BYTES_MAX);
        message(frame);
    }
    message(octets);
}

/// What is taken for a message says the same when it is said again.
fn message(octets: &[u8]) {
    match Message::decode(octets) {
        Ok(message) => {
            assert_eq!(message.check(), Ok(()));
            let again = message.encode().expect("a message that was taken can be said");
            assert_eq!(Message::decode(&again), Ok(message));
        }
        Err(fault) => {
            assert!(fault.to_string().len() < 1_000, "a fault of {} octets", fault.to_string().len())
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for message in conversation() {
        let json = message.encode().expect("a real message");
        seeds.push(json.clone());
        let length = u32::try_from(json.len()).expect("short");
        seeds.push([length.to_be_bytes().to_vec(), json, vec![0; 4]].concat());
    }
    seeds.push(u32::MAX.to_be_bytes().to_vec());
    seeds
}
