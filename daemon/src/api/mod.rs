//! The HTTP interface that the KMS calls: open-connect, get-key and close of ETSI GS QKD 004 push mode.
//!
//! Checks everything that can be judged by the request and the configuration alone, and hands the call to the key
//! agreement through [`crate::calls::CallPort`]. Decisions where the interface is silent:
//!
//! - Members that the interface does not name are ignored. A member that stands twice in an object is refused.
//! - Optional members may be null, which is the same as leaving them out.
//! - Whole numbers are written without fraction and exponent.
//! - get-key's answer never has `metadata` when it succeeds: the module has nothing to say in it.
//! - When too many calls wait, or the daemon stops, the answer is 503 with status 4 and Retry-After; when the key
//!   agreement gives no answer in time, it is 500 with status 6.
//! - `/api/v1/kms/etsi004/openapi.json` answers GET with the OpenAPI document of the configured profile, to whoever may call
//!   the rest. It is no part of the interface and not in the document.
//! - A path is compared octet by octet: one that is escaped, doubled or dotted is unknown.

mod body;
mod close;
mod connection;
mod doors;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod get_key;
mod json;
mod member;
mod open_connect;
pub mod openapi;
mod reply;
mod routes;
mod schema;
mod server;

pub use self::server::{ServeError, Settings, serve};
