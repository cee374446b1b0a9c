//! Cryptography of TLS: ring, with the hybrid key exchange of graviola before ring's own.
//!
//! What goes over a link today may be recorded and read once large quantum computers are there; an exchange of X25519 and
//! ML-KEM-768 together stays closed then as well. ring has none, so that only this one group comes from elsewhere. graviola
//! refuses to work (it panics) on a processor without some instructions, so that it is asked for them before.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls_graviola::kx::X25519MLKEM768;

use super::TlsError;
use crate::config::KeyExchange;

/// Instructions that graviola needs.
#[cfg(target_arch = "x86_64")]
pub(super) const NEEDS: &str = "ADX, AES, AVX, AVX2, BMI1, BMI2, PCLMULQDQ";
/// Instructions that graviola needs.
#[cfg(target_arch = "aarch64")]
pub(super) const NEEDS: &str = "AES, NEON, PMULL, SHA2";
/// Instructions that graviola needs.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const NEEDS: &str = "a 64-bit x86 or Arm processor";

/// Whether this processor can do the hybrid exchange.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_hybrid() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("adx")
        && has!("aes")
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("pclmulqdq")
}

/// Whether this processor can do the hybrid exchange.
#[cfg(target_arch = "aarch64")]
pub(super) fn has_hybrid() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}

/// Whether this processor can do the hybrid exchange.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn has_hybrid() -> bool {
    false
}

/// What is offered and taken.
#[derive(Clone, Debug)]
pub(crate) struct Providers {
    /// What the policy allows.
    pub(crate) allowed: Arc<CryptoProvider>,
    /// The hybrid exchange only, for clients that can do it: rustls lets the client's order decide otherwise.
    pub(crate) hybrid: Option<Arc<CryptoProvider>>,
}

impl Providers {
    /// For a policy, on this processor.
    ///
    /// # Errors
    /// [`TlsError::NoHybrid`].
    pub(crate) fn new(policy: KeyExchange) -> Result<Self, TlsError> {
        Self::on(policy, has_hybrid())
    }

    fn on(policy: KeyExchange, has_hybrid: bool) -> Result<Self, TlsError> {
        let hybrid = has_hybrid.then(|| with_groups(vec![X25519MLKEM768]));
        let allowed = match (policy, &hybrid) {
            (KeyExchange::HybridRequired, None) => return Err(TlsError::NoHybrid { needs: NEEDS }),
            (KeyExchange::HybridRequired, Some(hybrid)) => Arc::clone(hybrid),
            (KeyExchange::HybridPreferred, None) => with_groups(ring::ALL_KX_GROUPS.to_vec()),
            (KeyExchange::HybridPreferred, Some(_)) => {
                with_groups([&[X25519MLKEM768], ring::ALL_KX_GROUPS].concat())
            }
        };
        Ok(Self { allowed, hybrid })
    }
}

fn with_groups(kx_groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups, ..ring::default_provider() })
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    fn groups(providers: &Providers) -> Vec<NamedGroup> {
        providers.allowed.kx_groups.iter().map(|group| group.name()).collect()
    }

    #[test]
    fn the_hybrid_exchange_comes_first_and_alone_where_it_is_demanded() {
        let preferred = Providers::on(KeyExchange::HybridPreferred, true).expect("providers");
        assert_eq!(groups(&preferred)[..2], [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
        let required = Providers::on(KeyExchange::HybridRequired, true).expect("providers");
        assert_eq!(groups(&required), [NamedGroup::X25519MLKEM768]);
    }

    #[test]
    fn a_lesser_processor_goes_without_or_refuses_but_never_offers_what_it_cannot_do() {
        let preferred = Providers::on(KeyExchange::HybridPreferred, false).expect("providers");
        assert!(!groups(&preferred).contains(&NamedGroup::X25519MLKEM768));
        assert!(preferred.hybrid.is_none());
        let refused = Providers::on(KeyExchange::HybridRequired, false);
        assert!(matches!(refused, Err(TlsError::NoHybrid { .. })), "{refused:?}");
    }
}
