//! qkdd.
fn main() {}
