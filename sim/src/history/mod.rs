//! The recorded history of what a KMS received.

pub mod position;
pub mod trace;
