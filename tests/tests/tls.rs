//! TLS on every link: who gets in, who does not, and that nobody keeps out others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use qkd_sim::lab::{Authority, Issued, Subject};
use qkd_tests::programs::program;
use qkd_tests::secure::{
    Choice, Client, KMS, Secured, chunks, classical, hybrid, identity, openssl, provider, with_key,
};
use qkd_tests::{DEADLINE, wait_until};
use rustls::NamedGroup;
use serde_json::json;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Counts who connects.
fn counting_listener() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, count) = (listener.local_addr().expect("its address"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    (address, count)
}

#[test]
fn keys_travel_by_the_hybrid_exchange_on_every_link_and_by_no_proxy() {
    let (proxy, proxied) = counting_listener();
    let url = format!("http://{proxy}");
    let variables = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let environment = variables.map(|name| (name, url.as_str()));
    let secured = Secured::start(Choice { environment: &environment, ..Choice::default() });
    let kms = secured.start_kms(2);
    // A KMS that got nothing on one of its streams ends with an error.
    wait_until("key on every stream of both ends", || {
        kms.iter().all(|kms| with_key(kms) == 2 && chunks(kms) > 100)
    });
    for kms in &kms {
        let _ = kms.line("key-material comes over TLS, key exchange X25519MLKEM768", DEADLINE);
        kms.signal(Signal::SIGTERM);
    }
    for mut kms in kms {
        assert!(kms.wait(DEADLINE).success(), "{}", kms.output());
    }
    let check = Command::new(program("qkd-sim"))
        .arg("check")
        .arg(secured.history(0))
        .arg(secured.history(1))
        .output();
    let check = check.expect("the checker runs");
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stdout));
    for end in 0..2 {
        let said = secured.module(end).process.line("peer link: TLS 1.3 with the other module", DEADLINE);
        assert!(said.ends_with("X25519MLKEM768"), "{said}");
    }
    // The API: the hybrid exchange also with a client that would rather have another.
    let api = secured.module(0).api;
    let reluctant = [classical(), hybrid()].concat();
    for (groups, wanted) in [
        (hybrid(), NamedGroup::X25519MLKEM768),
        (reluctant, NamedGroup::X25519MLKEM768),
        (classical(), NamedGroup::X25519),
    ] {
        let exchange = secured.client("kms-a", groups).exchange(api, REQUEST).expect("an answer");
        assert_eq!(exchange.group, Some(wanted));
        assert!(exchange.answer.starts_with(b"HTTP/1.1 "));
    }
    assert_eq!(proxied.load(Ordering::SeqCst), 0, "a proxy of the environment was used");
}

/// Certificates that are not good, and what each lacks.
fn not_good(secured: &Secured) -> Vec<(&'static str, Issued)> {
    let now = SystemTime::now();
    let subject = Subject::new("kms-a", &["localhost"], &[KMS[0]], 1);
    let hour = Duration::from_secs(3_600);
    let expired = Subject { from: now - 48 * hour, until: now - hour, ..subject.clone() };
    let early = Subject { from: now + hour, until: now + 48 * hour, ..subject.clone() };
    let foreign = Authority::new("QKD laboratory authority", 1).expect("an authority");
    vec![
        ("expired", secured.authority.issue(&expired).expect("a certificate")),
        ("not yet good", secured.authority.issue(&early).expect("a certificate")),
        ("of a foreign authority", foreign.issue(&subject).expect("a certificate")),
    ]
}

#[test]
fn without_the_right_certificate_nobody_gets_a_byte_of_the_api() {
    let mut secured = Secured::prepare();
    secured.start_module(0, Choice::default());
    let api = secured.module(0).api;
    let folder = secured.cards.folder.path().to_owned();
    let authority = secured.lab.join("authority.pem");
    let file = |name: &str, issued: &Issued| {
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        qkd_sim::lab::write(&path("pem"), &issued.certificate).expect("a file");
        qkd_sim::lab::write(&path("key"), &issued.key).expect("a file");
        [path("pem"), path("key")].map(|path| path.to_str().expect("a path").to_owned())
    };
    let good = file("good", &secured.issued("kms-a"));
    let answered = openssl(api, &authority, &["-cert", &good[0], "-key", &good[1]]);
    assert!(
        answered.contains("HTTP/1.1 404"),
        "the right one must get an answer, or nothing is tested: {answered}"
    );

    let old = openssl(api, &authority, &["-cert", &good[0], "-key", &good[1], "-tls1_2"]);
    assert!(!old.contains("HTTP/1") && old.contains("alert"), "TLS 1.2: {old}");
    let bare = openssl(api, &authority, &[]);
    assert!(!bare.contains("HTTP/1") && bare.contains("certificate required"), "no certificate: {bare}");
    for (number, (lack, issued)) in not_good(&secured).into_iter().enumerate() {
        let files = file(&format!("bad-{number}"), &issued);
        let said = openssl(api, &authority, &["-cert", &files[0], "-key", &files[1]]);
        assert!(!said.contains("HTTP/1") && said.contains("alert"), "{lack}: {said}");
        // The same with the other stack, which must see that it is refused and not merely left without an answer.
        for groups in [classical(), hybrid()] {
            let client = Client::new(&secured.authority.own, Some(&issued), groups);
            let refused = client.exchange(api, REQUEST).err().expect(lack);
            assert!(refused.to_string().contains("alert"), "{lack}: {refused}");
        }
    }
    // Plain HTTP to the same port gets no HTTP back either.
    let mut plain = TcpStream::connect(api).expect("a connection");
    plain.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is taken");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // The right authority, but a name that stands for no KMS: refused whatever it asks.
    let peer = secured.client("module-b", classical());
    for (method, path, status) in [
        ("POST", "open-connect", 5),
        ("GET", "get-key", 3),
        ("PUT", "close", 5),
        ("POST", "nowhere", 4),
        ("GET", "openapi.json", 4),
    ] {
        let reply = peer.call(api, method, path, &json!({"key_stream_id": uuid::Uuid::new_v4()}));
        assert_eq!((reply.http, &reply.body["status"]), (403, &json!(status)), "{reply:?}");
    }
    let _ = secured.module(0).process.line("stands for no KMS", DEADLINE);
    let output = secured.module(0).process.output();
    assert_eq!(
        output.matches("stands for no KMS").count(),
        1,
        "told once for each name, not for each request"
    );
}

#[test]
fn a_policy_that_demands_the_hybrid_exchange_refuses_whoever_cannot_do_it() {
    let secured = Secured::start(Choice { tls: "key_exchange = \"hybrid-required\"", ..Choice::default() });
    let api = secured.module(0).api;
    let refused = secured.client("kms-a", classical()).exchange(api, REQUEST).err().expect("refused");
    assert!(refused.to_string().contains("alert"), "{refused}");
    let exchange = secured.client("kms-a", hybrid()).exchange(api, REQUEST).expect("an answer");
    assert_eq!(exchange.group, Some(NamedGroup::X25519MLKEM768));
    let own = secured.lab.join("kms-a.pem");
    let key = secured.lab.join("kms-a.key");
    let paths = [own.to_str().expect("a path"), key.to_str().expect("a path")];
    let said = openssl(api, &secured.lab.join("authority.pem"), &["-cert", paths[0], "-key", paths[1]]);
    assert!(!said.contains("HTTP/1") && said.contains("handshake failure"), "OpenSSL without ML-KEM: {said}");
}

#[test]
fn a_daemon_that_is_not_the_other_module_is_not_let_on_the_peer_link() {
    let mut secured = Secured::prepare();
    secured.start_module(0, Choice::default());
    let put = |secured: &Secured, issued: &Issued| {
        for (kind, text) in [("pem", &issued.certificate), ("key", &issued.key)] {
            std::fs::write(secured.lab.join(format!("module-b.{kind}")), text).expect("a file");
        }
    };
    let right = secured.issued("module-b");
    let mut wrong = not_good(&secured);
    wrong.push(("somebody else's", secured.issued("kms-b")));
    for (number, (lack, issued)) in wrong.iter().enumerate() {
        put(&secured, issued);
        secured.start_module(1, Choice::default());
        let refused = secured.module(0).process.nth_line("refused in the TLS handshake", number, DEADLINE);
        assert!(refused.contains("peer link"), "{lack}: {refused}");
        let mut other = secured.modules[1].take().expect("it runs");
        other.process.signal(Signal::SIGKILL);
        other.process.wait(DEADLINE);
        assert!(!other.process.output().contains("takes over epoch"), "{lack}: {}", other.process.output());
    }
    // The other way round: it does not talk to a leader that is somebody else.
    put(&secured, &right);
    let lines = secured.lab.join("tls-b.toml");
    secured.start_module(1, Choice::default());
    let _ = secured.module(1).process.line("takes over epoch", DEADLINE);
    drop(secured.modules[1].take());
    let text = std::fs::read_to_string(&lines).expect("lines");
    let foreign = secured.cards.folder.path().join("foreign.pem");
    qkd_sim::lab::write(&foreign, &Authority::new("other", 1).expect("an authority").own.certificate)
        .expect("a file");
    std::fs::write(&lines, format!("{text}peer_authorities = {foreign:?}\n")).expect("a file");
    secured.start_module(1, Choice::default());
    let said = secured.module(1).process.line("no TLS connection with", DEADLINE);
    assert!(said.contains("UnknownIssuer"), "{said}");
}

#[test]
fn silent_half_open_and_aborted_handshakes_keep_out_nobody() {
    let mut secured = Secured::prepare();
    let tls = "most_handshakes = 8\nhandshake_deadline_ms = 600000";
    secured.start_module(0, Choice { tls, ..Choice::default() });
    let api = secured.module(0).api;
    // 300 of them stay, which is more than the API serves at once; were they to keep a place, the client would wait longer than it does.
    let mut strangers = Vec::new();
    for number in 0..450 {
        let mut stranger = TcpStream::connect(api).expect("a connection");
        match number % 3 {
            0 => {}
            // The head of a record that never ends.
            1 => stranger.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252]).expect("it is taken"),
            _ => {
                let _ = stranger.write_all(&[22, 3, 1, 2, 0, 1]);
                nix::sys::socket::setsockopt(
                    &stranger,
                    nix::sys::socket::sockopt::Linger,
                    &nix::libc::linger { l_onoff: 1, l_linger: 0 },
                )
                .expect("an abort");
                continue;
            }
        }
        strangers.push(stranger);
    }
    let client = secured.client("kms-a", hybrid());
    let exchange = client.exchange(api, REQUEST).expect("an answer");
    assert!(exchange.answer.starts_with(b"HTTP/1.1 404"));
    // And the other way round: one that is in the middle of its handshake is not thrown out for nothing.
    drop(strangers);
    let mut slow = client.connect(api);
    let fast = client.exchange(api, REQUEST).expect("an answer");
    assert!(fast.answer.starts_with(b"HTTP/1.1 404"));
    slow.write_all(REQUEST).expect("it is still there");
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 404"));
}

/// A KMS's endpoint that shows this certificate, and counts handshakes begun and octets got over TLS.
fn endpoint(address: SocketAddr, own: &Issued, answer: &'static str) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (chain, key) = identity(own);
    let config = rustls::ServerConfig::builder_with_provider(provider(classical()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let config = Arc::new(config);
    let (begun, got) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&begun), Arc::clone(&got));
    let listener = TcpListener::bind(address).expect("the address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            begun.fetch_add(1, Ordering::SeqCst);
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let got = Arc::clone(&got);
            std::thread::spawn(move || {
                let mut stream = rustls::StreamOwned::new(session, stream);
                let mut octets = [0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut octets) {
                    got.fetch_add(read, Ordering::SeqCst);
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    counts
}

#[test]
fn key_does_not_go_to_a_kms_that_is_not_the_one_at_the_endpoint() {
    let secured = Secured::start(Choice::default());
    let foreign = Authority::new("QKD laboratory authority", 1).expect("an authority");
    let wrong_name = Subject::new("kms-a", &["other.qkd.test"], &[KMS[0]], 1);
    let right_name = Subject::new("kms-a", &["localhost"], &[KMS[0]], 1);
    let at = secured.endpoints;
    let (begun, got) = endpoint(
        at[0],
        &secured.authority.issue(&wrong_name).expect("a certificate"),
        "HTTP/1.1 201 Created\r\n\r\n",
    );
    let (others, other_got) =
        endpoint(at[1], &foreign.issue(&right_name).expect("a certificate"), "HTTP/1.1 201 Created\r\n\r\n");
    let _ = secured.open_stream();
    wait_until("attempts", || begun.load(Ordering::SeqCst) > 2 && others.load(Ordering::SeqCst) > 2);
    assert_eq!(
        (got.load(Ordering::SeqCst), other_got.load(Ordering::SeqCst)),
        (0, 0),
        "key has gone to a stranger"
    );
    let said = [0, 1].map(|end| secured.module(end).process.line("no TLS connection with the KMS", DEADLINE));
    assert!(said[0].contains("not valid for name") && said[1].contains("BadSignature"), "{said:?}");
}

#[test]
fn a_redirect_leads_key_nowhere() {
    let secured = Secured::start(Choice::default());
    let (elsewhere, followed) = counting_listener();
    let answer: &'static str = Box::leak(
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        )
        .into_boxed_str(),
    );
    let (_, got) = endpoint(secured.endpoints[0], &secured.issued("kms-a"), answer);
    let _ = endpoint(secured.endpoints[1], &secured.issued("kms-b"), answer);
    let _ = secured.open_stream();
    let said = secured.module(0).process.line("HTTP status 307", DEADLINE);
    assert!(said.contains("key stream"), "{said}");
    assert!(got.load(Ordering::SeqCst) > 0, "the KMS itself must have got key, or nothing is tested");
    assert_eq!(followed.load(Ordering::SeqCst), 0, "the redirect was followed");
}
