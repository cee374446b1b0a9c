//! The configuration of the two daemons.

use std::net::SocketAddr;
use std::path::Path;

use crate::lab::Lab;

/// URI of the KMS at each end.
pub(super) const KMS: [&str; 2] = ["kms://a.example", "kms://b.example"];

/// How a daemon comes to the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Listen(SocketAddr),
    Connect(SocketAddr),
}

/// What differs between the two daemons.
pub(super) struct Daemon<'a> {
    /// 0: end A, which leads; 1: end B.
    pub(super) end: usize,
    pub(super) socket: &'a Path,
    pub(super) api: SocketAddr,
    pub(super) peer: Peer,
    pub(super) kms_endpoint: SocketAddr,
    pub(super) streams: u32,
    pub(super) largest_chunk: u32,
    pub(super) vault_bytes: u64,
    /// Directory of the laboratory's certificates, where every link has TLS.
    pub(super) certificates: Option<&'a Path>,
    /// Further tables.
    pub(super) more: &'a str,
}

impl Daemon<'_> {
    /// The configuration file's text.
    pub(super) fn toml(&self) -> String {
        let (name, role, own, other) =
            if self.end == 0 { ("A", "leader", KMS[0], KMS[1]) } else { ("B", "follower", KMS[1], KMS[0]) };
        let peer = match self.peer {
            Peer::Listen(address) => format!("listen = \"{address}\""),
            Peer::Connect(address) => format!("connect = \"{address}\""),
        };
        let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned());
        let socket = quoted(self.socket);
        let (mut scheme, mut peer_name, mut kms_names, mut tls) =
            ("http", String::new(), String::new(), String::new());
        if let Some(directory) = self.certificates {
            scheme = "https";
            peer_name = format!("certificate_name = \"{}\"\n", Lab::module_name(1 - self.end.min(1)));
            kms_names = format!("certificate_names = [\"URI:{own}\"]\n");
            let file = |name: String| quoted(&directory.join(name));
            let module = if self.end == 0 { "module-a" } else { "module-b" };
            tls = format!(
                "[tls]\ncertificate = {}\nkey = {}\nauthorities = {}\n",
                file(format!("{module}.pem")),
                file(format!("{module}.key")),
                file("authority.pem".into())
            );
        }
        format!(
            "[module]\nname = \"{name}\"\nrole = \"{role}\"\n\
             [card]\nsocket = {socket}\naccept_test_key = true\n\
             [api]\nlisten = \"{api}\"\nmost_connections = {connections}\nmost_waiting_calls = {connections}\n\
             most_connections_per_address = {connections}\nmost_waiting_calls_per_kms = {connections}\n\
             [peer]\n{peer}\n{peer_name}kms = [\"{other}\"]\n\
             [[kms]]\nuri = \"{own}\"\nendpoint = \"{scheme}://{endpoint}\"\n{kms_names}{tls}\
             [streams]\nmost_streams = {streams}\nmost_per_kms = {streams}\nmost_half_open_per_kms = {streams}\n\
             largest_chunk_size = {largest}\n\
             # Test key only: nothing is lost where the user may not lock so much memory.\n\
             [vault]\nbytes = {vault_bytes}\nunlocked_memory_lets_keys_reach_swap = true\n{more}",
            api = self.api,
            endpoint = self.kms_endpoint,
            streams = self.streams.max(64),
            connections = self.streams.max(64) * 2,
            largest = self.largest_chunk.max(65_536),
            vault_bytes = self.vault_bytes,
            more = self.more,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_configurations_are_toml_and_point_at_each_other() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let daemon = |end, peer| Daemon {
            end,
            socket: Path::new("/tmp/a \"quoted\" \\ path"),
            api: address(8),
            peer,
            kms_endpoint: address(9),
            streams: 3,
            largest_chunk: 32,
            vault_bytes: 64 << 20,
            certificates: (end == 1).then_some(Path::new("/lab")),
            more: "[push]\nanswer_deadline_ms = 800\n",
        };
        let a: toml::Value = toml::from_str(&daemon(0, Peer::Listen(address(6))).toml()).expect("TOML");
        let b: toml::Value = toml::from_str(&daemon(1, Peer::Connect(address(7))).toml()).expect("TOML");
        assert_eq!(a["card"]["socket"].as_str(), Some("/tmp/a \"quoted\" \\ path"));
        assert_eq!(
            (a["module"]["role"].as_str(), b["module"]["role"].as_str()),
            (Some("leader"), Some("follower"))
        );
        assert_eq!(a["peer"]["listen"].as_str(), Some("127.0.0.1:6"));
        assert_eq!(b["peer"]["connect"].as_str(), Some("127.0.0.1:7"));
        assert!(a.get("tls").is_none() && a["kms"][0].get("certificate_names").is_none());
        assert_eq!(b["tls"]["key"].as_str(), Some("/lab/module-b.key"));
        assert_eq!(b["peer"]["certificate_name"].as_str(), Some("module-a.qkd.test"));
        assert_eq!(b["kms"][0]["endpoint"].as_str(), Some("https://127.0.0.1:9"));
        assert_eq!(b["push"]["answer_deadline_ms"].as_integer(), Some(800));
        assert_eq!(a["peer"]["kms"][0], b["kms"][0]["uri"]);
        assert_eq!(b["peer"]["kms"][0], a["kms"][0]["uri"]);
    }
}
