//! Programs in Python that share no code with the project and judge it from outside.

use std::ffi::OsStr;
use std::process::Command;

use crate::process::Process;
use crate::programs::workspace;

/// Starts a script of `tests/witness`.
///
/// # Panics
/// When Python cannot be started.
#[must_use]
pub fn start<S: AsRef<OsStr>>(script: &str, arguments: &[S]) -> Process {
    let path = workspace().join("tests/witness").join(script);
    Process::start(script, Command::new("python3").arg(path).args(arguments))
}
