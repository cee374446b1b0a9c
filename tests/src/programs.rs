//! The programs under test, built once per test run by the same cargo and in the same target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Beside `CARGO_PKG_*`, what cargo tells a test of the package it belongs to.
const TOLD: &[&str] =
    &["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' folder lies in the workspace")
}

/// Path of `qkdd` or `qkd-sim`, built in release like what is shipped.
///
/// # Panics
/// When the build fails: no test may pass on an old binary.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--release", "--quiet", "-p", "qkd-daemon", "-p", "qkd-sim"]);
            // What cargo tells this test about its package would make build scripts run, and all above them build, anew.
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || TOLD.contains(&name)) {
                    build.env_remove(&name);
                }
            }
            let status = build.current_dir(workspace()).status().expect("cargo runs");
            assert!(status.success(), "the programs under test must build");
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| workspace().join("target"), |folder| workspace().join(folder));
            target.join("release")
        })
        .join(name)
}
