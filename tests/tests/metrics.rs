//! Metrics, alerts and dashboard, by Prometheus's own tools.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use qkd_tests::ends::Ends;
use qkd_tests::operator::{PAGE, get, page_of};
use qkd_tests::programs::workspace;
use serde_json::Value;

fn folder() -> PathBuf {
    workspace().join("packaging/prometheus")
}

/// Runs promtool in the folder of the rules; answers whether it was content, and what it said.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    tool.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let done = tool.wait_with_output().expect("it ends");
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (done.status.success(), said)
}

/// Names of metrics in an expression or in rules.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("qkd_")).map(str::to_owned).collect()
}

/// Every `expr` in the dashboard.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(text) if name == "expr" => vec![text.to_owned()],
                _ => expressions(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn metrics_pass_promtool_and_alerts_and_dashboard_use_none_that_are_not_there() {
    let mut ends = Ends::start_with(&["--weather", "calm", "--rate", "4M", "--key", "positional"], PAGE);
    let page = page_of(&ends, 0);
    ends.start_kms(1);
    ends.wait_for_chunks(10);
    // The card is read once a second.
    ends.wait_until("a measurement", |_| get(page, "/metrics").body.contains("\nqkd_qber_ratio "));
    let metrics = get(page, "/metrics").body;
    let (content, said) = promtool(&["check", "metrics"], &metrics);
    assert!(content, "{said}\n{metrics}");
    let planted = metrics.replace("# HELP qkd_ready ", "# HELP qkd_redy ");
    assert!(!promtool(&["check", "metrics"], &planted).0, "a metric without help was not seen");

    let mut known = names(&metrics);
    // Only with TLS, and only once a fault has been.
    known.insert("qkd_certificate_expiry_timestamp_seconds".into());
    known.insert("qkd_card_faults_total".into());
    let rules = std::fs::read_to_string(folder().join("qkdd.rules.yml")).expect("the rules");
    let dashboard = std::fs::read_to_string(folder().join("grafana-dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 12, "{expressions:?}");
    for (whose, text) in [("the rules", &rules), ("the dashboard", &expressions.join("\n"))] {
        let unknown: Vec<_> = names(text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{whose} use {unknown:?}");
    }
    // promtool knows PromQL, and Grafana's own words are numbers and names to it.
    for expression in expressions {
        let plain = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let rule = format!("groups: [{{name: one, rules: [{{record: a:b, expr: {plain:?}}}]}}]");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), rule).expect("it can be written");
        let (content, said) = promtool(&["check", "rules", &file.path().display().to_string()], "");
        assert!(content, "{expression}: {said}");
    }
}

#[test]
fn each_alert_fires_for_its_planted_state_and_none_for_a_module_that_is_well() {
    let (content, said) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", "qkdd.rules.yml"], "");
    assert!(content, "{said}");
    let (content, said) = promtool(&["test", "rules", "qkdd.rules.test.yml"], "");
    assert!(content, "{said}");
    // Every alert is among those that the test expects, so that none is left untried.
    let text = |name: &str| std::fs::read_to_string(folder().join(name)).expect("the file");
    let tried = text("qkdd.rules.test.yml");
    for alert in text("qkdd.rules.yml").lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tried.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tried");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (rules, tests) = (text("qkdd.rules.yml").replace("> 0.08", "> 0.80"), folder.path().join("test.yml"));
    std::fs::write(folder.path().join("qkdd.rules.yml"), rules).expect("it can be written");
    std::fs::write(&tests, &tried).expect("it can be written");
    let (content, _) = promtool(&["test", "rules", &tests.display().to_string()], "");
    assert!(!content, "an alert that never fires was not seen");
}
