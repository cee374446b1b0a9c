//! What is feared of the parts; the whole is judged by `tests/agreement_simulation`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_range_loop,
    reason = "numbers of tests are small, and an end's number says who is meant"
)]

mod burning;
mod calls;
mod card_news;
mod endings;
mod entries;
mod follower_reports;
mod grants;
mod handshake;
mod holdings;
mod hostile_peer;
mod leading;
mod limits;
mod opening;
mod owners;
mod partial_loss;
mod parts;
mod restart;
mod restarts;
mod scheduling;
mod shares;
mod supply;
mod times;
mod two_ends;
mod waiting_calls;
mod windows;
mod wrong_entries;
mod zeroized;
