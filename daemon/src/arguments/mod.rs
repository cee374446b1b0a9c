//! What the programs are told on their command lines. It stands in the library so that man pages and shell completions are
//! made from it.

pub mod qkdctl;
pub mod qkdd;
