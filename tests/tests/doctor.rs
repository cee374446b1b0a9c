//! `qkdctl doctor` on a staged host: each misconfiguration has a finding of its own with its mend, and what the daemon refuses is
//! never called healthy.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::Uid;
use qkd_sim::lab::Lab;
use qkd_tests::ports::free_ports;
use qkd_tests::programs::{program, workspace};
use serde_json::Value;
use tempfile::TempDir;

const CARD: &str = "0000:01:00.0";
const DISK: &str = "0000:01:00.2";

/// A host on which all is well, as files, with the certificates of a laboratory.
struct Host {
    root: TempDir,
    uid: u32,
    /// Holds the address of the other daemon, whom nobody else can then be.
    other: TcpListener,
}

impl Host {
    fn new() -> Self {
        // Root may do everything, so that the daemon has to be somebody else.
        let own = Uid::effective();
        let host = Self {
            root: TempDir::new().unwrap(),
            uid: if own.is_root() { 12_345 } else { own.as_raw() },
            other: TcpListener::bind("127.0.0.1:0").unwrap(),
        };
        for folder in
            ["sys/kernel/iommu_groups/7/devices", "dev/vfio", "run/systemd/timesync", "var/lib/qkd/A", "etc"]
        {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.write("run/systemd/timesync/synchronized", "");
        host.device(CARD, "0x5144", "0x0001", "vfio-pci");
        host.write("dev/vfio/7", "");
        host.mode("dev/vfio/7", 0o600);
        host.own("dev/vfio/7");
        host.mode("var/lib/qkd/A", 0o700);
        host.own("var/lib/qkd/A");
        let unit = "usr/lib/systemd/system/qkdd@.service.d";
        fs::create_dir_all(host.path(unit)).unwrap();
        host.write(&format!("{unit}/10-qkdd.conf"), "[Service]\nLimitMEMLOCK=512M\n");
        let kms = ["kms://a".to_owned(), "kms://b".to_owned()];
        let _authority =
            Lab { hosts: [vec![], vec![]], kms, days: 100 }.write(&host.path("etc/tls")).unwrap();
        for file in fs::read_dir(host.path("etc/tls")).unwrap() {
            let path = file.unwrap().path();
            chown(&path, Some(host.uid), None).unwrap();
        }
        let [api] = free_ports();
        let text = format!(
            "[module]\nname = \"A\"\nrole = \"leader\"\n[card]\npci = \"{CARD}\"\n[api]\nlisten = \"{api}\"\n\
             [peer]\nlisten = \"127.0.0.1:0\"\nkms = [\"kms://b\"]\ncertificate_name = \"{}\"\n\
             [[kms]]\nuri = \"kms://a\"\nendpoint = \"http://{}\"\ncertificate_names = [\"URI:kms://a\"]\n\
             [ledger]\ndirectory = \"{}\"\n{}",
            Lab::module_name(1),
            host.other.local_addr().unwrap(),
            host.path("var/lib/qkd/A").display(),
            fs::read_to_string(host.path("etc/tls/tls-a.toml")).unwrap(),
        );
        host.write("A.toml", &text);
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn own(&self, path: &str) {
        chown(self.path(path), Some(self.uid), None).unwrap();
    }

    fn device(&self, address: &str, vendor: &str, device: &str, driver: &str) {
        let place = self.path("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&place).unwrap();
        for (name, text) in [("vendor", vendor), ("device", device), ("class", "0x108000")] {
            fs::write(place.join(name), format!("{text}\n")).unwrap();
        }
        let group = self.path("sys/kernel/iommu_groups/7");
        symlink(&group, place.join("iommu_group")).unwrap();
        symlink(&place, group.join("devices").join(address)).unwrap();
        if !driver.is_empty() {
            symlink(Path::new("/sys/bus/pci/drivers").join(driver), place.join("driver")).unwrap();
        }
    }

    /// Changes the configuration.
    fn configure(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("A.toml")).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        self.write("A.toml", &text.replacen(from, to, 1));
    }

    /// What `qkdctl doctor` says of it.
    fn examine(&self) -> Report {
        let done = self.doctor().args(["-o", "json"]).output().unwrap();
        let said: Value =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|why| panic!("{why}: {done:?}"));
        let healthy = said["healthy"].as_bool().unwrap();
        assert_eq!(done.status.code(), Some(i32::from(!healthy)), "{done:?}");
        let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_owned();
        let findings = said["findings"].as_array().unwrap().iter();
        let findings = findings.map(|f| (text(f, "check"), text(f, "verdict"), text(f, "mend"))).collect();
        Report { healthy, findings, said }
    }

    fn doctor(&self) -> Command {
        let mut command = Command::new(program("qkdctl"));
        command.args(["doctor", "--user", &self.uid.to_string(), "--config"]).arg(self.path("A.toml"));
        command.arg("--root").arg(self.root.path());
        command
    }

    /// What the daemon says of the configuration.
    fn check_config(&self) -> Output {
        Command::new(program("qkdd"))
            .arg("--check-config")
            .arg("--config")
            .arg(self.path("A.toml"))
            .output()
            .unwrap()
    }
}

#[derive(Debug)]
struct Report {
    healthy: bool,
    /// Check, verdict and mend.
    findings: Vec<(String, String, String)>,
    said: Value,
}

impl Report {
    fn with(&self, verdict: &str) -> Vec<&(String, String, String)> {
        self.findings.iter().filter(|(_, found, _)| found == verdict).collect()
    }
}

#[test]
fn a_host_on_which_all_is_well_is_called_healthy() {
    let host = Host::new();
    let report = host.examine();
    assert!(report.with("FAIL").is_empty() && report.healthy, "{report:#?}");
    assert!(report.with("PASS").len() >= 15, "{report:#?}");
    let schema = fs::read_to_string(workspace().join("docs/schema/doctor.json")).unwrap();
    qkd_tests::schema::check(&report.said, &serde_json::from_str(&schema).unwrap());
    assert!(host.check_config().status.success());
}

/// A misconfiguration: its finding, words of its mend, and how it comes about.
type Staged = (&'static str, &'static str, fn(&Host));

const STAGED: &[Staged] = &[
    ("iommu", "intel_iommu=on", |host| fs::remove_dir_all(host.path("sys/kernel/iommu_groups")).unwrap()),
    ("card.present", "lspci", |host| {
        fs::remove_dir_all(host.path("sys/bus/pci/devices").join(CARD)).unwrap()
    }),
    ("card.present", "card.pci", |host| {
        fs::write(host.path("sys/bus/pci/devices").join(CARD).join("device"), "0x0002\n").unwrap();
    }),
    ("card.group", "slot", |host| host.device(DISK, "0x1234", "0x5678", "nvme")),
    ("card.group", "enable_unsafe_noiommu_mode", |host| {
        host.write("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    }),
    ("card.driver", "drivers/other/unbind", |host| {
        let driver = host.path("sys/bus/pci/devices").join(CARD).join("driver");
        fs::remove_file(&driver).unwrap();
        symlink("/sys/bus/pci/drivers/other", driver).unwrap();
    }),
    ("card.driver", "modprobe vfio-pci", |host| {
        fs::remove_file(host.path("sys/bus/pci/devices").join(CARD).join("driver")).unwrap();
    }),
    ("card.node", "qkd-card", |host| host.mode("dev/vfio/7", 0o000)),
    ("card.node", "udevadm trigger", |host| fs::remove_file(host.path("dev/vfio/7")).unwrap()),
    ("memory.limit", "LimitMEMLOCK=", |host| {
        host.write("usr/lib/systemd/system/qkdd@.service.d/20-less.conf", "[Service]\nLimitMEMLOCK=8M\n");
    }),
    ("memory.secret", "secretmem.enable=1", |host| {
        fs::create_dir_all(host.path("sys/module/secretmem/parameters")).unwrap();
        host.write("sys/module/secretmem/parameters/enable", "N\n");
        host.configure("[ledger]", "[vault]\nmemory = \"secret\"\n[ledger]");
    }),
    ("certificates", "certificates.md", |host| host.mode("etc/tls/module-a.key", 0o644)),
    ("certificates", "certificates.md", |host| fs::remove_file(host.path("etc/tls/module-a.pem")).unwrap()),
    ("certificates", "certificates.md", |host| {
        fs::copy(host.path("etc/tls/kms-a.key"), host.path("etc/tls/module-a.key")).map(drop).unwrap();
    }),
    ("certificates.readable", "chown root:qkd", |host| host.mode("etc/tls/authority.pem", 0o000)),
    ("ledger", "chmod 700", |host| host.mode("var/lib/qkd/A", 0o777)),
    ("ledger", "install -d", |host| host.configure("var/lib/qkd/A\"", "var/lib/nothing/A\"")),
    ("ledger", "backup", |host| {
        host.write("var/lib/qkd/A/ledger.redb", "");
        host.own("var/lib/qkd/A/ledger.redb");
        host.mode("var/lib/qkd/A/ledger.redb", 0o600);
    }),
    ("audit", "move", |host| {
        fs::create_dir_all(host.path("var/lib/qkd/A/audit")).unwrap();
        host.write("var/lib/qkd/A/audit/head", "5 x\n");
        host.write("var/lib/qkd/A/audit/audit.000001.jsonl", "{}\n");
    }),
    ("operator.group", "groupadd", |host| {
        host.configure("[ledger]", "[operator]\ngroup = \"nobody-has-this-group\"\n[ledger]");
    }),
    ("api.listen", "free address", |host| {
        let text = fs::read_to_string(host.path("A.toml")).unwrap();
        let listen = text.split("[api]\nlisten = \"").nth(1).unwrap().split('"').next().unwrap();
        host.configure(listen, &host.other.local_addr().unwrap().to_string());
    }),
    ("kms", "kms.endpoint", |host| {
        // Who answers there speaks no TLS, and is nobody.
        host.configure("endpoint = \"http:", "endpoint = \"https:");
        let other = host.other.try_clone().unwrap();
        std::thread::spawn(move || drop(other.accept()));
    }),
    ("config", "Configuration", |host| host.configure("role = \"leader\"", "role = \"boss\"")),
];

#[test]
fn each_misconfiguration_has_its_own_finding_with_its_mend() {
    for (number, (check, mend, stage)) in STAGED.iter().enumerate() {
        // Without root's rights the doctor cannot read it either, which is another finding.
        if *check == "certificates.readable" && !Uid::effective().is_root() {
            continue;
        }
        let host = Host::new();
        stage(&host);
        let report = host.examine();
        let found = report.with("FAIL");
        let one = found.iter().find(|(id, ..)| id == check);
        let one = one.unwrap_or_else(|| panic!("{number}: no finding {check}: {report:#?}"));
        assert!(one.2.contains(mend), "{number}: {one:?}");
        assert!(!report.healthy);
        // An operator who mends one thing must not be sent after others that are all right.
        let follows: &[&str] = if *check == "iommu" { &["card.group", "card.node"] } else { &[] };
        let others: Vec<_> =
            found.iter().filter(|(id, ..)| id != check && !follows.contains(&id.as_str())).collect();
        assert!(others.is_empty(), "{number} {check}: {others:?}");
    }
    assert!(STAGED.len() >= 10);
    let host = Host::new();
    host.mode("var/lib/qkd/A", 0o777);
    let done = host.doctor().output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL ledger: ") && said.contains("     mend: chown"), "{said}");
}

/// A small generator of numbers: a seed repeats a run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// A configuration with something done to it.
fn mutated(text: &str, dice: &mut Dice) -> String {
    const VALUES: [&str; 9] =
        ["0", "-1", "99999999999", "\"\"", "\"x\"", "true", "[]", "\"/nowhere/x.pem\"", "1.5"];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=dice.roll(2) {
        let at = dice.roll(lines.len());
        match dice.roll(5) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[dice.roll(lines.len())].clone()),
            2 => {
                if let Some((name, _)) = lines[at].clone().split_once(" = ") {
                    lines[at] = format!("{name} = {}", VALUES[dice.roll(VALUES.len())]);
                }
            }
            3 => {
                let mut octets = lines[at].clone().into_bytes();
                if !octets.is_empty() {
                    let place = dice.roll(octets.len());
                    octets[place] = b' ' + u8::try_from(dice.roll(95)).unwrap();
                }
                lines[at] = String::from_utf8_lossy(&octets).into_owned();
            }
            _ => lines.insert(at, "# nothing but a comment".to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn what_the_daemon_refuses_is_never_called_healthy() {
    let host = Host::new();
    let good = fs::read_to_string(host.path("A.toml")).unwrap();
    let mut dice = Dice(20_261_127);
    let (mut refused, mut taken) = (0, 0);
    for round in 0..300 {
        let text = mutated(&good, &mut dice);
        host.write("A.toml", &text);
        let daemon = host.check_config();
        if daemon.status.success() {
            taken += 1;
            continue;
        }
        refused += 1;
        let report = host.examine();
        assert!(!report.healthy, "round {round}: {report:#?}\n{daemon:?}\n{text}");
        let named = report.with("FAIL").iter().any(|(id, ..)| id == "config" || id == "certificates");
        assert!(named, "round {round}: {report:#?}");
    }
    assert!(refused >= 100 && taken >= 50, "{refused} refused, {taken} taken");
    host.write("A.toml", &good);
    assert!(host.examine().healthy, "the host is healthy but for what was done to its configuration");
}
