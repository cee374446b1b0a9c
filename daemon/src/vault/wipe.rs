//! The one way in which this process wipes key that it can address as a slice.

/// Writes zeros over `octets`, also where the compiler sees that nobody reads them again.
///
/// The feature `no-wipe-for-tests` makes it do nothing, so that a test can show that its search for key finds what was left
/// behind. No program that is built like what is shipped can have that feature.
pub(crate) fn wipe(octets: &mut [u8]) {
    if cfg!(not(feature = "no-wipe-for-tests")) {
        zeroize::Zeroize::zeroize(octets);
    }
}

#[cfg(all(feature = "no-wipe-for-tests", not(debug_assertions)))]
compile_error!(
    "no-wipe-for-tests leaves key in memory: it is for tests of debug builds, and no release may have it"
);
