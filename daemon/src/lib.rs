//! The daemon behind `qkdd`: serves ETSI GS QKD 004 push mode for one QKD card.
//!
//! Read it in the order in which key flows: [`engine`] takes blocks from the card's thread into the [`vault`];
//! [`agreement`] decides, together with the daemon at the link's other end, which octets belong to which key
//! stream and position, and writes that to the [`ledger`]; [`push`] sends the chunks to the KMS. [`api`] is what the
//! KMS calls, [`peer`] the link to the other daemon, and [`tls`] what protects both and push. [`operator`] is the socket
//! for the people who run the daemon, [`audit`] the record of who did what. [`conform`]
//! probes modules and KMSs, [`doctor`] looks at the host.

pub mod agreement;
pub mod api;
pub mod arguments;
pub mod audit;
pub mod calls;
pub mod config;
pub mod conform;
pub mod doctor;
pub mod engine;
pub mod interface;
pub mod ledger;
pub mod logging;
pub mod operator;
pub mod peer;
pub mod picture;
pub mod pulse;
pub mod push;
pub mod recent;
mod timing;
pub mod tls;
pub mod vault;
