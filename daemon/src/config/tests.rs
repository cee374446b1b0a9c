//! Tests of the configuration: what is wrong is said with its place, and what is right is read.

use std::path::Path;

use super::read::line_and_column;
use super::*;

const LEAST: &str = r#"[module]
name = "A"
role = "leader"
[card]
pci = "0000:01:00.0"
[api]
listen = "127.0.0.1:8001"
[peer]
listen = "127.0.0.1:7001"
kms = ["kms://b"]
[[kms]]
uri = "kms://a"
endpoint = "http://127.0.0.1:9001"
"#;

const EXAMPLE: &str = include_str!("../../qkdd.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("qkdd.toml"), text)
}

/// The problems as a user sees them.
fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Wrong(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// Wants one problem, at `line:column`, with all the hints in it.
fn wrong(text: &str, place: &str, hints: &[&str]) {
    let found = problems(text);
    let [only] = found.as_slice() else { panic!("{found:#?}") };
    assert!(only.starts_with(&format!("qkdd.toml:{place}: ")), "{only}");
    for hint in hints {
        assert!(only.contains(hint), "{hint:?} is not in {only:?}");
    }
}

/// The least configuration with a line put under a section.
fn with(section: &str, line: &str) -> String {
    let header = format!("[{section}]\n");
    if LEAST.contains(&header) {
        LEAST.replace(&header, &format!("{header}{line}\n"))
    } else {
        format!("{LEAST}{header}{line}\n")
    }
}

#[test]
fn least_configuration_gets_every_default() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.module.role, Role::Leader);
    assert_eq!(config.card.backing, CardBacking::Vfio("0000:01:00.0".parse().unwrap()));
    assert_eq!(config.card.slots, 64);
    assert_eq!(config.api.listen, "127.0.0.1:8001".parse().unwrap());
    assert_eq!(config.api.profile, Profile::OpenApi);
    assert_eq!(config.peer.address, PeerAddress::Listen("127.0.0.1:7001".parse().unwrap()));
    assert_eq!(config.kms[0].endpoint.to_string(), "http://127.0.0.1:9001/api/v1/qkd/etsi004/key-material");
    assert_eq!((config.streams.default_chunk_size, config.streams.largest_chunk_size), (32, 65_536));
    assert_eq!(config.vault.bytes, 64 << 20);
    assert!(config.push.most_bytes_in_flight < 96 << 10);
    assert!(config.notices.enabled && !config.transport.plain_text_beyond_loopback_gives_keys_away);
    assert_eq!(config.log.level, log::LevelFilter::Info);
}

#[test]
fn a_makers_own_identity_and_a_slow_host_can_be_told() {
    let card = parse(LEAST).unwrap().card;
    assert_eq!(card.backing, CardBacking::Vfio("0000:01:00.0".parse().unwrap()));
    assert_eq!((card.pci_id.vendor, card.pci_id.device), (0x5144, 1));
    assert_eq!(card.grace, Duration::from_millis(100));
    let own = "pci_id = \"ABcd:0010\"\ngrace_ms = 0";
    let card = parse(&with("card", own)).unwrap().card;
    assert_eq!((card.pci_id.vendor, card.pci_id.device), (0xABCD, 0x10));
    assert_eq!(card.grace, Duration::ZERO);
    let simulated =
        parse(&LEAST.replace("pci = \"0000:01:00.0\"", "socket = \"/run/qkd/a.sock\"")).unwrap().card;
    assert_eq!(simulated.backing, CardBacking::VfioUser("/run/qkd/a.sock".into()));
    assert_eq!(simulated.grace, Duration::from_secs(5));
}

#[test]
fn example_file_is_the_least_configuration_and_shows_every_setting_at_its_default() {
    assert_eq!(parse(EXAMPLE).unwrap(), parse(LEAST).unwrap());
    // Each commented setting, taken alone, changes nothing; those without a default must at least be known.
    let mut section = "";
    let mut shown = Vec::new();
    for line in EXAMPLE.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        let setting = line.strip_prefix("# ").unwrap_or(line);
        let Some((name, value)) = setting.split_once(" = ") else { continue };
        shown.push((section, name));
        if line.starts_with('#')
            && !matches!(name, "socket" | "connect" | "through" | "directory" | "group" | "http")
            && !name.starts_with("expected")
            && !name.starts_with("certificate")
            && !name.ends_with("authorities")
            && (section != "tls" || !matches!(name, "key" | "revocation_lists"))
        {
            let config = parse(&with(section, setting)).unwrap_or_else(|e| panic!("{name} = {value}: {e}"));
            assert_eq!(config, parse(LEAST).unwrap(), "{name} is not shown at its default");
        }
    }
    let known: Vec<_> =
        reference().into_iter().flat_map(|s| s.settings.into_iter().map(move |t| (s.name, t.name))).collect();
    assert_eq!(shown, known, "the example does not show the settings that there are, in their order");
}

#[test]
fn reference_names_every_setting_with_range_and_default() {
    let text = reference_markdown();
    assert!(text.starts_with("### `[module]`\n"));
    let row = "| `default_chunk_size` | a whole number from 1 to 1048576 bytes | `32` | Key chunk size when the KMS asks \
               for none. |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("| `role` | \"leader\" or \"follower\" | required |"), "{text}");
    assert!(
        text.contains("| `expected_serial` | a whole number from 1 to 18446744073709551615 | none |"),
        "{text}"
    );
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, reference().iter().map(|s| s.settings.len()).sum::<usize>());
    assert!(
        text.lines().filter(|line| line.starts_with('|')).all(|line| line.matches('|').count() == 5),
        "{text}"
    );
}

#[test]
fn unknown_names_are_refused_with_the_one_that_was_meant() {
    wrong(&with("streams", "defualt_chunk_size = 32"), "15:1", &["default_chunk_size?", "[streams]"]);
    wrong(&with("card", "slot = 8"), "5:1", &["slots?"]);
    wrong(&with("log", "colour = 1"), "15:1", &["no setting colour", "it has level"]);
    wrong(&format!("{LEAST}[stream]\n"), "14:2", &["[stream]", "[streams]?"]);
    wrong(&format!("slots = 4\n{LEAST}"), "1:1", &["under [card]"]);
    wrong(&with("kms", "x = 1").replace("[kms]\nx = 1", "x = 1\n"), "14:1", &["[kms] has no setting x"]);
}

#[test]
fn values_out_of_range_are_refused_with_the_range_and_its_unit() {
    wrong(&with("streams", "default_chunk_size = 0"), "15:22", &["0 is not allowed", "1 to 1048576 bytes"]);
    wrong(&with("streams", "default_chunk_size = -1"), "15:22", &["-1 is not allowed"]);
    wrong(&with("streams", "ttl = 1"), "15:1", &["no setting ttl"]);
    wrong(&with("api", "head_deadline_ms = 99999999999999999999"), "7:20", &["1000 to 600000 ms"]);
    wrong(&with("card", "slots = 63"), "5:9", &["power of two from 2 to 65536 slots"]);
    wrong(&with("vault", "bytes = 4194305"), "15:9", &["multiple of 4096"]);
    wrong(&with("push", "most_bytes_in_flight = 98304"), "15:24", &["98303 bytes"]);
    wrong(&with("push", "most_in_flight = 1.5"), "15:18", &["whole number", "fraction"]);
    wrong(&with("notices", "enabled = \"yes\""), "15:11", &["true or false, not a string"]);
    wrong(&with("log", "level = \"loud\""), "15:9", &["\"loud\"", "\"error\" or \"warn\""]);
    wrong(&with("api", "profile = \"OK\""), "7:11", &["\"openapi\" or \"ok\""]);
    wrong(&LEAST.replace("\"leader\"", "\"boss\""), "3:8", &["\"leader\" or \"follower\""]);
    wrong(&LEAST.replace("\"A\"", "\"a b\""), "2:8", &["letters"]);
    wrong(&LEAST.replace("pci = \"0000:01:00.0\"", "socket = \"a.sock\""), "5:10", &["absolute path"]);
    wrong(&LEAST.replace("[\"kms://b\"]", "[]"), "10:7", &["0 values", "1 to 64"]);
    wrong(&LEAST.replace("[\"kms://b\"]", "[\"kms://b\", \"kms://b\"]"), "10:7", &["twice"]);
    wrong(&LEAST.replace("[\"kms://b\"]", "\"kms://b\""), "10:7", &["list"]);
    assert_eq!(
        parse(&with("card", "expected_serial = 0xFFFF_FFFF_FFFF_FFFF")).unwrap().card.expected_serial,
        Some(u64::MAX)
    );
}

#[test]
fn addresses_that_lead_nowhere_are_refused() {
    for (endpoint, why) in [
        ("127.0.0.1:9001", "http://"),
        ("ftp://a", "http://"),
        ("http://", "host"),
        ("http://u:p@127.0.0.1", "password"),
        ("http://127.0.0.1:0", "port"),
        ("http://127.0.0.1:65536", "port"),
        ("http://127.0.0.1:+1", "port"),
        ("http://127.0.0.1/a b", "escape"),
        ("http://127.0.0.1/a\\r\\nX: y", "escape"),
        ("http://127.0.0.1/#x", "fragment"),
        ("http://127.0.0.1?x", "path"),
        ("http://::1/", "brackets"),
        ("http://[::1", "]"),
        ("http://[x]:1", "IPv6"),
        ("http://-..-", "host"),
    ] {
        wrong(&LEAST.replace("http://127.0.0.1:9001", endpoint), "13:12", &[why, "give a URL"]);
    }
    for (written, read) in [
        ("http://localhost", "http://localhost:80/api/v1/qkd/etsi004/key-material"),
        ("HTTP://[::1]:8080/", "http://[::1]:8080/api/v1/qkd/etsi004/key-material"),
        ("http://127.0.0.1:1/own?x=%20", "http://127.0.0.1:1/own?x=%20"),
    ] {
        let config = parse(&LEAST.replace("http://127.0.0.1:9001", written)).unwrap();
        assert_eq!(config.kms[0].endpoint.to_string(), read);
    }
    wrong(&LEAST.replace("\"kms://a\"", "\"a\""), "12:7", &["scheme", "absolute URI"]);
    wrong(&LEAST.replace("127.0.0.1:8001", "localhost:8001"), "7:10", &["IP address with a port"]);
    wrong(&LEAST.replace("listen = \"127.0.0.1:7001\"", "connect = \"b\""), "9:11", &["port is missing"]);
}

#[test]
fn plain_text_beyond_loopback_needs_the_setting_that_says_what_it_gives_up() {
    let allowed = "[transport]\nplain_text_beyond_loopback_gives_keys_away = true\n";
    for (here, away, place) in [
        ("\"127.0.0.1:8001\"", "\"0.0.0.0:8001\"", "7:10"),
        ("\"127.0.0.1:8001\"", "\"[::]:8001\"", "7:10"),
        ("\"127.0.0.1:7001\"", "\"192.0.2.1:7001\"", "9:10"),
        ("listen = \"127.0.0.1:7001\"", "connect = \"b.example:7001\"", "9:11"),
        ("\"http://127.0.0.1:9001\"", "\"http://localhost.example:9001\"", "13:12"),
        ("\"http://127.0.0.1:9001\"", "\"http://[::ffff:192.0.2.1]:9001\"", "13:12"),
    ] {
        let text = LEAST.replace(here, away);
        wrong(&text, place, &["plain_text_beyond_loopback_gives_keys_away = true", "every key"]);
        parse(&format!("{text}{allowed}")).unwrap();
    }
    for near in ["http://127.9.9.9", "http://[::1]", "http://LocalHost", "http://[::ffff:127.0.0.1]"] {
        parse(&LEAST.replace("http://127.0.0.1:9001", near)).unwrap();
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    wrong(&LEAST.replace("pci = \"0000:01:00.0\"", ""), "4:1", &["pci or socket must be given", "vfio-user"]);
    wrong(&with("card", "socket = \"/run/qkd/a.sock\""), "6:7", &["only one of pci and socket"]);
    for address in ["01:00.0", "0000:0A:00.0", "0000:01:00.8", "../0000:01:00.0"] {
        wrong(&LEAST.replace("0000:01:00.0", address), "5:7", &["PCI address", "lspci -D"]);
    }
    for identity in ["5144", "5144:1", "0x5144:0x0001", "+144:0001", "5144:0001:0"] {
        wrong(&with("card", &format!("pci_id = \"{identity}\"")), "5:10", &["5144:0001"]);
    }
    wrong(&with("peer", "connect = \"127.0.0.1:7002\""), "9:11", &["only one of listen and connect"]);
    wrong(&LEAST.replace("listen = \"127.0.0.1:7001\"", ""), "8:1", &["listen or connect must be given"]);
    wrong(&LEAST.replace("7001", "8001"), "9:10", &["same as listen under [api]"]);
    wrong(&LEAST.replace("[\"kms://b\"]", "[\"kms://a\"]"), "12:7", &["one end only"]);
    let twice = format!("{LEAST}[[kms]]\nuri = \"kms://a\"\nendpoint = \"http://127.0.0.1:9002\"\n");
    wrong(&twice, "15:7", &["given already"]);
    wrong(
        &with("streams", "default_chunk_size = 65537"),
        "15:22",
        &["65537 is more than largest_chunk_size = 65536"],
    );
    wrong(&with("streams", "window_bytes = 100000"), "15:16", &["131072 bytes"]);
    wrong(&with("vault", "bytes = 4194304"), "15:9", &["8388608 bytes"]);
    wrong(
        &with("ledger", "in_memory_forgets_everything = true\ndirectory = \"/var/lib/qkd/a\""),
        "15:32",
        &["in memory", "only one"],
    );
    wrong(&with("ledger", "directory = \"ledger\""), "15:13", &["absolute path of a directory"]);
    wrong(&with("push", "backoff_first_ms = 20000"), "15:20", &["backoff_greatest_ms = 10000"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = LEAST.replace("\"leader\"", "1").replace("pci", "pic").replace("kms://a", "a");
    let found = problems(&text);
    let places: Vec<_> = found.iter().map(|p| p.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["qkdd.toml:3:8", "qkdd.toml:4:1", "qkdd.toml:5:1", "qkdd.toml:12:7"], "{found:#?}");
    let missing = problems("");
    for section in ["module", "card", "api", "peer", "[[kms]]"] {
        assert!(missing.iter().any(|p| p.contains(section)), "{section}: {missing:#?}");
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    wrong("[module\n", "1:8", &["not TOML"]);
    wrong(&format!("{LEAST}[api]\n"), "14:2", &["duplicate key"]);
    wrong(&with("module", "x = = 1"), "2:5", &["not TOML"]);
    wrong(
        &LEAST.replace("[module]\nname = \"A\"\nrole = \"leader\"", "module = 1"),
        "1:10",
        &["section", "[module]"],
    );
    wrong(&LEAST.replace("[[kms]]", "[kms]"), "11:1", &["[[kms]]"]);
}

#[test]
fn files_that_cannot_be_read_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("qkdd.toml");
    assert!(matches!(Config::load(&file), Err(ConfigError::Unreadable { .. })));
    assert!(matches!(Config::load(folder.path()), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(matches!(Config::load(&file), Err(ConfigError::TooLarge { .. })));
    std::fs::write(&file, b"[module]\nname = \"\xff\"\n").unwrap();
    let error = Config::load(&file).unwrap_err().to_string();
    assert!(error.contains(":2:9: this is not UTF-8"), "{error}");
    std::fs::write(&file, LEAST).unwrap();
    assert_eq!(Config::load(&file).unwrap(), parse(LEAST).unwrap());
}

#[test]
fn columns_count_characters() {
    assert_eq!(line_and_column("", 0), (1, 1));
    assert_eq!(line_and_column("ä = 1\nöx", "ä = 1\nö".len()), (2, 2));
    assert_eq!(line_and_column("a", 99), (1, 2));
}

/// The least configuration with TLS, and names for both.
fn secured() -> String {
    let text = LEAST
        .replace("listen = \"127.0.0.1:8001\"", "listen = \"192.0.2.1:8001\"")
        .replace("kms = [\"kms://b\"]", "kms = [\"kms://b\"]\ncertificate_name = \"Module-B.example\"")
        .replace("http://127.0.0.1:9001", "https://192.0.2.2");
    format!(
        "{text}certificate_names = [\"URI:kms://a\", \"DNS:KMS-a.example\"]\n\
         [tls]\ncertificate = \"/m.pem\"\nkey = \"/m.key\"\nauthorities = \"/ca.pem\"\n"
    )
}

#[test]
fn with_certificates_every_link_may_leave_the_machine_and_everybody_has_a_name() {
    let config = parse(&secured()).unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.key_exchange, KeyExchange::HybridPreferred);
    for authorities in [&tls.client_authorities, &tls.kms_authorities, &tls.peer_authorities] {
        assert_eq!(authorities, Path::new("/ca.pem"));
    }
    assert_eq!(config.peer.certificate_name.as_deref(), Some("module-b.example"));
    assert!(config.kms[0].endpoint.secure);
    assert_eq!(config.kms[0].endpoint.server.port, 443);
    let one = parse(&secured().replace("[tls]\n", "[tls]\npeer_authorities = \"/peer.pem\"\n"))
        .unwrap()
        .tls
        .unwrap();
    assert_eq!(
        (one.peer_authorities.as_path(), one.kms_authorities.as_path()),
        (Path::new("/peer.pem"), Path::new("/ca.pem"))
    );
    let connecting = secured()
        .replace("listen = \"127.0.0.1:7001\"", "connect = \"module-b.example:7001\"")
        .replace("certificate_name = \"Module-B.example\"\n", "");
    assert_eq!(parse(&connecting).unwrap().peer.certificate_name.as_deref(), Some("module-b.example"));
}

#[test]
fn half_a_tls_or_a_nameless_other_end_is_refused() {
    for (gone, hints) in [
        ("certificate = \"/m.pem\"\n", ["[tls] certificate", "must be given"]),
        ("key = \"/m.key\"\n", ["[tls] key", "must be given"]),
        ("authorities = \"/ca.pem\"\n", ["[tls] authorities", "must be given"]),
        ("certificate_name = \"Module-B.example\"\n", ["[peer] certificate_name", "anybody"]),
        (
            "certificate_names = [\"URI:kms://a\", \"DNS:KMS-a.example\"]\n",
            ["[kms] certificate_names", "must be given"],
        ),
    ] {
        let found = problems(&secured().replace(gone, ""));
        assert!(
            found.iter().any(|problem| hints.iter().all(|hint| problem.contains(hint))),
            "{gone}: {found:#?}"
        );
    }
    wrong(&with("tls", "key_exchange = \"hybrid-required\""), "14:1", &["no TLS"]);
    wrong(&LEAST.replace("http://", "https://"), "13:12", &["[tls]"]);
}

#[test]
fn a_certificate_stands_for_one_kms_only_and_a_wildcard_for_none() {
    let other = "[[kms]]\nuri = \"kms://c\"\nendpoint = \"https://192.0.2.3\"\n";
    let two = |names: &str| secured().replace("[tls]", &format!("{other}certificate_names = {names}\n[tls]"));
    assert!(parse(&two("[\"URI:kms://c\"]")).is_ok());
    wrong(&two("[\"URI:kms://c\", \"DNS:kms-A.example\"]"), "19:21", &["kms://a", "one KMS's"]);
    for (name, hint) in
        [("DNS:*.example", "wildcard"), ("kms-c.example", "DNS:"), ("URI:", "scheme"), ("DNS:", "host name")]
    {
        wrong(&two(&format!("[\"{name}\"]")), "19:21", &[hint]);
    }
}

#[test]
fn a_way_through_a_unix_socket_is_taken_where_something_is_connected_to_and_only_there() {
    let kms = format!("{LEAST}through = \"/run/kms.sock\"\n");
    let config = parse(&kms).unwrap();
    let reached = config.kms.first().unwrap().reached();
    assert_eq!(reached.through.as_deref(), Some(Path::new("/run/kms.sock")));
    assert_eq!(reached.to_string(), config.kms.first().unwrap().endpoint.to_string());
    let peer = LEAST.replace("kms = [\"kms://b\"]", "kms = [\"kms://b\"]\nthrough = \"/run/peer.sock\"");
    assert!(
        problems(&peer).iter().any(|problem| problem.contains("this end listens")),
        "{:?}",
        problems(&peer)
    );
    let connects = peer.replace("listen = \"127.0.0.1:7001\"", "connect = \"127.0.0.1:7001\"");
    assert_eq!(parse(&connects).unwrap().peer.through.as_deref(), Some(Path::new("/run/peer.sock")));
    // It leads to where it leads: what may travel unencrypted is judged by the endpoint.
    let beyond = kms.replace("127.0.0.1:9001", "192.0.2.7:9001");
    assert!(
        problems(&beyond).iter().any(|problem| problem.contains("without TLS")),
        "{:?}",
        problems(&beyond)
    );
}
