//! Digests of key, as a history writes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 of `octets`.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, octets);
        let mut value = [0; 32];
        // SHA-256 has 32 octets.
        for (to, from) in value.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(value)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets = text.as_bytes();
        let mut value = [0; 32];
        if octets.len() != 2 * value.len() {
            return Err(serde::de::Error::custom("a SHA-256 digest has 64 hexadecimal digits"));
        }
        for (to, pair) in value.iter_mut().zip(octets.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(serde::de::Error::custom)?;
            *to = u8::from_str_radix(pair, 16).map_err(serde::de::Error::custom)?;
        }
        Ok(Self(value))
    }
}
