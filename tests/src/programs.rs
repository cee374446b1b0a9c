//! The programs under test, built once per test run by the same cargo and in the same target folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Beside `CARGO_PKG_*`, what cargo tells a test of the package it belongs to.
const TOLD: &[&str] =
    &["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' folder lies in the workspace")
}

/// Path of a `qkdd` that does not wipe key, to show that a search for key finds what stays behind. Built in debug, as nothing
/// that is shipped can be.
///
/// # Panics
/// When the build fails.
#[must_use]
pub fn program_that_does_not_wipe() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let target = build(&["-p", "qkd-daemon", "--bin", "qkdd", "--features", "no-wipe-for-tests"]);
        let file = target.join("debug").join("qkdd-that-does-not-wipe");
        // Under a name of its own: whoever builds `qkdd` again gets one that wipes.
        std::fs::rename(target.join("debug").join("qkdd"), &file).expect("it was built");
        file
    })
    .clone()
}

/// Path of `qkdd` or `qkd-sim`, built in release like what is shipped.
///
/// # Panics
/// When the build fails: no test may pass on an old binary.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| build(&["--release", "-p", "qkd-daemon", "-p", "qkd-sim"]).join("release"))
        .join(name)
}

/// Makes `path` a program that is this shell script. Like [`copy_program`], it has another process write: whatever a test
/// beside this one starts would keep a file open that is open for writing here, and what is open for writing does not run.
///
/// # Panics
/// When it cannot be written.
pub fn write_script(path: &Path, script: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().expect("install runs");
    let mut text = install.stdin.take().expect("a pipe");
    text.write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).expect("it is read");
    drop(text);
    assert!(install.wait().expect("it ends").success(), "{} is written", path.display());
}

/// Copies a program, for every user of this machine.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(status.expect("install runs").success(), "{} is copied", from.display());
}

/// Builds; answers cargo's target folder.
fn build(what: &[&str]) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet"]).args(what);
    // What cargo tells this test about its package would make build scripts run, and all above them build, anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || TOLD.contains(&name)) {
            build.env_remove(&name);
        }
    }
    // As ./dev builds what is shipped, so that neither builds again what the other has built.
    for (name, shipped) in [("RUSTFLAGS", "QKD_SHIPPED_RUSTFLAGS"), ("CFLAGS", "QKD_SHIPPED_CFLAGS")] {
        if let (true, Ok(flags)) = (what.contains(&"--release"), std::env::var(shipped)) {
            let own = std::env::var(name).unwrap_or_default();
            build.env(name, format!("{own} {flags}"));
        }
    }
    let status = build.current_dir(workspace()).status().expect("cargo runs");
    assert!(status.success(), "the programs under test must build");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |folder| workspace().join(folder))
}
