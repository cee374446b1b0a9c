//! Adversaries against real daemons: nobody else is delayed, no key goes to the wrong place, memory stays bounded, and the
//! service is as good afterwards as before.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use nix::sys::signal::Signal;
use qkd_tests::DEADLINE;
use qkd_tests::adversaries::client::{deeds, slow_deeds};
use qkd_tests::adversaries::good::{GoodKms, call, open_stream};
use qkd_tests::adversaries::kms::HostileKms;
use qkd_tests::adversaries::peer::{HostilePeer, answer_to, frame, messages, octets};
use qkd_tests::adversaries::resident_kib;
use qkd_tests::module::{Cards, Module, ModuleConfig, Pair};
use serde_json::{Value, json};

/// Most memory in KiB that a daemon may have more after an attack than before: buffers that grew once, and no more.
const GROWTH_KIB: u64 = 48 << 10;
const CARDS: &[&str] = &["--weather", "calm", "--rate", "2M"];

fn url(kms: &GoodKms) -> String {
    format!("http://{}", kms.address)
}

/// The daemon has not panicked and ends in order.
fn ends_well(mut module: Module) {
    let log = module.process.output();
    assert!(!log.contains("panicked"), "{log}");
    module.process.signal(Signal::SIGTERM);
    let status = module.process.wait(DEADLINE);
    assert_eq!(status.code(), Some(0), "{}", module.process.output());
}

#[test]
fn a_client_that_does_everything_wrong_reaches_nothing_and_delays_nobody() {
    let (kms_a, kms_b) = (GoodKms::start(), GoodKms::start());
    let pair = Pair::start(CARDS, url(&kms_a), url(&kms_b), "[push]\nbackoff_greatest_ms = 1000");
    let apis = [pair.a.api, pair.b.api];
    let _ = open_stream(apis, ["kms://a", "kms://b"], 256, 64_000);
    kms_a.await_more(1);
    // What is paid once is paid before.
    deeds().iter().for_each(|deed| drop(deed.act(pair.a.api)));
    let before = resident_kib(pair.a.process.pid());
    for _ in 0..3 {
        for deed in deeds() {
            let answers = deed.act(pair.a.api);
            let (last, earlier) =
                answers.split_last().map_or((None, &[][..]), |(last, rest)| (Some(*last), rest));
            assert!(earlier.iter().all(|status| *status == 100), "{}: answered {answers:?}", deed.name);
            assert!(
                last.is_none_or(|status| (400..500).contains(&status) || status == 501 || status == 505),
                "{}: answered {answers:?}",
                deed.name
            );
            let (status, _) = call(pair.a.api, "POST", "get-key", &json!({}));
            assert_eq!(status, 400, "an honest call after: {}", deed.name);
        }
        kms_a.await_more(3);
    }
    let after = resident_kib(pair.a.process.pid());
    assert!(after < before + GROWTH_KIB, "from {before} KiB to {after} KiB");
    kms_b.await_more(3);
    ends_well(pair.b);
    ends_well(pair.a);
}

#[test]
fn clients_that_hold_their_connections_delay_nobody() {
    let (kms_a, kms_b) = (GoodKms::start(), GoodKms::start());
    // Held for longer than the test takes, so that nobody is served because they were let go.
    let more = "[push]\nbackoff_greatest_ms = 1000";
    let pair = Pair::start(CARDS, url(&kms_a), url(&kms_b), more);
    let apis = [pair.a.api, pair.b.api];
    let _ = open_stream(apis, ["kms://a", "kms://b"], 256, 64_000);
    let api = pair.a.api;
    let slow: Vec<_> = (0..6)
        .flat_map(|_| slow_deeds())
        .map(|deed| std::thread::spawn(move || (deed.name, deed.act(api))))
        .collect();
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(call(api, "POST", "get-key", &json!({})).0, 400);
    }
    kms_a.await_more(10);
    let took = begun.elapsed();
    // Each of them would hold a server that serves one after the other for seconds.
    let held = slow.iter().filter(|slow| !slow.is_finished()).count();
    assert!(held > 40 || took > Duration::from_secs(5), "{held} are held after {took:?}");
    for slow in slow {
        let (name, answers) = slow.join().expect("each is let go");
        assert!(
            answers.iter().all(|status| [100, 400, 404, 408, 415].contains(status)),
            "{name}: {answers:?}"
        );
    }
    ends_well(pair.a);
}

#[test]
fn a_kms_that_does_everything_wrong_gets_no_other_key_and_delays_no_other_kms() {
    let (kms_a, kms_b) = (GoodKms::start(), GoodKms::start());
    let evil = HostileKms::start();
    let cards = Cards::start(CARDS);
    let times = "[push]\nanswer_deadline_ms = 200\nbackoff_first_ms = 10\nbackoff_greatest_ms = 50\nretry_after_greatest_s = 1\n\
                 most_in_flight = 4\n";
    let more_a = format!("[[kms]]\nuri = \"kms://evil\"\nendpoint = \"http://{}\"\n{times}", evil.address);
    let config = |name, role, socket, peer, peer_kms, kms, more| ModuleConfig {
        name,
        role,
        socket,
        peer,
        peer_kms,
        kms,
        more,
    };
    let a = config(
        "A",
        "leader",
        &cards.socket_a,
        "listen = \"127.0.0.1:0\"".into(),
        "kms://b",
        ("kms://a", url(&kms_a)),
        &more_a,
    )
    .start(cards.folder.path());
    let connect = format!("connect = \"{}\"", a.peer.expect("the leader listens"));
    // Both KMSs of A are known at B.
    let b = config(
        "B",
        "follower",
        &cards.socket_b,
        connect,
        "kms://a, kms://evil",
        ("kms://b", url(&kms_b)),
        times,
    )
    .start(cards.folder.path());
    let good = open_stream([a.api, b.api], ["kms://a", "kms://b"], 256, 256_000);
    kms_a.await_more(10);
    let own = open_stream([a.api, b.api], ["kms://evil", "kms://b"], 256, 256_000);
    let before = resident_kib(a.process.pid());
    let attack = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            // A refusal suspends the stream; its KMS asks again.
            for _ in 0..600 {
                let _ = call(a.api, "POST", "get-key", &json!({"key_stream_id": own}));
                if evil.is_through() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        while !attack.is_finished() {
            kms_a.await_more(5);
        }
        attack.join()
    });
    attack.expect("the attack ends");
    assert!(evil.is_through(), "{}", evil.progress());
    kms_a.await_more(20);
    kms_b.await_more(20);
    assert!(evil.has_seen(&own) && !evil.has_seen(&good), "key of another stream");
    assert_eq!(kms_a.streams(), [good]);
    let after = resident_kib(a.process.pid());
    assert!(after < before + GROWTH_KIB, "from {before} KiB to {after} KiB");
    ends_well(b);
    ends_well(a);
}

/// A connection on which both have greeted. The end of the one before may reach the next, which is then made anew.
fn greeted(address: SocketAddr, hello: &Value, name: &str) -> HostilePeer {
    for _ in 0..100 {
        let mut peer = HostilePeer::connect(address);
        peer.say(&frame(answer_to(hello).to_string().as_bytes()));
        if peer.greeting().is_some() {
            return peer;
        }
    }
    panic!("the daemon greets no more before: {name}");
}

#[test]
fn a_peer_that_does_everything_wrong_is_left_and_the_right_one_is_served() {
    let (kms_a, kms_b) = (GoodKms::start(), GoodKms::start());
    let cards = Cards::start(CARDS);
    let config = |name, role, socket, peer, peer_kms, kms| ModuleConfig {
        name,
        role,
        socket,
        peer,
        peer_kms,
        kms,
        more: "",
    };
    let a = config(
        "A",
        "leader",
        &cards.socket_a,
        "listen = \"127.0.0.1:0\"".into(),
        "kms://b",
        ("kms://a", url(&kms_a)),
    )
    .start(cards.folder.path());
    let address = a.peer.expect("the leader listens");
    let silent: Vec<HostilePeer> = (0..8).map(|_| HostilePeer::connect(address)).collect();
    drop(silent);
    for (name, octets) in octets() {
        // As the first that is said.
        let mut peer = HostilePeer::connect(address);
        peer.say(&octets);
        assert!(peer.is_left(DEADLINE), "{name}");
    }
    // A greeting that claims another card, which only shows the daemon's own.
    let mut peer = HostilePeer::connect(address);
    peer.say(&frame(br#"{"type":"hello","version":1,"role":"follower","module":"x","epoch":0,"last":0,"hash":"0000000000000000000000000000000000000000000000000000000000000000","card":7,"peer_card":7,"kms":[]}"#));
    let hello = peer.greeting().expect("the daemon greets");
    let before = resident_kib(a.process.pid());
    for (name, message) in messages(&hello) {
        let mut peer = greeted(address, &hello, name);
        for _ in 0..3 {
            peer.say(&frame(message.to_string().as_bytes()));
        }
        // Cut within the next.
        peer.say(&[0, 0, 1]);
        drop(peer);
    }
    for (name, octets) in octets() {
        let mut peer = greeted(address, &hello, name);
        peer.say(&octets);
        assert!(peer.is_left(DEADLINE), "{name}");
    }
    let after = resident_kib(a.process.pid());
    assert!(after < before + GROWTH_KIB, "from {before} KiB to {after} KiB");
    let b = config(
        "B",
        "follower",
        &cards.socket_b,
        format!("connect = \"{address}\""),
        "kms://a",
        ("kms://b", url(&kms_b)),
    )
    .start(cards.folder.path());
    // The leader has believed the hostile one, and begins anew with the right one.
    let _ = b.process.line("takes over epoch", DEADLINE);
    let _ = open_stream([a.api, b.api], ["kms://a", "kms://b"], 256, 256_000);
    kms_a.await_more(20);
    kms_b.await_more(20);
    ends_well(b);
    ends_well(a);
}

#[test]
fn a_redirect_leads_nowhere() {
    let (kms_b, trap) = (GoodKms::start(), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    trap.set_nonblocking(true).expect("a socket");
    let place = trap.local_addr().expect("its address");
    let evil = HostileKms::redirecting(&format!("http://{place}/api/v1/qkd/etsi004/key-material"));
    let pair = Pair::start(CARDS, format!("http://{}", evil.address), url(&kms_b), "");
    let own = open_stream([pair.a.api, pair.b.api], ["kms://a", "kms://b"], 256, 256_000);
    for _ in 0..3 {
        evil.await_connections(1);
        let _ = call(pair.a.api, "POST", "get-key", &json!({"key_stream_id": own}));
    }
    let _ = pair.a.process.line("HTTP status 308", DEADLINE);
    assert!(trap.accept().is_err(), "the daemon followed");
    ends_well(pair.a);
}
