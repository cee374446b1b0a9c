//! qkdd.toml(5): the configuration, from the list that the daemon reads it by.

use qkd_daemon::config::reference;
use roff::{Inline, Roff, bold, italic, roman};

use super::pages::MANUAL;

/// The page.
pub(super) fn page() -> String {
    let mut page = Roff::new();
    let source = concat!("qkd ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["QKDD.TOML", "5", "", source, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("qkdd.toml - configuration of qkdd, one file for each QKD card")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("The file is TOML. Under systemd, the module on the card at ADDRESS reads "),
        italic("/etc/qkd/ADDRESS.toml"),
        roman(". What it says is checked as a whole before anything starts:"),
    ]);
    page.control("PP", []);
    page.text([bold("qkdd --check-config --config FILE")]);
    page.control("PP", []);
    page.text([roman(
        "names every mistake with line and column. A setting that is not named here is a mistake. Settings without a default \
         may be left out unless they are required.",
    )]);
    for section in reference() {
        let name = if section.name == "kms" { "[[kms]]".to_owned() } else { format!("[{}]", section.name) };
        page.control("SH", [name.as_str()]);
        page.text([roman(section.about.trim())]);
        for setting in section.settings {
            page.control("TP", []);
            let default: Vec<Inline> = match setting.default.as_str() {
                "required" => vec![roman(", required")],
                "none" => Vec::new(),
                value => vec![roman(", default "), italic(value)],
            };
            let head = [bold(setting.name), roman(": "), roman(setting.allowed.as_str())];
            page.text(head.into_iter().chain(default).collect::<Vec<_>>());
            page.text([roman(setting.meaning.trim())]);
        }
    }
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([italic("/etc/qkd/ADDRESS.toml")]);
    page.text([roman("The configuration of the module on that card: written by root, read by the daemon.")]);
    page.control("TP", []);
    page.text([italic("/usr/share/doc/qkdd/examples/")]);
    page.text([roman("A smallest configuration, and one with every setting.")]);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("qkdd(8), qkdctl(8)")]);
    page.render()
}
