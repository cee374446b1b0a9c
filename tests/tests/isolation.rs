//! Two KMSs at one module: neither sees, starts, closes or disturbs a key stream of the other, whatever it asks.

use std::net::SocketAddr;

use qkd_sim::lab::Subject;
use qkd_tests::DEADLINE;
use qkd_tests::secure::{Choice, Client, KMS, Reply, Secured, classical};
use serde_json::{Value, json};
use uuid::Uuid;

const OTHER: &str = "kms://c";

/// Every call that names a key stream, in every form that the API takes, with everything that may stand beside the ID.
fn asks(id: &Value) -> Vec<(&'static str, &'static str, Value)> {
    let mut asks = Vec::new();
    for method in ["GET", "POST"] {
        asks.push((method, "get-key", json!({"key_stream_id": id})));
        for index in [0_u32, 1, u32::MAX] {
            asks.push((method, "get-key", json!({"key_stream_id": id, "index": index})));
        }
        asks.push((method, "get-key", json!({"key_stream_id": id, "metadata": {"size": 57, "buffer": ""}})));
    }
    for method in ["PUT", "POST"] {
        asks.push((method, "close", json!({"key_stream_id": id})));
    }
    asks
}

/// An answer without the ID that it speaks of.
fn without(id: &Value, reply: &Reply) -> (u16, String) {
    (reply.http, reply.body.to_string().replace(id.as_str().expect("an ID"), "ID"))
}

struct Stranger<'a> {
    client: &'a Client,
    api: SocketAddr,
}

impl Stranger<'_> {
    /// Tries everything with somebody else's key stream. What it hears must be what it would of one that does not exist.
    fn learns_nothing(&self, when: &str, id: &Value) {
        let unknown = json!(Uuid::new_v4());
        for ((method, path, theirs), (_, _, nothing)) in asks(id).into_iter().zip(asks(&unknown)) {
            let about_theirs = self.client.call(self.api, method, path, &theirs);
            let about_nothing = self.client.call(self.api, method, path, &nothing);
            assert!(about_theirs.http >= 400, "{when}: {method} {path} {theirs}: {about_theirs:?}");
            assert_eq!(
                without(id, &about_theirs),
                without(&unknown, &about_nothing),
                "{when}: {method} {path} {theirs} tells that it is there"
            );
        }
        for (source, destination, http, why) in [
            // As the owner, in both orders.
            (KMS[0], KMS[1], 400, "certificate"),
            (KMS[1], KMS[0], 400, "certificate"),
            // As itself, with an ID that is taken: the only thing that it has to learn.
            (OTHER, KMS[1], 400, ""),
            (KMS[1], OTHER, 400, ""),
            // Between two KMSs of this end, and with oneself.
            (OTHER, KMS[0], 400, ""),
            (KMS[0], OTHER, 400, ""),
            (OTHER, OTHER, 400, ""),
        ] {
            let request =
                json!({"source": source, "destination": destination, "key_stream_id": id, "qos": {}});
            let reply = self.client.call(self.api, "POST", "open-connect", &request);
            assert_eq!(
                (reply.http, &reply.body["status"]),
                (http, &json!(5)),
                "{when}: {request}: {reply:?}"
            );
            assert!(reply.body.to_string().contains(why), "{when}: {reply:?}");
            assert!(reply.body["qos"].is_null() && reply.body["source"].is_null(), "{when}: {reply:?}");
        }
        // In another's name, with an ID of the module's choice.
        let request = json!({"source": KMS[0], "destination": KMS[1], "key_stream_id": null, "qos": {}});
        let reply = self.client.call(self.api, "POST", "open-connect", &request);
        assert_eq!(reply.http, 400, "{when}: {reply:?}");
    }
}

#[test]
fn a_kms_cannot_see_start_close_or_collide_with_a_stream_of_another() {
    let more = format!(
        "[[kms]]\nuri = \"{OTHER}\"\nendpoint = \"https://localhost:9\"\ncertificate_names = [\"DNS:c.qkd.test\"]\n"
    );
    let mut secured = Secured::prepare();
    secured.start_module(0, Choice { more: &more, ..Choice::default() });
    secured.start_module(1, Choice::default());
    let _ = secured.module(1).process.line("takes over epoch", DEADLINE);
    let apis = [secured.module(0).api, secured.module(1).api];
    let owner = secured.client("kms-a", classical());
    let far = secured.client("kms-b", classical());
    let subject = Subject::new("kms-c", &["C.qkd.test"], &[], 1);
    let issued = secured.authority.issue(&subject).expect("a certificate");
    let other = Client::new(&secured.authority.own, Some(&issued), classical());
    let stranger = Stranger { client: &other, api: apis[0] };

    // Half open by its owner, with an ID that anybody may guess.
    let id = json!(Uuid::from_u128(7));
    let request =
        json!({"source": KMS[0], "destination": KMS[1], "key_stream_id": id, "qos": {"priority": 3}});
    let until = std::time::Instant::now() + DEADLINE;
    let opened = loop {
        let opened = owner.call(apis[0], "POST", "open-connect", &request);
        if opened.http == 201 {
            break opened;
        }
        assert!(std::time::Instant::now() < until, "{opened:?}");
    };
    assert_eq!(opened.body["status"], json!(1));
    stranger.learns_nothing("half open", &id);

    // Open at both ends, then wanted at both ends.
    assert_eq!(far.call(apis[1], "POST", "open-connect", &request).http, 201);
    stranger.learns_nothing("open", &id);
    let again = owner.call(apis[0], "POST", "open-connect", &request);
    assert_eq!((again.http, &again.body["key_stream_id"]), (201, &id), "its owner must not be disturbed");
    assert_eq!(owner.call(apis[0], "GET", "get-key", &json!({"key_stream_id": id})).http, 205);
    assert_eq!(far.call(apis[1], "GET", "get-key", &json!({"key_stream_id": id})).http, 205);
    stranger.learns_nothing("wanted", &id);
    assert_eq!(
        owner.call(apis[0], "GET", "get-key", &json!({"key_stream_id": id})).http,
        205,
        "it is still open"
    );

    // One that only the other end has opened: this end's owner may learn of it, the stranger may not.
    let later = json!(Uuid::from_u128(8));
    let request = json!({"source": KMS[0], "destination": KMS[1], "key_stream_id": later, "qos": {}});
    assert_eq!(far.call(apis[1], "POST", "open-connect", &request).http, 201);
    let unknown = json!(Uuid::new_v4());
    for (method, path, theirs) in asks(&later).into_iter().filter(|(_, path, _)| *path == "get-key") {
        let heard = other.call(apis[0], method, path, &theirs);
        let nothing = other.call(apis[0], method, path, &json!({"key_stream_id": unknown}));
        assert_eq!(without(&later, &heard), without(&unknown, &nothing), "{theirs}");
    }

    // The stranger has a stream of its own all the same; and its owner closes the first.
    let own = json!({"source": OTHER, "destination": KMS[1], "key_stream_id": null, "qos": {}});
    assert_eq!(other.call(apis[0], "POST", "open-connect", &own).http, 201);
    assert_eq!(owner.call(apis[0], "PUT", "close", &json!({"key_stream_id": id})).http, 204);
    let close =
        |client: &Client, id: &Value| client.call(apis[0], "PUT", "close", &json!({"key_stream_id": id}));
    assert_eq!(without(&id, &close(&other, &id)), without(&unknown, &close(&other, &unknown)), "closed");
}
