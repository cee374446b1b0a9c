//! wrk, against the same sink: a load generator that does nothing but repeat one request.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::figures::Cpu;

/// What wrk is to do.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The sink's door for it.
    pub to: SocketAddr,
    /// Over TLS; wrk has no certificate to show.
    pub tls: bool,
    /// Connections.
    pub connections: usize,
    /// Requests that are sent at once on each; then all their answers are waited for.
    pub depth: usize,
    /// How long.
    pub seconds: u64,
    /// The request, head and body.
    pub request: &'a [u8],
}

/// Runs it; its time on processors.
///
/// # Errors
/// What it said, when it met errors.
///
/// # Panics
/// When there is no wrk.
pub fn run(load: Load<'_>, folder: &Path) -> Result<Cpu, String> {
    let path = folder.join("load.lua");
    std::fs::write(&path, script(load.request, load.depth)).expect("a script can be written");
    let before = children();
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{}", load.connections), &format!("-d{}s", load.seconds), "-s"])
        .arg(path)
        .arg(format!("{}://localhost:{}/", if load.tls { "https" } else { "http" }, load.to.port()))
        .output()
        .expect("wrk is there: ./dev bench installs it");
    let cpu = children().since(before);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let bad = !output.status.success() || said.contains("Non-2xx") || said.contains("Socket errors");
    if bad { Err(said) } else { Ok(cpu) }
}

/// What wrk sends is fixed before it begins: it runs no Lua for a request.
fn script(request: &[u8], depth: usize) -> String {
    let octets: String = request.iter().map(|octet| format!("\\{octet:03}")).collect();
    format!("local request = string.rep(\"{octets}\", {depth})\nwrk.format = function() return request end\n")
}

/// Of the children that have ended.
fn children() -> Cpu {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it has an account");
    #[allow(clippy::cast_precision_loss, reason = "seconds of one run")]
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Cpu { user: seconds(usage.user_time()), system: seconds(usage.system_time()) }
}
