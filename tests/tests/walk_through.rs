//! The README's walk through, typed as it stands there (but for ports and folder, so that it disturbs nobody).

use std::process::Command;

use nix::sys::signal::{Signal, killpg};
use qkd_tests::DEADLINE;
use qkd_tests::ports::{free_ports, with_ports};
use qkd_tests::process::Process;
use qkd_tests::programs::{program, workspace};
use std::os::unix::process::CommandExt;

/// Every block of the README that follows `<!-- walk -->`, one after the other.
fn walk() -> String {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("<!-- walk -->\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .collect();
    assert_eq!(blocks.len(), 4, "the walk through has four blocks");
    blocks.concat()
}

#[test]
fn what_the_readme_tells_to_type_gives_the_same_keys_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let ports = free_ports::<5>();
    let adapt = |text: &str| {
        with_ports(text, "", &["8001", "8002", "7001", "9001", "9002"], &ports)
            .replace("/tmp/qkd-lab", folder.path().to_str().unwrap())
    };
    for name in ["module-a.toml", "module-b.toml"] {
        let text = std::fs::read_to_string(workspace().join("lab").join(name)).unwrap();
        std::fs::write(folder.path().join(name), adapt(&text)).unwrap();
    }
    let binaries = program("qkdd").parent().unwrap().to_str().unwrap().to_owned();
    let script = adapt(&walk())
        .replace("cargo build --release --quiet\n", "")
        .replace("lab/module-", &format!("{}/module-", folder.path().to_str().unwrap()))
        .replace("target/release", &binaries);
    let mut command = Command::new("bash");
    command.args(["-e", "-c", &script]).current_dir(workspace()).process_group(0);
    let mut shell = Process::start("the walk through", &mut command);
    let line = shell.line("the same keys at both ends", DEADLINE);
    assert_eq!(line, "the same keys at both ends");
    let ended = shell.wait(DEADLINE);
    let output = shell.output();
    let _ = killpg(shell.pid(), Signal::SIGKILL);
    assert!(ended.success(), "{output}");
    for part in ["\"status\":1", "\"status\":0", "key_chunk_size"] {
        assert!(output.replace(' ', "").contains(part), "{part} is missing:\n{output}");
    }
}
