//! The configuration of the two daemons.

use std::net::SocketAddr;
use std::path::Path;

/// URI of the KMS at each end.
pub(super) const KMS: [&str; 2] = ["kms://a.example", "kms://b.example"];

/// What differs between the two daemons.
pub(super) struct Daemon<'a> {
    /// 0: end A, which leads and listens; 1: end B.
    pub(super) end: usize,
    pub(super) socket: &'a Path,
    /// Where end B finds end A.
    pub(super) peer: Option<SocketAddr>,
    pub(super) kms_endpoint: SocketAddr,
    pub(super) streams: u32,
    pub(super) chunk_size: u32,
}

impl Daemon<'_> {
    /// The configuration file's text.
    pub(super) fn toml(&self) -> String {
        let (name, role, own, other) =
            if self.end == 0 { ("A", "leader", KMS[0], KMS[1]) } else { ("B", "follower", KMS[1], KMS[0]) };
        let peer = match self.peer {
            None => "listen = \"127.0.0.1:0\"".to_owned(),
            Some(address) => format!("connect = \"{address}\""),
        };
        let socket = toml::Value::String(self.socket.to_string_lossy().into_owned());
        format!(
            "[module]\nname = \"{name}\"\nrole = \"{role}\"\n\
             [card]\nsocket = {socket}\naccept_test_key = true\n\
             [api]\nlisten = \"127.0.0.1:0\"\nmost_connections = {connections}\nmost_waiting_calls = {connections}\n\
             [peer]\n{peer}\nkms = [\"{other}\"]\n\
             [[kms]]\nuri = \"{own}\"\nendpoint = \"http://{endpoint}\"\n\
             [streams]\nmost_streams = {streams}\nmost_half_open_per_kms = {streams}\nlargest_chunk_size = {largest}\n\
             # Test key only: nothing is lost where the user may not lock so much memory.\n\
             [vault]\nunlocked_memory_lets_keys_reach_swap = true\n",
            endpoint = self.kms_endpoint,
            streams = self.streams.max(64),
            connections = self.streams.max(64) * 2,
            largest = self.chunk_size.max(65_536),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_configurations_are_toml_and_point_at_each_other() {
        let peer: SocketAddr = "127.0.0.1:7".parse().expect("address");
        let daemon = |end, peer| Daemon {
            end,
            socket: Path::new("/tmp/a \"quoted\" \\ path"),
            peer,
            kms_endpoint: "127.0.0.1:9".parse().expect("address"),
            streams: 3,
            chunk_size: 32,
        };
        let a: toml::Value = toml::from_str(&daemon(0, None).toml()).expect("TOML");
        let b: toml::Value = toml::from_str(&daemon(1, Some(peer)).toml()).expect("TOML");
        assert_eq!(a["card"]["socket"].as_str(), Some("/tmp/a \"quoted\" \\ path"));
        assert_eq!(
            (a["module"]["role"].as_str(), b["module"]["role"].as_str()),
            (Some("leader"), Some("follower"))
        );
        assert_eq!(b["peer"]["connect"].as_str(), Some("127.0.0.1:7"));
        assert_eq!(a["peer"]["kms"][0], b["kms"][0]["uri"]);
        assert_eq!(b["peer"]["kms"][0], a["kms"][0]["uri"]);
    }
}
