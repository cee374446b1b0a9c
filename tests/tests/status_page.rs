//! The status page in Chromium, beside what `/metrics` says.

use qkd_tests::DEADLINE;
use qkd_tests::ends::Ends;
use qkd_tests::operator::{PAGE, page_of};
use qkd_tests::process::Process;
use qkd_tests::{wait_until, witness};
use serde_json::Value;

/// Everything that the witness has reported.
fn reports(browser: &Process) -> Vec<Value> {
    browser.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What the plots showed last, beside metrics that did not change meanwhile.
fn steady(report: &Value) -> Option<(f64, f64, f64, f64)> {
    let (before, shown) = (&report["before"], &report["shown"]);
    if before != &report["after"] {
        return None;
    }
    let number = |value: &Value| value.as_f64();
    Some((
        number(&shown["rate"])?,
        number(&shown["qber"])?,
        number(&before["rate"])? * 8.0,
        number(&before["qber"])? * 100.0,
    ))
}

fn equal((rate, qber, metrics_rate, metrics_qber): (f64, f64, f64, f64)) -> bool {
    (rate - metrics_rate).abs() < 0.5 && (qber - metrics_qber).abs() < 1e-9
}

#[test]
fn the_page_shows_what_metrics_say_moves_falls_with_the_link_and_asks_nobody_else() {
    let mut ends = Ends::start_with(
        &["--weather", "calm", "--rate", "4M", "--key", "positional", "--faults-from", "-"],
        PAGE,
    );
    let url = format!("http://{}/", page_of(&ends, 0));
    ends.start_kms(2);
    ends.wait_for_chunks(100);
    // A picture for the README, when somebody wants a new one.
    let picture = std::env::var("QKD_SCREENSHOT").ok();
    let mut arguments = vec![url];
    arguments.extend(picture.map(|path| [path, "dark".to_owned()]).into_iter().flatten());
    let mut browser = witness::start("status_page.py", &arguments);

    wait_until("plots that show what metrics say", || {
        reports(&browser).iter().filter_map(steady).any(|seen| seen.0 > 0.0 && equal(seen))
    });
    wait_until("plots that move", || {
        let reports = reports(&browser);
        let mut times: Vec<_> = reports.iter().filter_map(|report| report["shown"]["at"].as_f64()).collect();
        let mut values: Vec<_> =
            reports.iter().filter_map(|report| Some(report["shown"]["qber"].as_f64()?.to_bits())).collect();
        times.dedup();
        values.sort_unstable();
        values.dedup();
        times.len() >= 4 && values.len() >= 2
    });
    let last = reports(&browser).pop().expect("a report");
    let shown = &last["shown"];
    assert_eq!((&shown["state"], shown["streams"].as_u64()), (&Value::from("delivering"), Some(2)), "{last}");
    assert!(shown["events"].as_u64() > Some(3) && shown["drawn"] == true, "{last}");

    ends.cards.process.tell("kind=outage for=600s");
    wait_until("plots that fall to zero", || {
        reports(&browser).iter().filter_map(steady).any(|seen| seen.0 == 0.0 && seen.2 == 0.0)
    });
    wait_until("a page that says why", || {
        reports(&browser).last().is_some_and(|report| report["shown"]["state"] == "degraded")
    });
    browser.tell("end");
    let status = browser.wait(DEADLINE);
    assert!(status.success(), "{}", browser.output());
    let last = reports(&browser).pop().expect("what the page asked and said");
    assert!(last["asked"].as_u64() > Some(10), "{last}");
    assert_eq!(last["off_host"], Value::Array(Vec::new()), "{last}");
    assert_eq!(last["complaints"], Value::Array(Vec::new()), "{last}");
}
