//! Where a card is on the PCI bus.

use std::fmt;
use std::str::FromStr;

/// Address of a PCI function as the kernel writes it: domain, bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text is no PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no PCI address of the form 0000:01:00.0; lspci -D shows them")]
pub struct BadPciAddress;

/// Devices on a bus.
const DEVICES: u8 = 32;
/// Functions of a device.
const FUNCTIONS: u8 = 8;

impl FromStr for PciAddress {
    type Err = BadPciAddress;

    /// Reads `DDDD:BB:DD.F` in lower-case hexadecimal, the one way in which the kernel writes it: the address also names
    /// files and units, which must not have two spellings.
    fn from_str(text: &str) -> Result<Self, BadPciAddress> {
        let parsed = parse(text).ok_or(BadPciAddress)?;
        if parsed.to_string() == text { Ok(parsed) } else { Err(BadPciAddress) }
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let octet = |text: &str| u8::from_str_radix(text, 16).ok();
    Some(PciAddress {
        domain: u32::from_str_radix(domain, 16).ok()?,
        bus: octet(bus)?,
        device: octet(device).filter(|device| *device < DEVICES)?,
        function: octet(function).filter(|function| *function < FUNCTIONS)?,
    })
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::PciAddress;

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_the_same(text in "[0-9a-fA-F:. +/-]{0,16}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                assert_eq!(address.to_string(), text);
            }
        }

        #[test]
        fn every_address_is_read_back(domain in 0_u32..0x2_0000, bus: u8, device in 0_u8..32, function in 0_u8..8) {
            let address = PciAddress { domain, bus, device, function };
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn a_second_spelling_or_a_path_is_no_address() {
        for text in [
            "01:00.0",
            "0000:01:00",
            "0000:1:0.0",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:0A:00.0",
            "",
            "../..",
            "0000:01:00.0 ",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }
}
