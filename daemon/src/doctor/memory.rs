//! Memory for keys: how much may be locked, and whether the kernel gives secret memory.

use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::finding::Findings;
use super::host::Host;
use crate::config::{Config, KeyMemory};
use crate::vault::has_secret_memory;

/// Where systemd looks for units, the most important last.
const UNITS: [&str; 3] = ["/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system"];
/// Beside the vault: the card's slots in DMA memory and the send buffers of a few streams.
const BESIDE: u64 = 64 << 20;

/// Looks at what the configuration needs.
pub(super) fn look(config: &Config, instance: &str, host: &Host, findings: &mut Findings) {
    limit(config, instance, host, findings);
    secret(config, host, findings);
}

fn limit(config: &Config, instance: &str, host: &Host, findings: &mut Findings) {
    const CHECK: &str = "memory.limit";
    let unit = ["qkdd@", "qkdd-sim@"].iter().find_map(|unit| limit_of_unit(unit, instance, host));
    let (limit, whose) = match unit {
        Some(limit) => (limit, "LimitMEMLOCK= of the systemd unit"),
        None => {
            let own = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(_, hard)| hard);
            (if own == RLIM_INFINITY { u64::MAX } else { own }, "the limit of whoever asks (ulimit -H -l)")
        }
    };
    let bytes = config.vault.bytes;
    let shown = if limit == u64::MAX { "unlimited".to_owned() } else { format!("{limit} bytes") };
    let mend = format!(
        "set LimitMEMLOCK={} in the systemd unit (systemctl edit qkdd@), or ulimit -l, or make vault.bytes smaller",
        bytes.saturating_add(BESIDE)
    );
    let detail = format!("{bytes} bytes of memory for keys must be locked, and {whose} is {shown}");
    if limit < bytes && config.vault.unlocked_memory_lets_keys_reach_swap {
        findings.warn(
            CHECK,
            format!("{detail}; key may reach a swap disk, as the configuration allows"),
            mend,
        );
    } else if limit < bytes {
        findings.fail(CHECK, detail, mend);
    } else if limit < bytes.saturating_add(BESIDE) {
        findings.warn(
            CHECK,
            format!("{detail}, which leaves little for the card's slots and send buffers"),
            mend,
        );
    } else {
        findings.pass(CHECK, format!("{whose} is {shown}"));
    }
}

/// What the unit of an instance says, with the files that add to it.
fn limit_of_unit(unit: &str, instance: &str, host: &Host) -> Option<u64> {
    let mut found = None;
    for folder in UNITS {
        let folder = host.path(folder);
        for name in [format!("{unit}.service"), format!("{unit}{instance}.service")] {
            let _ = read_limit(&folder.join(&name), &mut found);
            let mut parts: Vec<_> = fs::read_dir(folder.join(format!("{name}.d")))
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect();
            parts.sort_unstable();
            for part in parts.iter().filter(|part| part.extension().is_some_and(|e| e == "conf")) {
                let _ = read_limit(part, &mut found);
            }
        }
    }
    found
}

fn read_limit(file: &Path, found: &mut Option<u64>) -> std::io::Result<()> {
    let text = fs::read_to_string(file)?;
    let values = text.lines().filter_map(|line| line.trim().strip_prefix("LimitMEMLOCK="));
    for value in values {
        // Soft and hard limit may be given apart; the daemon raises the soft one.
        let hard = value.rsplit(':').next().unwrap_or_default().trim();
        if let Some(octets) = octets(hard) {
            *found = Some(octets);
        }
    }
    Ok(())
}

fn octets(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text.strip_prefix(digits)? {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn secret(config: &Config, host: &Host, findings: &mut Findings) {
    const CHECK: &str = "memory.secret";
    let switch = fs::read_to_string(host.path("/sys/module/secretmem/parameters/enable"));
    let off = switch.is_ok_and(|switch| switch.trim() == "N");
    let gives = !off && has_secret_memory();
    let mend = "Linux 5.14 or later has it, before 6.5 with secretmem.enable=1 on the kernel's command line; without it, keys lie in \
                locked memory, with vault.memory = \"best\" or \"locked\"";
    match (gives, config.vault.memory) {
        (true, _) => findings.pass(CHECK, "the kernel gives secret memory (memfd_secret)"),
        (false, KeyMemory::Locked) => findings.pass(CHECK, "not wanted: vault.memory is \"locked\""),
        (false, KeyMemory::Best) => {
            findings.warn(CHECK, "the kernel gives no secret memory (memfd_secret)", mend)
        }
        (false, KeyMemory::Secret) => {
            findings.fail(CHECK, "vault.memory is \"secret\", and the kernel gives no secret memory", mend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::octets;

    #[test]
    fn limits_are_read_as_systemd_writes_them() {
        assert_eq!(octets("512M"), Some(512 << 20));
        assert_eq!(octets("infinity"), Some(u64::MAX));
        assert_eq!(octets("65536"), Some(65_536));
        for wrong in ["", "M", "12X", "99999999999999999999", "18446744073709551615T"] {
            assert_eq!(octets(wrong), None, "{wrong}");
        }
    }
}
