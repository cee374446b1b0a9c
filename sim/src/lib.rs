//! A pair of simulated QKD cards with the link between them, a reference KMS, and what judges and shows them.
//!
//! The card, link and fault plan run in virtual time inside a test as well as behind a vfio-user socket.

pub mod arguments;
pub mod card;
pub mod check;
pub mod demo;
pub mod endurance;
pub mod history;
pub mod kms;
pub mod lab;
mod lines;
pub mod link;
pub mod pair;
pub mod plan;
mod secure;
pub mod server;
mod stage;
