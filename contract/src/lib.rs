//! The QKD card's contract as typed constants and layouts.
//!
//! `CONTRACT.md` beside this crate is the definition; everything here repeats its tables so that driver and
//! simulator cannot disagree about a byte. Behaviour is not here: each side writes it from the document.
#![no_std]
#![forbid(unsafe_code)]

pub mod command;
pub mod layout;
pub mod limits;
pub mod pci;
pub mod registers;
pub mod state;
