//! The server against clients that break the protocol, leave in the middle, or use it as intended.

mod client;
mod config;
mod device;
mod memory;
mod wire;
