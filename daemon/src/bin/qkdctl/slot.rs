//! Giving a card in a slot to vfio-pci, and taking it away. The judgement is that of the helper of the udev rules: what it would
//! not give away by itself is not given away by hand.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use qkd_daemon::operator::outcome::{Outcome, Own};
use qkd_driver::backing::vfio::PciAddress;

/// Where the package has it.
const HELPER: &str = "/usr/lib/udev/qkd-card";

pub(crate) fn bind(address: &str) -> Outcome {
    run("bind", address, true)
}

pub(crate) fn unbind(address: &str) -> Outcome {
    run("unbind", address, false)
}

fn run(what: &str, text: &str, bound: bool) -> Outcome {
    let refused = |reason: String| Outcome::Own(Own::SlotRefused { address: text.to_owned(), reason });
    let address = match text.parse::<PciAddress>() {
        Ok(address) => address.to_string(),
        Err(error) => return refused(error.to_string()),
    };
    // Tests have their own.
    let helper = std::env::var_os("QKD_CARD_HELPER").map_or_else(|| PathBuf::from(HELPER), PathBuf::from);
    let done = Command::new(&helper).args([what, &address]).stdin(Stdio::null()).output();
    match done {
        Ok(done) if done.status.success() => {
            let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
            Outcome::Own(Own::Slot { address, bound, text })
        }
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            refused(if said.is_empty() {
                format!("{} ended with {}", helper.display(), done.status)
            } else {
                said
            })
        }
        Err(error) => {
            refused(format!("{} cannot be run: {error}; it comes with the package qkdd", helper.display()))
        }
    }
}
