//! Kernel-bypass driver for QKD cards.
//!
//! A [`Card`] owns one card: it brings the card up, hands out what the card announces as [`CardEvent`]s, checks every
//! block on a copy, returns slots, acknowledges blocks and shuts the card down so that no key stays behind. It works on
//! any [`backing::Backing`]; the register and memory layout is the contract's (`qkd-contract`).
//!
//! Everything blocks, with a deadline. Use one card from one thread.
//!
//! ```no_run
//! use qkd_driver::{Card, CardEvent, CardOptions, Woken, backing::vfio_user::VfioUser};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backing = VfioUser::connect("/run/qkd/card.sock", Duration::from_secs(5))?;
//! let mut card = Card::open(backing, CardOptions::default())?;
//! card.start()?;
//! loop {
//!     while let Some(event) = card.next_event()? {
//!         if let CardEvent::Block(block) = event {
//!             let name = block.name();
//!             let mut key = vec![0_u8; block.length()];
//!             block.take(&mut key)?;
//!             // … use the key, wipe it, then:
//!             card.acknowledge(name, name)?;
//!         }
//!     }
//!     if card.wait(Duration::from_secs(1), None)? == Woken::RemovalRequested {
//!         break;
//!     }
//! }
//! card.close()?;
//! # Ok(()) }
//! ```

pub mod backing;
mod card;
mod counters;
mod dma;
mod fault;
mod identity;
mod ingest;
#[cfg(feature = "measuring")]
pub mod measuring;
pub mod mmio;
mod name;
mod ring;
mod shared_memory;
mod telemetry;

pub use card::{
    BlockFault, Card, CardEvent, CardOptions, CloseError, Health, OpenError, PendingBlock, TakeError, Woken,
};
pub use counters::Counters;
pub use dma::DmaMemory;
pub use fault::{Fault, ReservedIn};
pub use identity::{Identity, IdentityError};
pub use name::BlockName;
pub use qkd_contract::state::{Fault as CardFaultCode, LinkState, Role, State};
pub use telemetry::Telemetry;
