//! What an operator sees of a daemon that runs: `qkdctl`, and the listener for page, metrics and state.

use std::path::Path;

use qkd_tests::DEADLINE;
use qkd_tests::ends::Ends;
use qkd_tests::holding_kms::HoldingKms;
use qkd_tests::http::call;
use qkd_tests::operator::{PAGE, get, page_of, qkdctl, send, series, with_socket};
use qkd_tests::programs::workspace;
use serde_json::{Value, json};

/// Cards whose faults come line by line.
const CARDS: &[&str] = &["--weather", "calm", "--rate", "4M", "--key", "positional", "--faults-from", "-"];

/// As `qkdctl` with `-o json`: exit code and the one line, which keeps the published schema.
fn qkdctl_json(socket: &Path, arguments: &[&str]) -> (i32, Value) {
    let said = qkdctl(socket, &[&["-o", "json"], arguments].concat());
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    let value: Value = serde_json::from_str(&said.out).expect("JSON");
    keeps_schema(&value);
    (said.code, value)
}

/// Holds an answer against docs/schema/qkdctl.json.
fn keeps_schema(value: &Value) {
    keeps("qkdctl.json", value);
}

fn keeps(schema: &str, value: &Value) {
    let text = std::fs::read_to_string(workspace().join("docs/schema").join(schema)).expect("the schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:?} in {value}");
}

fn causes(status: &Value) -> Vec<&str> {
    let reasons = status["health"]["reasons"].as_array().expect("reasons");
    reasons.iter().map(|reason| reason["cause"].as_str().expect("a cause")).collect()
}

/// Opens a key stream at end A; answers its ID.
fn open(ends: &Ends, qos: &Value) -> Value {
    let said = good(ends, 0, "open-connect", &request(&Value::Null, qos));
    let said: Value = serde_json::from_str(&said).unwrap();
    said["key_stream_id"].clone()
}

/// Opens it at end B as well, and asks for key at both ends.
fn join(ends: &Ends, id: &Value) {
    let _ = good(ends, 1, "open-connect", &request(id, &json!({})));
    for end in 0..2 {
        let _ = good(ends, end, "get-key", &json!({"key_stream_id": id}));
    }
}

fn request(id: &Value, qos: &Value) -> Value {
    json!({"source": "kms://a", "destination": "kms://b", "key_stream_id": id, "qos": qos})
}

/// What the module at `end` answers to a call that succeeds.
fn good(ends: &Ends, end: usize, name: &str, body: &Value) -> String {
    let (code, said) = call(ends.module(end).api, "POST", name, &body.to_string());
    assert!((200..300).contains(&code), "{name} at end {end}: {code} {said}");
    said
}

#[test]
fn status_is_good_only_while_key_flows_and_says_what_stops_it() {
    let mut ends = Ends::start(CARDS);
    let socket = with_socket(&mut ends, 0);
    let wait = |ends: &Ends, what: &str, wanted: (i32, &[&str])| {
        ends.wait_until(what, |_| {
            let (code, status) = qkdctl_json(&socket, &["status"]);
            (code, causes(&status).as_slice()) == wanted
        });
    };
    wait(&ends, "module in step", (0, &[]));
    let (_, status) = qkdctl_json(&socket, &["status"]);
    assert_eq!((&status["health"]["state"], &status["streams"]["live"]), (&json!("ready"), &json!(0)));
    ends.start_kms(2);
    ends.wait_for_chunks(100);
    ends.wait_until("key on every stream", |ends| (0..2).all(|end| ends.says(end, "with_key") == 2));
    // The card is read once a second.
    ends.wait_until("secret key rate", |_| {
        let (_, status) = qkdctl_json(&socket, &["status"]);
        status["link"]["measured"]["secret_key_rate_bps"].as_u64() > Some(0)
    });
    let (code, status) = qkdctl_json(&socket, &["status"]);
    assert_eq!((code, &status["health"]["state"]), (0, &json!("delivering")), "{status}");
    assert!(status["key"]["accepted"].as_u64() > Some(0), "{status}");

    ends.terminate(1);
    wait(&ends, "peer that is away", (4, &["peer_away"]));
    let said = qkdctl(&socket, &["status"]);
    assert_eq!(said.code, 4);
    assert!(said.out.starts_with("degraded\n    peer_away: there is no connection"), "{said:?}");
    ends.start_module(1);
    wait(&ends, "module in step again", (0, &[]));
    assert!(ends.end_kms(), "a KMS has seen something wrong");

    ends.cards.process.tell("kind=outage for=600s");
    wait(&ends, "link that is down", (4, &["link_down"]));
    ends.terminate(0);
    let (code, status) = qkdctl_json(&socket, &["status"]);
    assert_eq!((code, &status["answer"]), (3, &json!("not_running")), "{status}");
    assert_eq!(qkdctl(&socket, &["status"]).code, 3);
}

#[test]
fn a_kms_that_takes_no_key_is_named_with_its_stream() {
    let mut ends = Ends::start(CARDS);
    let socket = with_socket(&mut ends, 0);
    ends.wait_until("module in step", |_| qkdctl_json(&socket, &["status"]).0 == 0);
    let said = qkdctl(&socket, &["streams"]);
    assert_eq!((said.code, said.out.as_str()), (0, "no key stream is open\n"));
    // Nobody listens where the KMSs should.
    let id = &open(&ends, &json!({"key_chunk_size": 64, "priority": 3}));
    let (_, half_open) = qkdctl_json(&socket, &["streams"]);
    assert_eq!(half_open["streams"][0]["state"], "waiting", "{half_open}");
    join(&ends, id);
    ends.wait_until("KMS that is called failing", |_| {
        let (code, status) = qkdctl_json(&socket, &["status"]);
        code == 4 && causes(&status) == ["kms_failing"]
    });
    let (code, streams) = qkdctl_json(&socket, &["streams"]);
    let stream = &streams["streams"][0];
    assert_eq!((code, &stream["id"], &stream["state"]), (0, id, &json!("failing")), "{streams}");
    assert!(stream["words"].as_str().unwrap().contains("does not take a connection"), "{streams}");
    assert_eq!((&stream["chunk_size"], &stream["qos"]["priority"]), (&json!(64), &json!(3)), "{streams}");
    assert!(stream["lag_chunks"].as_u64() > Some(0), "{streams}");
    assert_eq!(
        stream["lag_bytes"].as_u64().unwrap(),
        stream["lag_chunks"].as_u64().unwrap() * 64,
        "{streams}"
    );
    let (_, status) = qkdctl_json(&socket, &["status"]);
    assert!(status["push"]["failures"]["connect"].as_u64() > Some(0), "{status}");
    let (_, events) = qkdctl_json(&socket, &["events"]);
    let ids: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert!(ids.contains(&&json!("kms.failing")), "{events}");
}

#[test]
fn a_module_whose_key_waits_for_the_other_end_s_kms_says_so() {
    // A small window, and a KMS that takes its time is not called failing.
    let more = "[push]\nanswer_deadline_ms = 600000\n[streams]\nwindow_chunks = 1024\n";
    let mut ends = Ends::start_with(CARDS, more);
    let sockets = [with_socket(&mut ends, 0), with_socket(&mut ends, 1)];
    // Module A, whose state may be that of before module B's restart, after module B.
    for socket in sockets.iter().rev() {
        ends.wait_until("module in step", |_| qkdctl_json(socket, &["status"]).0 == 0);
    }
    let kms = ends.endpoints.map(HoldingKms::at);
    let id = open(&ends, &json!({"key_chunk_size": 32}));
    join(&ends, &id);
    for end in 0..2 {
        let (here, there) = (&sockets[end], &sockets[1 - end]);
        kms[1 - end].hold_back(true);
        ends.wait_until("key that waits", |_| {
            let (code, status) = qkdctl_json(here, &["status"]);
            code == 4 && causes(&status) == ["peer_kms_behind"]
        });
        ends.wait_until("how far the other end's KMS is behind", |_| {
            let [streams, other] = [here, there].map(|socket| qkdctl_json(socket, &["streams"]).1);
            let words = streams["streams"][0]["words"].as_str().unwrap();
            let chunks = words.split_whitespace().find_map(|word| word.parse::<u64>().ok());
            // More than half of the window, and no more than all of it.
            words.contains("the other end's KMS")
                && streams["streams"][0]["state"] == "held_up"
                && streams["streams"][0]["lag_chunks"] == 0
                && chunks.is_some_and(|chunks| (513..=1024).contains(&chunks))
                && json!(chunks) == other["streams"][0]["lag_chunks"]
        });
        ends.wait_until("other end that only waits for its own KMS", |_| {
            qkdctl_json(there, &["status"]).0 == 0
        });
        kms[1 - end].hold_back(false);
        ends.wait_until("key that flows again", |_| qkdctl_json(here, &["status"]).0 == 0);
    }
}

#[test]
fn every_command_says_in_json_what_the_schema_promises() {
    let mut ends = Ends::start(CARDS);
    let socket = with_socket(&mut ends, 1);
    ends.wait_until("module in step", |_| qkdctl_json(&socket, &["status"]).0 == 0);
    let (code, test) = qkdctl_json(&socket, &["self-test"]);
    assert_eq!((code, &test["answer"], &test["passed_times"]), (0, &json!("self_test"), &json!(1)), "{test}");
    assert!(qkdctl(&socket, &["self-test"]).out.contains("only while it is stopped"));
    let (code, reloaded) = qkdctl_json(&socket, &["reload"]);
    assert_eq!((code, &reloaded["certificates"]), (0, &json!(false)), "{reloaded}");
    let _ = ends.module(1).process.line("operator: there is no [tls]", DEADLINE);
    let (code, events) = qkdctl_json(&socket, &["events"]);
    let events = events["events"].as_array().unwrap();
    assert!(code == 0 && events.iter().any(|event| event["id"] == "card.opened"), "{events:?}");
    let numbers: Vec<_> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
    let (code, zeroized) = qkdctl_json(&socket, &["zeroize"]);
    assert_eq!((code, &zeroized["answer"]), (0, &json!("zeroized")), "{zeroized}");
    let (_, test) = qkdctl_json(&socket, &["self-test"]);
    let folder = ends.ledger(1);
    let record = folder.parent().unwrap().join("audit");
    ends.terminate(1);
    let (code, whole) = qkdctl_json(&socket, &["audit", "verify", record.to_str().unwrap()]);
    assert_eq!(
        (code, &whole["answer"], &whole["to_the_end"]),
        (0, &json!("audit_whole"), &json!(true)),
        "{whole}"
    );
    let (code, broken) = qkdctl_json(&socket, &["audit", "verify", "/nowhere"]);
    assert_eq!((code, &broken["answer"]), (1, &json!("audit_broken")), "{broken}");
    let (code, refused) = qkdctl_json(&socket, &["bind", "first"]);
    assert_eq!((code, &refused["answer"]), (1, &json!("slot_refused")), "{refused}");
    assert!(test["passed_times"].as_u64() >= Some(1), "{test}");
}

#[test]
#[should_panic(expected = "is not valid under any of")]
fn an_answer_that_is_not_as_published_is_seen() {
    keeps_schema(&json!({"version": 2, "answer": "streams", "streams": 7}));
}

#[test]
fn watch_without_a_terminal_prints_one_line_for_each_look() {
    let mut ends = Ends::start(CARDS);
    let socket = with_socket(&mut ends, 0);
    ends.wait_until("module in step", |_| qkdctl_json(&socket, &["status"]).0 == 0);
    let said = qkdctl(&socket, &["watch", "--count", "3", "--every", "0.1"]);
    assert_eq!((said.code, said.out.lines().count()), (0, 3), "{said:?}");
    let good = |line: &str| line.contains(" ready link=distilling rate=") && line.contains(" lag=0");
    assert!(said.out.lines().all(good), "{said:?}");
    let once = qkdctl(&socket, &["-o", "json", "watch", "--once"]);
    assert_eq!(once.out.lines().count(), 1, "{once:?}");
    keeps_schema(&serde_json::from_str(&once.out).unwrap());
    ends.terminate(1);
    ends.wait_until("peer that is away", |_| {
        let said = qkdctl(&socket, &["watch", "--once"]);
        said.code == 4 && said.out.contains("degraded (peer_away)")
    });
}

#[test]
fn the_listener_tells_how_things_stand_and_lets_nobody_change_anything() {
    let mut ends = Ends::start_with(CARDS, PAGE);
    let page = page_of(&ends, 0);
    ends.start_kms(3);
    ends.wait_for_chunks(100);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/uplot.css", "text/css"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/livez", "text/plain"),
        ("/readyz", "text/plain"),
        ("/status", "application/json"),
        ("/streams", "application/json"),
        ("/events", "application/json"),
        ("/qkd/015", "application/yang-data+json"),
        ("/qkd/015/notifications", "application/yang-data+json"),
    ] {
        let answer = get(page, path);
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        for part in [
            format!("content-type: {kind}"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';".into(),
            "x-content-type-options: nosniff".into(),
            "cross-origin-resource-policy: same-origin".into(),
        ] {
            assert!(answer.head.contains(&part), "{path} has no {part}: {}", answer.head);
        }
        assert!(!answer.head.contains("access-control-allow"), "{}", answer.head);
    }
    for path in ["/status", "/streams", "/events"] {
        keeps_schema(&serde_json::from_str(&get(page, path).body).unwrap());
    }
    assert_eq!(get(page, "/nothing").code, 404);
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "ZEROIZE"] {
        let head = format!(
            "{method} /status HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(send(page, &head).code, 405, "{method}");
    }
    // The card is read once a second.
    let look = || serde_json::from_str::<Value>(&get(page, "/qkd/015").body).unwrap();
    let rate = "/etsi-qkd-sdn-node:qkd_node/qkd_links/qkd_link/0/qkdl_performance/skr";
    ends.wait_until("secret key rate", |_| look().pointer(rate).and_then(Value::as_u64) > Some(0));
    let node = look();
    keeps("qkd-015.json", &node);
    let link = &node["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"][0];
    assert_eq!(link["qkdl_status"], "etsi-qkd-node-types:ACTIVE", "{node}");
    assert_eq!(link["qkdl_performance"]["skr"], link["qkdl_performance"]["eskr"], "{node}");
    assert!(link["qkdl_performance"]["skr"].as_u64() > Some(0), "{node}");
    assert_eq!(link["qkdl_applications"].as_array().unwrap().len(), 3, "{node}");
    let other: Value = serde_json::from_str(&get(page_of(&ends, 1), "/qkd/015").body).unwrap();
    let other = &other["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"][0];
    assert_eq!((&link["qkdl_id"], &link["qkdl_local"]), (&other["qkdl_id"], &other["qkdl_remote"]));

    ends.cards.process.tell("kind=outage for=600s");
    ends.wait_until("module that is not ready", |_| get(page, "/readyz").code == 503);
    let answer = get(page, "/readyz");
    assert!(answer.body.starts_with("degraded\nlink_down: the QKD link "), "{answer:?}");
    assert_eq!(get(page, "/livez").code, 200, "it lives all the same");
    let notified = get(page, "/qkd/015/notifications").body;
    keeps("qkd-015.json", &serde_json::from_str(&notified).unwrap());
    assert!(notified.contains("etsi-qkd-sdn-node:sdqkdn_link_down"), "{notified}");
}

#[test]
fn a_name_that_somebody_has_point_here_gets_nothing() {
    let ends = Ends::start_with(CARDS, PAGE);
    let page = page_of(&ends, 0);
    let with = |hosts: &str| send(page, &format!("GET /status HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"));
    for own in [format!("Host: {page}\r\n"), format!("Host: localhost:{}\r\n", page.port())] {
        assert_eq!(with(&own).code, 200, "{own}");
    }
    for foreign in [
        "Host: rebound.example:80\r\n",
        "Host: localhost.example\r\n",
        "Host: 192.0.2.1\r\n",
        "Host: localhost\r\nHost: rebound.example\r\n",
        "Host:\r\n",
        "",
    ] {
        let answer = with(foreign);
        assert!(answer.code == 421 || answer.code == 400, "{foreign}: {answer:?}");
        assert!(!answer.body.contains("health"), "{foreign}: {answer:?}");
    }
}

#[test]
fn key_in_metrics_is_what_the_kms_got_and_no_series_is_a_stream_s() {
    let mut ends = Ends::start_with(CARDS, PAGE);
    let page = page_of(&ends, 0);
    ends.start_kms(3);
    ends.wait_for_chunks(500);
    ends.wait_until("key on every stream", |ends| (0..2).all(|end| ends.says(end, "with_key") == 3));
    let streams: Value = serde_json::from_str(&get(page, "/streams").body).unwrap();
    let metrics = get(page, "/metrics").body;
    for stream in streams["streams"].as_array().unwrap() {
        assert!(!metrics.contains(stream["id"].as_str().unwrap()), "{metrics}");
    }
    assert!(ends.end_kms(), "a KMS has seen something wrong");
    // What was counted stays when the streams are gone, and is whole.
    let size = streams["streams"][0]["chunk_size"].as_u64().unwrap();
    ends.wait_until("streams that are gone", |_| {
        let gone: Value = serde_json::from_str(&get(page, "/streams").body).unwrap();
        gone["streams"].as_array().unwrap().is_empty()
    });
    let metrics = get(page, "/metrics").body;
    let accepted = series(&metrics, "qkd_key_bytes_total{result=\"accepted\"}").expect("it is there");
    let chunks = series(&metrics, "qkd_push_chunks_accepted_total").expect("it is there");
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let size = size as f64;
    assert!(chunks >= 500.0, "{chunks}");
    assert!((accepted - chunks * size).abs() < 0.5, "{accepted} octets are not {chunks} chunks of {size}");
    let latencies = series(&metrics, "qkd_push_latency_seconds_count").expect("it is there");
    assert!(latencies > 0.0 && latencies <= chunks + 10.0, "{latencies} of {chunks}");
}

/// What the card tells waits behind key for which the vault has no room.
#[test]
fn a_link_that_is_cut_is_told_also_while_no_kms_takes_key() {
    let cards =
        ["--weather", "calm", "--rate", "100M", "--key", "positional", "--json", "--faults-from", "-"];
    let mut ends = Ends::start_with(&cards, "bytes = 8388608\n");
    ends.wait_until("32 MiB of key that nobody takes", |ends| ends.cards_retain(32 << 20));
    ends.cards.process.tell("for=1h kind=outage");
    for end in 0..2 {
        let _ = ends.module(end).process.line("QKD link: Off", DEADLINE);
    }
}
