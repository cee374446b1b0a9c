//! Link and interface in the terms of ETSI GS QKD 015 V2.1.1 (YANG modules etsi-qkd-sdn-node and etsi-qkd-node-types), as JSON by
//! RFC 7951, for an SDN agent on this host. The agent knows the network: names that the controller gives replace those here.
//!
//! This module is one interface (`qkdi_id` 1) and its QKD link one physical link. What a QKD module does not know is left out:
//! the interface's technology, wavelengths and attachment, and the key streams' routes. What comes out is described by
//! `docs/schema/qkd-015.json`.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::picture::{CardRole, LinkState, Picture, State, Stream};

/// Interface of both nodes.
const INTERFACE: u32 = 1;

/// A value of one of the identities of etsi-qkd-node-types.
fn identity(name: &str) -> String {
    format!("etsi-qkd-node-types:{name}")
}

/// An ID that both ends make of the same words.
fn id(what: &str) -> Uuid {
    let mut octets = [0; 16];
    for (octet, from) in octets.iter_mut().zip(digest(&SHA256, what.as_bytes()).as_ref()) {
        *octet = *from;
    }
    Builder::from_custom_bytes(octets).into_uuid()
}

fn node_id(serial: &str) -> Uuid {
    id(&format!("qkd node {serial}"))
}

/// The same at both ends: transmitter first.
fn link_id(picture: &Picture) -> Option<Uuid> {
    let (own, peer) = (&picture.card.serial, picture.card.peer_serial.as_ref()?);
    Some(match picture.card.role {
        CardRole::Transmitter => id(&format!("qkd link {own} {peer}")),
        CardRole::Receiver => id(&format!("qkd link {peer} {own}")),
    })
}

/// `keys`: whether there is key that was distilled before.
fn link_status(state: LinkState, keys: bool) -> &'static str {
    match state {
        LinkState::Distilling => "ACTIVE",
        _ if keys => "PASSIVE",
        LinkState::Unknown | LinkState::Initialising | LinkState::Aligning => "PENDING",
        LinkState::Off | LinkState::NoAuthenticationKey | LinkState::Fault => "OFF",
    }
}

fn interface_status(state: LinkState) -> &'static str {
    match state {
        LinkState::Fault => "FAILED",
        LinkState::Off => "DISABLED",
        _ => "ENABLED",
    }
}

fn rate(bps: u64) -> u32 {
    u32::try_from(bps).unwrap_or(u32::MAX)
}

/// Secret key rate, and what of it key streams can have: nothing while the two modules are not in step.
fn rates(picture: &Picture) -> (u32, u32) {
    let skr = picture.link.measured.as_ref().map_or(0, |measured| rate(measured.secret_key_rate_bps));
    (skr, if picture.agreement.in_step { skr } else { 0 })
}

/// The whole node.
pub(super) fn node(picture: &Picture, streams: &[Stream]) -> Value {
    let role = match picture.card.role {
        CardRole::Transmitter => "TRANSMITTER",
        CardRole::Receiver => "RECEIVER",
    };
    // FAILURE is the controller's word for a node that it cannot reach.
    let status = match picture.health.state {
        State::Delivering | State::Ready => "OPERATING",
        State::Degraded => "DOWN",
    };
    json!({ "etsi-qkd-sdn-node:qkd_node": {
        "qkdn_id": node_id(&picture.card.serial),
        "qkdn_status": identity(status),
        "qkdn_version": format!("qkdd {}", picture.module.version),
        "qkdn_location_id": "",
        "qkdn_capabilities": {
            "link_stats_support": true,
            "application_stats_support": false,
            "key_relay_mode_enable": false,
        },
        "qkd_interfaces": { "qkd_interface": [{
            "qkdi_id": INTERFACE,
            "qkdi_status": identity(interface_status(picture.link.state)),
            "qkdi_model": format!("card {}, contract {}", picture.card.serial, picture.card.contract),
            "qkdi_capabilities": { "role_support": identity(role) },
        }] },
        "qkd_links": { "qkd_link": link(picture, streams).into_iter().collect::<Vec<_>>() },
    } })
}

/// The link; `None` until the card knows the card at the other end.
fn link(picture: &Picture, streams: &[Stream]) -> Option<Value> {
    let qkdl_id = link_id(picture)?;
    let remote = node_id(picture.card.peer_serial.as_ref()?);
    let (skr, eskr) = rates(picture);
    let wanted = streams.iter().map(|stream| stream.qos.min_bps).fold(0, u64::saturating_add);
    let mut performance = json!({ "expected_consumption": rate(wanted), "skr": skr, "eskr": eskr });
    if let (Some(measured), Some(members)) = (&picture.link.measured, performance.as_object_mut()) {
        // A decimal64 is a string (RFC 7951, 6.1).
        let value = format!("{:.3}", measured.qber);
        members.insert("phys_perf".into(), json!([{ "perf_type": identity("QBER"), "value": value }]));
    }
    let applications: Vec<&str> = streams.iter().map(|stream| stream.id.as_str()).collect();
    Some(json!({
        "qkdl_id": qkdl_id,
        "qkdl_status": identity(link_status(picture.link.state, picture.pool.held_bytes > 0)),
        "qkdl_enable": true,
        "qkdl_local": { "qkdn_id": node_id(&picture.card.serial), "qkdi_id": INTERFACE },
        "qkdl_remote": { "qkdn_id": remote, "qkdi_id": INTERFACE },
        "qkdl_type": identity("PHYS"),
        "qkdl_applications": applications,
        "qkdl_performance": performance,
    }))
}

/// The changes of the link that are remembered, as notifications (RFC 8040, 6.4), the oldest first: `sdqkdn_interface_down` for a fault,
/// `sdqkdn_link_down` where a link distils no more, `event` for everything else.
pub(super) fn notifications(picture: &Picture) -> Value {
    let Some(link_id) = link_id(picture) else { return json!([]) };
    let mut before = LinkState::Unknown;
    let notify = |change: &crate::picture::LinkChange| {
        let reason = change.state.word();
        let (name, what) = match (std::mem::replace(&mut before, change.state), change.state) {
            (_, LinkState::Fault) => (
                "sdqkdn_interface_down",
                json!({ "qkd_interface": { "qkdi_id": INTERFACE, "reason": reason } }),
            ),
            (LinkState::Distilling, _) => {
                ("sdqkdn_link_down", json!({ "qkd_link": { "qkdl_id": link_id, "reason": reason } }))
            }
            // What key there was at that time is not known any more.
            (_, state) => (
                "event",
                json!({ "link": {
                    "qkdl_id": link_id, "qkdl_status": identity(link_status(state, false)), "message": reason,
                } }),
            ),
        };
        let name = format!("etsi-qkd-sdn-node:{name}");
        json!({ "ietf-restconf:notification": { "eventTime": date(change.unix_ms), name: what } })
    };
    picture.link.changes.iter().map(notify).collect()
}

fn date(unix_ms: u64) -> String {
    let since = std::time::Duration::from_secs(unix_ms / 1_000);
    x509_cert::der::DateTime::from_unix_duration(since)
        .map_or_else(|_| String::new(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{node, notifications};
    use crate::picture::{CardRole, LinkChange, LinkState, State, example};

    #[test]
    fn both_ends_name_the_link_and_each_other_alike() {
        let a = example();
        let mut b = a.clone();
        b.card.role = CardRole::Receiver;
        b.card.peer_serial = Some(std::mem::replace(&mut b.card.serial, "0x1002".into()));
        let [a, b] = [&a, &b].map(|picture| {
            node(picture, &[])["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"][0].clone()
        });
        assert_eq!(a["qkdl_id"], b["qkdl_id"]);
        assert_eq!((&a["qkdl_local"], &a["qkdl_remote"]), (&b["qkdl_remote"], &b["qkdl_local"]));
        assert_ne!(a["qkdl_local"], a["qkdl_remote"]);
    }

    #[test]
    fn a_link_that_distils_for_modules_out_of_step_gives_no_effective_key() {
        let mut picture = example();
        let of = |picture: &_| {
            node(picture, &[])["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"][0]["qkdl_performance"]
                .clone()
        };
        let good = of(&picture);
        assert_eq!((good["skr"].as_u64(), good["eskr"].as_u64()), (Some(4_000_123), Some(4_000_123)));
        assert_eq!(good["phys_perf"][0]["perf_type"], "etsi-qkd-node-types:QBER");
        assert_eq!(good["phys_perf"][0]["value"], "0.021", "decimal64 is a string");
        picture.agreement.in_step = false;
        assert_eq!(of(&picture)["eskr"], 0);
    }

    #[test]
    fn a_link_is_not_told_of_before_its_other_end_is_known() {
        let mut picture = example();
        picture.card.peer_serial = None;
        let node = node(&picture, &[]);
        assert_eq!(node["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"], serde_json::json!([]));
        assert_eq!(notifications(&picture), serde_json::json!([]));
    }

    #[test]
    fn a_cut_is_notified_with_its_time() {
        let mut picture = example();
        let change = |at: u64, state| LinkChange { unix_ms: 1_795_783_509_123 + at * 1_000, state };
        picture.link.changes = vec![
            change(0, LinkState::Aligning),
            change(1, LinkState::Distilling),
            change(2, LinkState::Off),
            change(3, LinkState::Aligning),
            change(4, LinkState::Fault),
        ];
        let all = notifications(&picture);
        fits(&all);
        let at = |number: usize, name: &str| {
            all[number]["ietf-restconf:notification"][format!("etsi-qkd-sdn-node:{name}")].clone()
        };
        assert_eq!(all[0]["ietf-restconf:notification"]["eventTime"], "2026-11-27T12:45:09Z");
        assert_eq!(at(0, "event")["link"]["qkdl_status"], "etsi-qkd-node-types:PENDING");
        assert_eq!(at(1, "event")["link"]["qkdl_status"], "etsi-qkd-node-types:ACTIVE");
        assert_eq!(at(2, "sdqkdn_link_down")["qkd_link"]["reason"], "off");
        assert_eq!(at(3, "event")["link"]["message"], "aligning", "it was down already");
        assert_eq!(at(4, "sdqkdn_interface_down")["qkd_interface"]["qkdi_id"], 1);
    }

    /// Whatever the state, what comes out is made of the names that the YANG modules have.
    #[test]
    fn every_state_is_told_in_the_words_of_the_specification() {
        let healths = [State::Delivering, State::Ready, State::Degraded];
        for (state, health) in LinkState::ALL.iter().flat_map(|state| healths.map(|health| (*state, health)))
        {
            for held in [0, 4_096] {
                let mut picture = example();
                picture.link.state = state;
                picture.link.changes = vec![LinkChange { unix_ms: 1, state }];
                picture.pool.held_bytes = held;
                picture.health.state = health;
                fits(&node(&picture, &[]));
                fits(&notifications(&picture));
            }
        }
    }

    #[test]
    fn a_link_that_is_down_is_passive_while_there_is_key_and_off_without() {
        let mut picture = example();
        picture.link.state = LinkState::Off;
        for (held, status) in [(64, "PASSIVE"), (0, "OFF")] {
            picture.pool.held_bytes = held;
            let node = node(&picture, &[]);
            let link = &node["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"][0];
            assert_eq!(link["qkdl_status"], format!("etsi-qkd-node-types:{status}"));
        }
    }

    fn fits(value: &Value) {
        let schema = include_str!("../../../../docs/schema/qkd-015.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?} in {value}");
    }
}
