//! What is feared of a ledger in a file: that it forgets, remembers otherwise than it was told, or takes rubbish for truth.

mod damage;
mod directory;
mod equality;
mod format;
mod power_loss;
mod size;
mod story;
