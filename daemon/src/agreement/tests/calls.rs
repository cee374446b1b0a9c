//! What KMSs are answered.

use qkd_contract::state::LinkState;

use super::two_ends::{A, B, BLOCK, Ends, settings};
use crate::agreement::{Action, Event, LossCause, Role};
use crate::calls::{Answer, Call, Open};
use crate::interface::{KeyStreamId, QosRequest, Status};

pub(super) fn status(answer: Option<&Answer>) -> u32 {
    match answer {
        Some(Answer::Opened { status, .. } | Answer::Refused { status, .. }) => u32::from(*status),
        Some(Answer::Done) => 0,
        None => panic!("no answer"),
    }
}

fn id(number: u128) -> KeyStreamId {
    KeyStreamId::from_u128(number)
}

pub(super) fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

#[test]
fn the_first_open_gets_1_and_the_second_0_at_either_end() {
    for first in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let one = both.open(first, Some(id(1)), qos(64));
        both.run(20);
        assert_eq!(status(both.ends[first].answer(one)), 1);
        let two = both.open(1 - first, Some(id(1)), qos(32));
        both.run(20);
        let Some(Answer::Opened { qos, status, .. }) = both.ends[1 - first].answer(two) else {
            panic!("refused")
        };
        assert_eq!(
            (*status, qos.key_chunk_size),
            (Status::Successful, 64),
            "the first caller's qos is registered"
        );
    }
}

#[test]
fn the_same_open_again_gets_the_same_answer_and_any_other_5() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        for (request, wanted) in [(qos(64), 1), (qos(64), 1), (qos(32), 5)] {
            let call = both.open(end, Some(id(1)), request);
            both.run(20);
            assert_eq!(status(both.ends[end].answer(call)), wanted, "end {end}");
        }
        let others = both.call(
            end,
            Call::Open(Open {
                kms: [A, B][end].to_owned(),
                source: [A, B][end].to_owned(),
                destination: "kms://c".to_owned(),
                stream: Some(id(1)),
                qos: qos(64),
            }),
        );
        both.run(20);
        assert_eq!(status(both.ends[end].answer(others)), 5, "end {end}");
    }
}

#[test]
fn the_leader_answers_an_open_while_the_other_end_is_away_and_tells_it_later() {
    let mut both = Ends::in_step(1_000_000);
    both.cut();
    let one = both.open(0, Some(id(1)), qos(64));
    assert_eq!(status(both.ends[0].answer(one)), 1);
    both.connect();
    both.run(30);
    let two = both.open(1, Some(id(1)), qos(64));
    both.run(30);
    assert_eq!(status(both.ends[1].answer(two)), 0);
}

#[test]
fn the_follower_answers_6_when_the_leader_is_away_for_the_timeout() {
    let mut both = Ends::in_step(1_000_000);
    both.cut();
    let call = both.open(1, None, QosRequest { timeout: Some(70), ..qos(64) });
    both.run(69);
    assert!(both.ends[1].answer(call).is_none());
    both.run(2);
    assert_eq!(status(both.ends[1].answer(call)), 6);
}

#[test]
fn no_stream_is_opened_without_a_qkd_link() {
    for state in [LinkState::Off, LinkState::Aligning, LinkState::NoAuthenticationKey, LinkState::Fault] {
        for end in 0..2 {
            let mut both = Ends::in_step(1_000_000);
            both.event(end, Event::Link { state, secret_key_rate_bps: 0 });
            let call = both.open(end, None, qos(64));
            both.run(20);
            assert_eq!(status(both.ends[end].answer(call)), 4, "{state:?}");
        }
    }
}

#[test]
fn what_cannot_be_met_is_answered_with_what_can() {
    let mut both = Ends::in_step(1_000_000);
    let cases = [
        (qos(1 << 20), "chunk"),
        (QosRequest { min_bps: Some(2_000_000), ..qos(64) }, "not reserved"),
        (QosRequest { min_bps: Some(9), max_bps: Some(8), ..qos(64) }, "above max_bps"),
    ];
    for end in 0..2 {
        for (request, why) in &cases {
            let call = both.open(end, None, request.clone());
            both.run(20);
            let Some(Answer::Refused { status: Status::QosNotMet, detail, counter_proposal: Some(proposal) }) =
                both.ends[end].answer(call).cloned()
            else {
                panic!("{:?}", both.ends[end].answer(call));
            };
            assert!(detail.contains(why), "{detail}");
            let met = QosRequest {
                key_chunk_size: Some(proposal.key_chunk_size),
                min_bps: Some(proposal.min_bps),
                max_bps: Some(proposal.max_bps),
                ..QosRequest::default()
            };
            let again = both.open(end, None, met);
            both.run(20);
            assert_eq!(status(both.ends[end].answer(again)), 1, "the proposal itself must be met");
        }
    }
}

#[test]
fn minima_are_reserved_only_by_streams_open_at_both_ends() {
    let mut both = Ends::in_step(1_000_000);
    let half = QosRequest { min_bps: Some(600_000), ..qos(64) };
    for number in 1..=2 {
        let call = both.open(0, Some(id(number)), half.clone());
        assert_eq!(status(both.ends[0].answer(call)), 1);
    }
    both.run(20);
    for (number, wanted) in [(1, 0), (2, 7)] {
        let call = both.open(1, Some(id(number)), qos(64));
        both.run(20);
        assert_eq!(status(both.ends[1].answer(call)), wanted);
    }
}

#[test]
fn a_closed_id_is_5_for_ever_at_both_ends() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    for end in 0..2 {
        both.close(end, stream);
        both.event(end, Event::Stopped { stream, sent_up_to: 0 });
    }
    both.run(50);
    for end in 0..2 {
        assert!(both.ends[end].durable.streams.is_empty(), "end {end}");
        let call = both.open(end, Some(stream), qos(64));
        both.run(20);
        assert_eq!(status(both.ends[end].answer(call)), 5, "end {end}");
    }
}

#[test]
fn when_no_more_closed_ids_can_be_remembered_predefined_ones_are_refused_and_generated_ones_go_on() {
    let mut leader = settings(Role::Leader);
    leader.most_closed_ids = 1;
    let mut both = Ends::with(leader, settings(Role::Follower), 1_000_000);
    let stream = both.stream(qos(64));
    for end in 0..2 {
        both.close(end, stream);
        both.event(end, Event::Stopped { stream, sent_up_to: 0 });
    }
    both.run(50);
    let predefined = both.open(0, Some(id(5)), qos(64));
    assert_eq!(status(both.ends[0].answer(predefined)), 5);
    let generated = both.open(0, None, qos(64));
    assert_eq!(status(both.ends[0].answer(generated)), 1);
}

#[test]
fn half_open_streams_are_few_and_expire() {
    let mut leader = settings(Role::Leader);
    leader.most_half_open_per_kms = 2;
    leader.half_open_expiry_ms = 500;
    let mut both = Ends::with(leader, settings(Role::Follower), 1_000_000);
    for wanted in [1, 1, 4] {
        let call = both.open(0, None, qos(64));
        assert_eq!(status(both.ends[0].answer(call)), wanted);
    }
    both.run(600);
    assert!(both.ends.iter().all(|end| end.durable.streams.is_empty()));
    let call = both.open(0, None, qos(64));
    assert_eq!(status(both.ends[0].answer(call)), 1);
}

#[test]
fn a_stream_that_nobody_asks_for_key_expires_and_one_that_somebody_asks_does_not() {
    for wanted in [false, true] {
        let mut leader = settings(Role::Leader);
        leader.half_open_expiry_ms = 500;
        let mut both = Ends::with(leader, settings(Role::Follower), 1_000_000);
        both.open(0, Some(id(1)), qos(64));
        both.run(20);
        both.open(1, Some(id(1)), qos(64));
        both.run(20);
        if wanted {
            both.get_key(1, id(1), None);
        }
        both.run(600);
        assert_eq!(both.ends[0].durable.streams.contains_key(&id(1)), wanted);
    }
}

#[test]
fn get_key_before_the_other_kms_has_opened_is_3_and_after_it_0() {
    for first in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        both.open(first, Some(id(1)), qos(64));
        both.run(20);
        let early = both.get_key(first, id(1), None);
        both.run(30);
        assert_eq!(status(both.ends[first].answer(early)), 3);
        both.open(1 - first, Some(id(1)), qos(64));
        both.run(20);
        let later = both.get_key(first, id(1), None);
        both.run(30);
        assert_eq!(status(both.ends[first].answer(later)), 0);
    }
}

#[test]
fn get_key_is_6_when_the_other_end_cannot_be_asked() {
    let mut both = Ends::in_step(1_000_000);
    both.open(1, Some(id(1)), QosRequest { timeout: Some(80), ..qos(64) });
    both.run(20);
    both.cut();
    let call = both.get_key(1, id(1), None);
    both.run(81);
    assert_eq!(status(both.ends[1].answer(call)), 6);
    assert!(!both.ends[1].durable.streams[&id(1)].wanted, "it leaves the stream as it was");
}

#[test]
fn get_key_of_nobodys_stream_is_3_and_close_of_it_5() {
    let mut both = Ends::in_step(1_000_000);
    for end in 0..2 {
        let get_key = both.get_key(end, id(9), None);
        assert_eq!(status(both.ends[end].answer(get_key)), 3);
        let close = both.close(end, id(9));
        assert_eq!(status(both.ends[end].answer(close)), 5);
    }
}

#[test]
fn both_ends_start_at_the_later_of_the_two_indices_and_nothing_before_is_lost() {
    let mut both = Ends::in_step(1_000_000);
    both.open(0, Some(id(1)), qos(64));
    both.run(20);
    both.open(1, Some(id(1)), qos(64));
    both.run(20);
    both.get_key(0, id(1), Some(7));
    both.get_key(1, id(1), Some(12));
    both.run(20);
    both.block();
    both.run(30);
    for end in &both.ends {
        assert_eq!(end.deliveries().first().map(|delivery| delivery.first), Some(12));
        assert!(!end.actions.iter().any(|action| matches!(action, Action::Lost { .. })));
    }
}

#[test]
fn an_index_within_what_was_granted_is_a_counted_discard_at_this_end_alone() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    both.block();
    both.run(30);
    let call = both.get_key(0, stream, Some(5));
    assert_eq!(status(both.ends[0].answer(call)), 0);
    let lost = Action::Lost { stream, first: 0, count: 5, cause: LossCause::Skipped };
    assert!(both.ends[0].actions.iter().any(|action| format!("{action:?}") == format!("{lost:?}")));
    both.run(30);
    assert_eq!(both.ends[1].durable.streams[&stream].lost, [0; 5]);
    let below = both.get_key(0, stream, Some(4));
    assert_eq!(status(both.ends[0].answer(below)), 2);
}

#[test]
fn close_is_answered_only_when_push_has_stopped() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        // The other end closed before: this close is the last, and ends the stream at once.
        both.close(1 - end, stream);
        both.run(30);
        let close = both.close(end, stream);
        both.run(30);
        let stops = |action: &Action| matches!(action, Action::Stop { .. });
        assert!(both.ends[end].actions.iter().any(stops));
        assert!(both.ends[end].answer(close).is_none(), "push has not stopped");
        both.event(end, Event::Stopped { stream, sent_up_to: 3 });
        assert_eq!(both.ends[end].answer(close), Some(&Answer::Done));
    }
}

#[test]
fn after_a_close_at_one_end_the_other_keeps_what_was_granted_and_hears_of_it_once() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        assert_eq!(both.delivered(1 - end, stream), u64::from(BLOCK));
        both.close(end, stream);
        both.event(end, Event::Stopped { stream, sent_up_to: 0 });
        both.run(700);
        both.block();
        both.run(100);
        let other = &both.ends[1 - end];
        assert_eq!(both.delivered(1 - end, stream), u64::from(BLOCK), "nothing more is granted");
        assert!(!other.durable.streams[&stream].closed);
        let notices = other
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Notice { status: Status::PeerNotConnected, .. }));
        assert_eq!(notices.count(), 1);
    }
}

#[test]
fn key_that_outlives_its_time_is_lost_counted_and_told_of() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { ttl: Some(1), ..qos(64) });
    both.block();
    both.run(900);
    assert_eq!(both.ends[0].durable.streams[&stream].lost, [0; 5]);
    both.run(200);
    for end in &both.ends {
        assert_eq!(end.durable.streams[&stream].lost, [0, u64::from(BLOCK) / 64, 0, 0, 0]);
        let told = |action: &Action| matches!(action, Action::Notice { status: Status::InsufficientKey, .. });
        assert!(end.actions.iter().any(told));
        let discards =
            |action: &Action| matches!(action, Action::Discard { up_to: 16, cause: LossCause::Expired, .. });
        assert!(end.actions.iter().any(discards));
    }
}

#[test]
fn a_link_that_is_down_and_a_stream_that_runs_dry_are_told_of_once() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(100), ..qos(64) });
    let told = |both: &Ends, wanted: Status| {
        both.ends[0]
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Notice { status, .. } if *status == wanted))
            .count()
    };
    both.run(500);
    assert_eq!(told(&both, Status::InsufficientKey), 1);
    both.block();
    both.run(30);
    for end in 0..2 {
        both.accept(end, stream);
    }
    both.run(500);
    assert_eq!(told(&both, Status::InsufficientKey), 2, "it has had key and runs dry again");
    for _ in 0..2 {
        both.event(0, Event::Link { state: LinkState::Off, secret_key_rate_bps: 0 });
    }
    assert_eq!(told(&both, Status::NoQkdConnection), 1);
    both.event(0, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1 });
    both.event(0, Event::Link { state: LinkState::Aligning, secret_key_rate_bps: 0 });
    assert_eq!(told(&both, Status::NoQkdConnection), 2);
}

#[test]
fn nought_says_nothing_of_a_chunk_a_limit_or_a_time() {
    let settings = settings(Role::Leader);
    let resolved =
        |request: &QosRequest| crate::agreement::qos::resolve(request, &settings, 65_536, None).unwrap();
    let nought = QosRequest {
        key_chunk_size: Some(0),
        max_bps: Some(0),
        timeout: Some(0),
        ttl: Some(0),
        ..QosRequest::default()
    };
    assert_eq!(resolved(&nought), resolved(&QosRequest::default()));
    assert!(resolved(&nought).max_bps > 0);
}
