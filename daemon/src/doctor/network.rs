//! Addresses to listen on, the other module, and the KMSs.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::finding::Findings;
use crate::config::{Config, HostPort, PeerAddress};
use crate::tls::{Socket, Tls};

/// Programs that may hold a daemon's address: itself, and who passes it the socket.
const OURS: [&str; 4] = ["qkdd", "systemd", "systemd-socket-", "(sd-listen)"];

/// Who holds an address.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Free,
    Ours,
    By(String),
    Unseen,
}

/// Looks at all addresses; `tls` where there are certificates that can be used.
pub(super) fn look(config: &Config, tls: Option<&Arc<Tls>>, deadline: Duration, findings: &mut Findings) {
    let runs = address("api.listen", config.api.listen, findings);
    if let PeerAddress::Listen(listen) = config.peer.address {
        let _ = address("peer.listen", listen, findings);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return findings.skip("peer", format!("the system has no runtime to give: {why}")),
    };
    runtime.block_on(async {
        peer(config, tls, runs, deadline, findings).await;
        for kms in &config.kms {
            let endpoint = &kms.endpoint;
            let reached = reach(&endpoint.server, kms.through.as_deref(), deadline).await;
            let done = match (reached, endpoint.secure, tls) {
                (Ok(stream), true, Some(tls)) => {
                    let shaken = timeout(deadline, tls.connect_kms(stream, &endpoint.server)).await;
                    Ok(shaken.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map(drop))
                }
                (Ok(_), true, None) => {
                    findings.skip("kms", format!("{}: the certificates cannot be used", kms.uri));
                    continue;
                }
                (Ok(_), false, _) => Ok(Ok(())),
                (Err(why), ..) => Err(why),
            };
            let at = format!("the KMS {} at {endpoint}", kms.uri);
            tell("kms", &at, done, "its certificate must be good for the host in kms.endpoint, and its authority in tls.kms_authorities", findings);
        }
    });
}

async fn peer(
    config: &Config,
    tls: Option<&Arc<Tls>>,
    runs: bool,
    deadline: Duration,
    findings: &mut Findings,
) {
    const CHECK: &str = "peer";
    let server = match &config.peer.address {
        PeerAddress::Listen(_) => return findings.skip(CHECK, "the other module connects to this one"),
        // A second connection would put the first one out.
        PeerAddress::Connect(_) if runs => {
            return findings.skip(CHECK, "the daemon runs and is connected itself: see qkdctl status");
        }
        PeerAddress::Connect(server) => server,
    };
    let done = match (reach(server, config.peer.through.as_deref(), deadline).await, tls) {
        (Ok(stream), Some(tls)) => {
            let shaken = timeout(deadline, tls.connect_peer(stream)).await;
            Ok(shaken.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map(drop))
        }
        (Ok(_), None) if config.tls.is_some() => {
            return findings.skip(CHECK, "the certificates cannot be used");
        }
        (Ok(_), None) => Ok(Ok(())),
        (Err(why), _) => Err(why),
    };
    let name = config.peer.certificate_name.as_deref().unwrap_or("the host in peer.connect");
    let mend = format!(
        "its certificate must have the name {name}, and its authority stand in tls.peer_authorities; it must know this one's"
    );
    tell(CHECK, &format!("the other module at {server}"), done, &mend, findings);
}

fn tell(
    check: &'static str,
    who: &str,
    done: io::Result<io::Result<()>>,
    mend: &str,
    findings: &mut Findings,
) {
    match done {
        Ok(Ok(())) => findings.pass(check, format!("{who} can be reached")),
        Ok(Err(why)) => findings.fail(check, format!("{who}: the TLS handshake failed: {why}"), mend),
        Err(why) => findings.warn(
            check,
            format!("{who} cannot be reached: {why}"),
            "see that it runs there and that no firewall is in between; until then no key arrives",
        ),
    }
}

async fn reach(server: &HostPort, through: Option<&Path>, deadline: Duration) -> io::Result<Socket> {
    let connect = async {
        match through {
            Some(socket) => UnixStream::connect(socket).await.map(Socket::Unix),
            None => TcpStream::connect((server.host.as_str(), server.port)).await.map(Socket::Tcp),
        }
    };
    timeout(deadline, connect).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Looks at an address to listen on; true: the daemon has it.
fn address(check: &'static str, address: SocketAddr, findings: &mut Findings) -> bool {
    let another = format!("set {check} to a free address of this host");
    let held = match TcpListener::bind(address) {
        Ok(_) => Held::Free,
        Err(why) if why.kind() == ErrorKind::AddrInUse => holder(address),
        Err(why) => {
            findings.fail(check, format!("{address} cannot be had: {why}"), another);
            return false;
        }
    };
    match &held {
        Held::Free => findings.pass(check, format!("{address} is free")),
        Held::Ours => findings.pass(check, format!("{address} is held by the daemon")),
        Held::By(name) => {
            findings.fail(
                check,
                format!("{address} is held by {name}"),
                format!("stop {name}, or {another}"),
            );
        }
        Held::Unseen => findings.warn(
            check,
            format!("{address} is held by a program that this user cannot see"),
            "ask as root; if it is not qkdd, stop it or set another address",
        ),
    }
    held == Held::Ours
}

/// Who listens there, by the kernel's tables.
fn holder(address: SocketAddr) -> Held {
    let inodes = listening(address);
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // There are also names for whoever asks.
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let has = |link: &Path| {
            let name = link.to_string_lossy();
            name.strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|inode| inodes.contains(inode))
        };
        if descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).any(|link| has(&link)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name: String = name.trim().chars().filter(|c| !c.is_control()).take(32).collect();
            let ours = OURS.contains(&name.as_str());
            return if ours {
                Held::Ours
            } else {
                Held::By(format!("{name} (process {})", process.file_name().display()))
            };
        }
    }
    Held::Unseen
}

/// Inodes of sockets that listen at an address, or at its port on every address.
fn listening(address: SocketAddr) -> HashSet<String> {
    let mut found = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let Some((host, port)) = local.split_once(':') else { continue };
            if u16::from_str_radix(port, 16) != Ok(address.port()) {
                continue;
            }
            let any = host.bytes().all(|digit| digit == b'0');
            if any || host == kernel_form(address.ip()) {
                found.insert((*inode).to_owned());
            }
        }
    }
    found
}

/// An address as the kernel's tables have it: words of the host's byte order.
fn kernel_form(address: IpAddr) -> String {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets
        .chunks(4)
        .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap_or_default())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Held, holder, kernel_form};

    #[test]
    fn who_holds_an_address_is_found_out() {
        for any in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let held = holder(listener.local_addr().unwrap());
            // This test is none of the daemon's programs.
            assert!(
                matches!(&held, Held::By(name) if name.contains(&std::process::id().to_string())),
                "{held:?}"
            );
        }
        #[cfg(target_endian = "little")]
        assert_eq!(kernel_form("127.0.0.1".parse().unwrap()), "0100007F");
    }
}
