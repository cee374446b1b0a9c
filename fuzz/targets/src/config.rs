//! The configuration file.

use std::path::Path;

use qkd_daemon::config::{Config, ConfigError, is_loopback};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "config", run, seeds, bounded: 3_000, longest: 16_384 };

fn run(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match Config::parse(Path::new("fuzzed.toml"), text) {
        Ok(config) => {
            assert!(!config.kms.is_empty(), "no KMS");
            let open = config.transport.plain_text_beyond_loopback_gives_keys_away;
            assert!(open || is_loopback(config.api.listen.ip()), "beyond loopback: {}", config.api.listen);
            for (number, kms) in config.kms.iter().enumerate() {
                assert!(
                    config.kms.iter().skip(number + 1).all(|other| other.uri != kms.uri),
                    "{} twice",
                    kms.uri
                );
                assert!(!config.peer.kms.contains(&kms.uri), "{} at both ends", kms.uri);
            }
        }
        Err(ConfigError::Wrong(problems)) => {
            assert!(!problems.is_empty(), "refused for no reason");
            let lines = text.lines().count().max(1) + 1;
            for problem in &problems {
                assert!(problem.line >= 1 && problem.line <= lines, "{problem}");
                assert!(problem.message.len() < 4096, "a problem of {} octets", problem.message.len());
            }
        }
        Err(other) => panic!("{other}"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../daemon/qkdd.example.toml");
    // Every setting given, as the example shows it in comments.
    let all: String = example
        .lines()
        .map(|line| if line.starts_with("# ") && line.contains(" = ") { &line[2..] } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let files = [
        example,
        &all,
        include_str!("../../../lab/module-a.toml"),
        include_str!("../../../packaging/card.toml"),
        "[[kms]]\nuri = \"kms://a\"\nendpoint = \"http://[::1]:9001/x?y\"\n",
    ];
    files.map(|file| file.as_bytes().to_vec()).to_vec()
}
