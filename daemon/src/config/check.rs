//! What must hold between settings.

use std::net::SocketAddr;
use std::time::Duration;

use qkd_contract::pci::{DEVICE_ID, VENDOR_ID};
use qkd_driver::backing::PciIdentity;

use super::address::{HostPort, is_loopback};
use super::read::Reader;
use super::settings::{CardKeys, PeerKeys};
use super::{Card, CardBacking, Config, KeyMemory, Peer, PeerAddress, tls};

const PLAIN_TEXT: &str = "without TLS this address needs plain_text_beyond_loopback_gives_keys_away = true under \
     [transport]: whoever can read that network then has every key. Give certificates under [tls] (and https in a KMS's \
     endpoint), or use a loopback address";

/// Allowance for this host's own scheduling, where the configuration names none (TIM-15).
const GRACE: Duration = Duration::from_millis(100);
/// A simulated card shares the processors with everything else, and may be kept waiting.
const SIMULATED_GRACE: Duration = Duration::from_secs(5);

/// The card, once it is clear how it is reached.
pub(super) fn card(reader: &mut Reader<'_>, keys: CardKeys) -> Option<Card> {
    let (backing, grace) = match (keys.socket, keys.pci) {
        (None, Some(address)) => (CardBacking::Vfio(address), GRACE),
        (Some(socket), None) => (CardBacking::VfioUser(socket), SIMULATED_GRACE),
        (Some(_), Some(_)) => {
            let message = "only one of pci and socket may be given: the card is in a slot or it is simulated";
            reader.note_at("card", 0, "pci", message);
            return None;
        }
        (None, None) => {
            let message = "pci or socket must be given: the PCI address of a card in a slot, or the absolute path of a \
                 simulated card's vfio-user socket";
            reader.note_at("card", 0, "pci", message);
            return None;
        }
    };
    Some(Card {
        backing,
        pci_id: keys.pci_id.unwrap_or(PciIdentity { vendor: VENDOR_ID, device: DEVICE_ID }),
        grace: keys.grace_ms.map_or(grace, |ms| Duration::from_millis(ms.into())),
        slots: keys.slots,
        expected_serial: keys.expected_serial,
        expected_peer_serial: keys.expected_peer_serial,
        accept_test_key: keys.accept_test_key,
    })
}

/// The other daemon, once it is clear which end connects.
pub(super) fn peer(reader: &mut Reader<'_>, keys: PeerKeys) -> Option<Peer> {
    let address = match (keys.listen, keys.connect) {
        (Some(listen), None) => PeerAddress::Listen(listen),
        (None, Some(connect)) => PeerAddress::Connect(connect),
        (Some(_), Some(_)) => {
            let message = "only one of listen and connect may be given: this end listens or it connects";
            reader.note_at("peer", 0, "connect", message);
            return None;
        }
        (None, None) => {
            let message = "listen or connect must be given: one end listens, the other one connects to it";
            reader.note_at("peer", 0, "listen", message);
            return None;
        }
    };
    // Whom this end connects to by name is known by that name.
    let host = match &address {
        PeerAddress::Listen(_) => None,
        PeerAddress::Connect(server) => Some(server.host.clone()),
    };
    if keys.through.is_some() && matches!(address, PeerAddress::Listen(_)) {
        reader.note_at("peer", 0, "through", "belongs to connect, and this end listens: remove it");
        return None;
    }
    Some(Peer {
        address,
        through: keys.through,
        kms: keys.kms,
        certificate_name: keys.certificate_name.or(host),
        silence_deadline_ms: keys.silence_deadline_ms,
        reconnect_greatest_ms: keys.reconnect_greatest_ms,
    })
}

/// Notes what does not fit together.
pub(super) fn together(reader: &mut Reader<'_>, config: &Config) {
    addresses(reader, config);
    names(reader, config);
    limits(reader, config);
    tls::together(reader, config);
}

fn addresses(reader: &mut Reader<'_>, config: &Config) {
    let (peer_setting, peer_stays) = match &config.peer.address {
        PeerAddress::Listen(address) => ("listen", is_loopback(address.ip())),
        PeerAddress::Connect(server) => ("connect", server.is_loopback()),
    };
    if !config.transport.plain_text_beyond_loopback_gives_keys_away {
        let plain = config.tls.is_none();
        if plain && !is_loopback(config.api.listen.ip()) {
            reader.note_at("api", 0, "listen", PLAIN_TEXT);
        }
        if plain && !peer_stays {
            reader.note_at("peer", 0, peer_setting, PLAIN_TEXT);
        }
        for (number, kms) in config.kms.iter().enumerate() {
            if !kms.endpoint.secure && !kms.endpoint.server.is_loopback() {
                reader.note_at("kms", number, "endpoint", PLAIN_TEXT);
            }
        }
    }
    if let Some(http) = config.operator.http {
        if !is_loopback(http.ip()) {
            let message = "must be a loopback address: whoever reaches it can read how the module stands, and nobody is asked who \
                 he is";
            reader.note_at("operator", 0, "http", message);
        }
        let others = [Some(config.api.listen), config.peer.address.listens()];
        if http.port() != 0 && others.contains(&Some(http)) {
            let message = "is the same as listen under [api] or [peer]: give another port";
            reader.note_at("operator", 0, "http", message);
        }
    }
    let same = |address: &SocketAddr| *address == config.api.listen && address.port() != 0;
    match &config.peer.address {
        PeerAddress::Listen(address) if same(address) => {
            reader.note_at("peer", 0, "listen", "is the same as listen under [api]: give another port");
        }
        PeerAddress::Connect(HostPort { host, port })
            if host.parse().is_ok_and(|ip| same(&SocketAddr::new(ip, *port))) =>
        {
            reader.note_at(
                "peer",
                0,
                "connect",
                "is this end's own listen under [api]: give the other end's",
            );
        }
        _ => {}
    }
}

fn names(reader: &mut Reader<'_>, config: &Config) {
    for (number, kms) in config.kms.iter().enumerate() {
        if config.kms.iter().take(number).any(|earlier| earlier.uri == kms.uri) {
            reader.note_at("kms", number, "uri", "names a KMS that was given already: give each once");
        }
        if config.peer.kms.contains(&kms.uri) {
            let message = "stands in kms under [peer] as well: a KMS is at one end only";
            reader.note_at("kms", number, "uri", message);
        }
    }
}

fn limits(reader: &mut Reader<'_>, config: &Config) {
    let (streams, push) = (&config.streams, &config.push);
    let not_above = [
        (
            "streams",
            "default_chunk_size",
            streams.default_chunk_size,
            "largest_chunk_size",
            streams.largest_chunk_size,
        ),
        (
            "streams",
            "default_timeout_ms",
            streams.default_timeout_ms,
            "greatest_timeout_ms",
            streams.greatest_timeout_ms,
        ),
        ("streams", "default_ttl_s", streams.default_ttl_s, "greatest_ttl_s", streams.greatest_ttl_s),
        (
            "streams",
            "most_half_open_per_kms",
            streams.most_half_open_per_kms,
            "most_streams",
            streams.most_streams,
        ),
        ("push", "backoff_first_ms", push.backoff_first_ms, "backoff_greatest_ms", push.backoff_greatest_ms),
    ];
    for (section, setting, value, bound, most) in not_above {
        if value > most {
            reader.note_at(section, 0, setting, &format!("{value} is more than {bound} = {most}"));
        }
    }
    if config.ledger.in_memory_forgets_everything && config.ledger.directory.is_some() {
        let message = "a ledger is in a directory or it is in memory: give only one of directory and \
             in_memory_forgets_everything";
        reader.note_at("ledger", 0, "in_memory_forgets_everything", message);
    }
    if config.vault.unlocked_memory_lets_keys_reach_swap && config.vault.memory != KeyMemory::Best {
        let message = "takes unlocked memory, which memory = \"secret\" or \"locked\" does not: give only one of the two";
        reader.note_at("vault", 0, "unlocked_memory_lets_keys_reach_swap", message);
    }
    let two_chunks = u64::from(streams.largest_chunk_size) * 2;
    if u64::from(streams.window_bytes) < two_chunks {
        let message = format!("must hold two of the largest key chunks: give at least {two_chunks} bytes");
        reader.note_at("streams", 0, "window_bytes", &message);
    }
    // Half of the vault is the most that granted key may pin.
    let two_windows = u64::from(streams.window_bytes) * 2;
    if config.vault.bytes < two_windows {
        let message =
            format!("must be twice window_bytes under [streams]: give at least {two_windows} bytes");
        reader.note_at("vault", 0, "bytes", &message);
    }
}
