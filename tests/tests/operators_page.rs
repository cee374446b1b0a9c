//! The pages for operators and card makers name messages and files that there are.

use std::fs;
use std::io;
use std::path::Path;

use qkd_driver::backing::PciIdentity;
use qkd_driver::backing::vfio::{Function, VfioError};
use qkd_tests::programs::workspace;

fn page(name: &str) -> String {
    fs::read_to_string(workspace().join("docs").join(name)).expect("the page")
}

/// Parts of messages, from the first column of the table behind the line that has `heading`.
fn fragments(page: &str, heading: &str) -> Vec<String> {
    let rows =
        page.lines().skip_while(|line| !line.contains(heading)).skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let columns = rows.map(|row| row.split(" | ").next().expect("a first column").to_owned());
    columns
        .flat_map(|column| column.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Every source file below `folder`, with the breaks in its strings joined.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = fs::read_to_string(path).expect("a source file");
            let mut joined = file.split("\\\n");
            text += joined.next().unwrap_or_default();
            joined.for_each(|line| text += line.trim_start());
        }
    }
    text
}

/// One of each error that keeps the driver from a card in a slot.
fn every_error() -> Vec<VfioError> {
    let address = "0000:01:00.0".parse().expect("an address");
    let identity = Some(PciIdentity { vendor: 0x8086, device: 0x10d3 });
    let function = || Function { address: "0000:01:00.1".into(), identity, driver: Some("e1000e".into()) };
    let source = || io::Error::from(io::ErrorKind::PermissionDenied);
    let node = || "/dev/vfio/7".into();
    vec![
        VfioError::NoDevice { address },
        VfioError::NotBound { address, driver: None },
        VfioError::NoIommuGroup { address },
        VfioError::NoIommuMode { address },
        VfioError::GroupShared { address, group: 7, foreign: vec![function()] },
        VfioError::GroupNotViable { address, group: 7, members: vec![function()] },
        VfioError::NotPermitted { node: node(), source: source() },
        VfioError::InUse { node: node() },
        VfioError::NoNode { node: node(), source: source() },
        VfioError::MemoryLock { length: 1, needed: 3, limit: 2 },
        VfioError::PinnedMemory { length: 1, limit: 2 },
        VfioError::NotConfined { address },
        VfioError::NoAddresses { length: 1, offered: "nothing".into() },
        VfioError::ResetRefused { address, source: source() },
    ]
}

#[test]
fn every_reason_why_a_card_in_a_slot_cannot_be_had_is_explained() {
    let fragments = fragments(&page("operators.md"), "From the daemon,");
    for error in every_error() {
        let text = error.to_string();
        assert!(fragments.iter().any(|fragment| text.contains(fragment)), "not explained: {text}");
    }
}

#[test]
fn no_message_is_explained_that_nobody_prints() {
    let page = page("operators.md");
    let programs = sources(&workspace().join("driver/src")) + &sources(&workspace().join("daemon/src"));
    let explained = fragments(&page, "From the daemon,");
    assert!(explained.len() > 20, "{explained:?}");
    for fragment in explained {
        assert!(programs.contains(&fragment), "nobody prints {fragment:?}");
    }
    let helper = fs::read_to_string(workspace().join("udev/qkd-card")).expect("udev's helper");
    let explained = fragments(&page, "From the udev rules,");
    assert!(explained.len() > 5, "{explained:?}");
    for fragment in explained {
        assert!(helper.contains(&fragment), "udev's helper does not print {fragment:?}");
    }
}

#[test]
fn links_and_commands_lead_to_files_that_are_there() {
    let pages = fs::read_dir(workspace().join("docs")).expect("a folder");
    let names = pages.map(|page| page.expect("an entry").file_name().into_string().expect("a name"));
    for name in names.filter(|name| name.ends_with(".md")) {
        let text = page(&name);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.starts_with("https:")) {
            assert!(workspace().join("docs").join(link).exists(), "{name}: {link}");
        }
        let files = text.split(['`', ' ']).filter(|word| word.starts_with("tests/"));
        for file in files {
            assert!(workspace().join(file).exists(), "{name}: {file}");
        }
    }
}
