//! The README's configuration reference is the one that the code has.

use std::path::Path;

use qkd_daemon::config::{Config, reference_markdown};

const BEGIN: &str = "<!-- configuration -->\n";
const END: &str = "<!-- end of configuration -->";

#[test]
fn the_reference_in_the_readme_is_not_out_of_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README has a configuration section");
    let (found, after) = rest.split_once(END).expect("README's configuration section has an end");
    let wanted = reference_markdown();
    if std::env::var_os("QKD_UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == wanted,
        "README's configuration reference is out of date: run this test with QKD_UPDATE_README=1"
    );
}

#[test]
fn the_walk_through_s_files_are_right() {
    for name in ["module-a.toml", "module-b.toml"] {
        Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab").join(name)).unwrap();
    }
}
