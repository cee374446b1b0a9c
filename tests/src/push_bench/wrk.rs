//! wrk, against the same sink: a load generator that does nothing but repeat one request.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::process::Process;

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
    /// The request, head and body.
    pub request: &'a [u8],
}

/// Starts it, to go on until the process is dropped. Its end is not waited for: what wrk computes about latencies then takes long,
/// for ever at a million answers a second, and would count as time of its pushes.
#[must_use]
pub fn start(load: Load<'_>, folder: &Path) -> Process {
    // Written once: a second wrk must not find the first one's script half rewritten.
    let path = folder.join(format!("load-{}-{}.lua", load.request.len(), load.depth));
    if !path.exists() {
        std::fs::write(&path, script(load.request, load.depth)).expect("a script can be written");
    }
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{}", load.connections), "-d24h", "-s"]).arg(path).arg(format!(
        "{}://localhost:{}/",
        if load.tls { "https" } else { "http" },
        load.to.port()
    ));
    Process::start("wrk", &mut command)
}

/// What wrk sends is fixed before it begins: it runs no Lua for a request.
fn script(request: &[u8], depth: usize) -> String {
    let octets: String = request.iter().map(|octet| format!("\\{octet:03}")).collect();
    format!("local request = string.rep(\"{octets}\", {depth})\nwrk.format = function() return request end\n")
}
