//! Who may open what, and what it takes: at either end, and asked for by the other one.

use qkd_contract::state::LinkState;

use super::two_ends::{A, B, Ends, settings};
use crate::agreement::{Capacity, Event, Message, OpenRequest, Role, Settings};
use crate::calls::{Answer, Call, Open};
use crate::interface::{KeyStreamId, QosRequest, Status};

const OTHER: &str = "kms://other";
const STREAM: KeyStreamId = KeyStreamId::from_u128(1);

/// Both ends in step, with changed settings.
fn with(change: impl Fn(&mut Settings, &mut Settings)) -> Ends {
    let (mut leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    change(&mut leader, &mut follower);
    Ends::with(leader, follower, 8_000_000)
}

/// The call by which `kms` opens a stream between `pair` at `end`.
fn opens(both: &mut Ends, end: usize, kms: &str, stream: Option<KeyStreamId>, pair: [&str; 2]) -> u64 {
    let [source, destination] = pair.map(str::to_owned);
    both.call(
        end,
        Call::Open(Open { kms: kms.to_owned(), source, destination, stream, qos: QosRequest::default() }),
    )
}

fn said(both: &Ends, end: usize, call: u64) -> String {
    format!("{:?}", both.ends[end].answer(call))
}

#[test]
fn nothing_is_opened_while_the_other_ends_card_has_no_link() {
    let mut both = Ends::in_step(8_000_000);
    both.event(1, Event::Link { state: LinkState::Off, secret_key_rate_bps: 0 });
    both.run(2_000);
    let call = both.open(0, None, QosRequest::default());
    assert!(said(&both, 0, call).contains("no QKD link"), "{}", said(&both, 0, call));
}

#[test]
fn a_timeout_of_nought_is_the_default_and_not_the_end_of_the_call() {
    let mut both = Ends::in_step(8_000_000);
    both.cut();
    let call = both.open(1, None, QosRequest { timeout: Some(0), ..QosRequest::default() });
    both.run(10);
    assert_eq!(both.ends[1].answer(call), None, "it waits for the leader");
}

#[test]
fn a_request_that_was_lost_is_made_again() {
    let mut both = Ends::in_step(8_000_000);
    both.connected = false;
    let call = both.open(1, None, QosRequest { timeout: Some(20_000), ..QosRequest::default() });
    both.connected = true;
    both.run(10_000);
    assert!(matches!(both.ends[1].answer(call), Some(Answer::Opened { .. })), "{}", said(&both, 1, call));
}

#[test]
fn the_follower_knows_itself_whose_a_stream_of_its_own_is() {
    let mut both = with(|leader, follower| {
        follower.local_kms.push(OTHER.to_owned());
        leader.local_kms = vec![A.to_owned()];
    });
    let first = opens(&mut both, 1, B, Some(STREAM), [A, B]);
    both.run(20);
    assert!(said(&both, 1, first).contains("Opened"), "{}", said(&both, 1, first));
    let second = opens(&mut both, 1, OTHER, Some(STREAM), [A, OTHER]);
    assert!(said(&both, 1, second).contains("in use by another KMS"), "{}", said(&both, 1, second));
}

#[test]
fn streams_of_one_kms_at_the_follower_are_not_counted_for_another() {
    let mut both = with(|leader, follower| {
        leader.most_streams_per_kms = 1;
        follower.local_kms.push(OTHER.to_owned());
    });
    for (kms, pair) in [(B, [A, B]), (OTHER, [OTHER, A])] {
        let call = opens(&mut both, 1, kms, None, pair);
        both.run(20);
        assert!(said(&both, 1, call).contains("Opened"), "{kms}: {}", said(&both, 1, call));
    }
    let call = opens(&mut both, 1, B, None, [B, A]);
    both.run(20);
    assert!(said(&both, 1, call).contains("as many as may be"), "{}", said(&both, 1, call));
}

#[test]
fn a_chunk_takes_an_eighth_of_the_room_at_most() {
    let mut both = with(|leader, _| leader.card.retention = Capacity { bytes: 65_536, blocks: 65_536 });
    for (chunk, status) in [(8_192, None), (8_193, Some(Status::QosNotMet))] {
        let call = both.open(0, None, QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() });
        match both.ends[0].answer(call) {
            Some(Answer::Opened { .. }) => assert_eq!(status, None, "{chunk}"),
            Some(Answer::Refused { status: told, counter_proposal, .. }) => {
                assert_eq!(Some(*told), status, "{chunk}");
                assert_eq!(counter_proposal.as_ref().map(|qos| qos.key_chunk_size), Some(8_192));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_leader_registers_nothing_for_whom_it_does_not_know() {
    let [nobody, stranger] = ["kms://nobody", "kms://stranger"];
    for (kms, source, destination) in
        [(stranger, stranger, A), (stranger, A, stranger), (B, A, stranger), (B, B, nobody), (B, nobody, B)]
    {
        let mut both = Ends::in_step(8_000_000);
        let [kms, source, destination] = [kms, source, destination].map(str::to_owned);
        let asked = format!("{kms} for {source} and {destination}");
        let qos = QosRequest::default();
        let request = OpenRequest { call: 1, stream: STREAM, chosen: false, kms, source, destination, qos };
        let answers = both.ends[0].handle(2_000, Event::PeerMessage(Message::OpenRequest(request)));
        let refused = answers.iter().any(|message| {
            matches!(message, Message::OpenReply(reply) if reply.status == Status::KeyStreamIdInUse)
        });
        assert!(refused, "{asked}: {answers:?}");
        assert_eq!(both.ends[0].core.status().streams, 0, "{asked}");
    }
}
