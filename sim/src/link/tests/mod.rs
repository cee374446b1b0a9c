//! Tests of the link: its physics, its key, and both cards on it.

mod key;
mod pair;
mod physics;
mod seeds;
