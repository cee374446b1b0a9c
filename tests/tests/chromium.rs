//! Chromium's TLS against the daemon's: it shares nothing with it.

use std::path::Path;
use std::process::Command;

use qkd_tests::DEADLINE;
use qkd_tests::programs::program;
use qkd_tests::secure::{Choice, Secured};
use qkd_tests::witness;
use serde_json::Value;

/// What Chromium says of the API's root, when it trusts the module's authority and shows this certificate, if any.
fn visit(secured: &Secured, own: Option<(&Path, &str)>) -> Value {
    let url = format!("https://localhost:{}/", secured.module(0).api.port());
    let mut arguments = vec![url, secured.lab.join("authority.pem").display().to_string()];
    if let Some((lab, name)) = own {
        arguments.extend(["pem", "key"].map(|kind| lab.join(format!("{name}.{kind}")).display().to_string()));
    }
    let mut browser = witness::start("browser.py", &arguments);
    let status = browser.wait(DEADLINE * 3);
    assert!(status.success(), "{}", browser.output());
    let output = browser.output();
    let line = output.lines().find(|line| line.starts_with('{')).expect("what came of it");
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn chromium_agrees_on_the_hybrid_exchange_and_gets_nothing_without_a_good_certificate() {
    let mut secured = Secured::prepare();
    secured.start_module(0, Choice::default());
    let good = visit(&secured, Some((&secured.lab, "kms-a")));
    assert_eq!(good["key_exchange"], "X25519MLKEM768", "{good}");
    assert_eq!(good["protocol"], "TLS 1.3", "{good}");
    assert_eq!(good["status"], 404, "the API has nothing at its root: {good}");

    // Chromium hears of it by the alert, or by the connection that ends: which of the two is first, nobody says.
    let refused = |visit: &Value| {
        assert!(visit["error"].as_str().is_some_and(|error| error.starts_with("net::ERR_")), "{visit}");
        assert!(visit["status"].is_null(), "{visit}");
    };
    refused(&visit(&secured, None));
    let foreign = secured.lab.with_file_name("foreign");
    let made = Command::new(program("qkd-sim")).arg("lab-certificates").arg(&foreign).status();
    assert!(made.expect("it runs").success());
    refused(&visit(&secured, Some((&foreign, "kms-a"))));
    let _ = secured.module(0).process.line("was refused in the TLS handshake", DEADLINE);
}
