//! qkd-sim.
fn main() {}
