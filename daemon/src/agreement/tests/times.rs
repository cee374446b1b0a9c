//! When something is due, and what is told of it.

use qkd_contract::state::LinkState;

use super::two_ends::{Ends, settings};
use crate::agreement::timers::{Timer, Timers};
use crate::agreement::{Action, Event, Message, Role};
use crate::interface::{KeyStreamId, QosRequest, Status};

#[test]
fn a_time_is_taken_in_its_order_and_not_before_it_has_come() {
    let mut times = Timers::default();
    times.set(Timer::Call(1), 10);
    times.set(Timer::Call(2), 5);
    times.set_earlier(Timer::Call(1), 12);
    assert_eq!((times.first(), times.pop_due(4)), (Some(5), None));
    assert_eq!(times.pop_due(5), Some(Timer::Call(2)));
    assert_eq!(
        (times.first(), times.pop_due(9)),
        (Some(10), None),
        "a later time does not replace an earlier one"
    );
    times.set_earlier(Timer::Call(1), 7);
    times.set_earlier(Timer::Call(3), 8);
    assert_eq!(
        [times.pop_due(7), times.pop_due(7), times.pop_due(8)],
        [Some(Timer::Call(1)), None, Some(Timer::Call(3))]
    );
    assert_eq!((times.first(), times.is_set(Timer::Call(1))), (None, false));
}

#[test]
fn a_time_that_was_set_anew_or_taken_back_does_not_come_as_it_was() {
    let mut times = Timers::default();
    times.set(Timer::Call(1), 5);
    times.set(Timer::Call(1), 9);
    assert_eq!((times.pop_due(8), times.pop_due(9)), (None, Some(Timer::Call(1))));
    let [one, other] = [1, 2].map(KeyStreamId::from_u128);
    let of =
        |id| [Timer::Tokens(id), Timer::Expire(id), Timer::HalfOpen(id), Timer::Dry(id), Timer::Linger(id)];
    for timer in [of(one), of(other)].into_iter().flatten().chain([Timer::Call(1), Timer::Resend]) {
        times.set(timer, 20);
    }
    times.clear_stream(one);
    times.clear(Timer::Resend);
    assert!(of(one).into_iter().chain([Timer::Resend]).all(|timer| !times.is_set(timer)));
    assert!(of(other).into_iter().chain([Timer::Call(1)]).all(|timer| times.is_set(timer)));
    let left = std::iter::from_fn(|| times.pop_due(20)).count();
    assert_eq!(left, 6);
}

fn link(both: &mut Ends, end: usize, state: LinkState, secret_key_rate_bps: u64) {
    both.event(end, Event::Link { state, secret_key_rate_bps });
}

fn notices(both: &Ends, end: usize, wanted: Status) -> usize {
    let told = |action: &&Action| matches!(action, Action::Notice { status, .. } if *status == wanted);
    both.ends[end].actions.iter().filter(told).count()
}

/// How often each end has told its KMS that no key comes.
fn dry(both: &Ends) -> [usize; 2] {
    [0, 1].map(|end| notices(both, end, Status::InsufficientKey))
}

#[test]
fn a_stream_that_is_dry_is_told_of_also_by_a_daemon_that_has_started_again() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        both.stream(QosRequest { timeout: Some(300), ..QosRequest::default() });
        both.restart(end, settings([Role::Leader, Role::Follower][end]));
        assert_eq!(notices(&both, end, Status::InsufficientKey), 0);
        both.run(1_000);
        assert_eq!(notices(&both, end, Status::InsufficientKey), 1, "end {end}");
    }
}

#[test]
fn a_link_that_comes_up_is_no_trouble_to_a_stream_that_was_asked_for_meanwhile() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.opened(QosRequest::default());
    link(&mut both, 0, LinkState::Off, 0);
    both.get_key(0, stream, None);
    both.run(20);
    link(&mut both, 0, LinkState::Distilling, 1_000_000);
    assert_eq!(notices(&both, 0, Status::NoQkdConnection), 0);
}

#[test]
fn the_link_is_logged_when_its_state_changes_and_not_with_each_rate() {
    let mut both = Ends::in_step(1_000_000);
    both.ends[0].actions.clear();
    link(&mut both, 0, LinkState::Distilling, 5);
    assert!(!both.ends[0].says("QKD link"));
    link(&mut both, 0, LinkState::Aligning, 5);
    assert!(both.ends[0].says("QKD link: Aligning"));
}

#[test]
fn the_leader_hears_soon_how_the_followers_link_has_changed_and_nothing_of_one_that_has_not() {
    let mut both = Ends::in_step(1_000_000);
    both.run(1_000);
    for (state, rate, changed) in [
        (LinkState::Distilling, 1_000_000, false),
        (LinkState::Distilling, 5, true),
        (LinkState::Aligning, 5, true),
        (LinkState::Aligning, 5, false),
        (LinkState::Distilling, 7, true),
    ] {
        // Just behind a report that came by itself.
        while !both.overhear(1)[0].iter().any(|message| matches!(message, Message::Report(_))) {}
        link(&mut both, 1, state, rate);
        let [heard, _] = both.overhear(100);
        let reported = heard.iter().any(|message| matches!(message, Message::Report(_)));
        assert_eq!(reported, changed, "{state:?} with {rate} bit/s");
        assert_eq!(both.ends[0].core.leading.peer_link, Some((rate, state == LinkState::Distilling)));
    }
}

#[test]
fn key_that_comes_alone_waits_for_no_report_and_key_that_comes_fast_brings_no_more_of_them() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    let reports = |heard: &[Message]| heard.iter().filter(|m| matches!(m, Message::Report(_))).count();
    both.run(100);
    for _ in 0..5 {
        both.block();
        // That the block is held, the grant, and that it is applied: a millisecond each.
        let before = both.delivered(0, stream);
        both.run(3);
        assert!(both.delivered(0, stream) > before);
        for end in 0..2 {
            both.accept(end, stream);
        }
        both.run(50);
    }
    let mut heard = 0;
    for _ in 0..500 {
        both.block();
        heard += reports(&both.overhear(1)[0]);
        for end in 0..2 {
            both.accept(end, stream);
        }
    }
    // One in five milliseconds, and those after the pause.
    assert!((90..=103).contains(&heard), "{heard} reports in 500 ms");
}

#[test]
fn a_stream_is_dry_when_its_time_is_over_since_the_last_key_and_nothing_is_left() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    both.run(300);
    both.block();
    both.run(20);
    for end in 0..2 {
        both.accept(end, stream);
    }
    both.run(300);
    assert_eq!(dry(&both), [0, 0], "there was key not long ago");
    both.run(300);
    assert_eq!(dry(&both), [1, 1]);
    // Its KMS takes nothing now, which is not for want of key.
    both.block();
    both.run(3_000);
    assert_eq!(dry(&both), [1, 1]);
}

fn looks(both: &Ends, stream: KeyStreamId) -> [bool; 2] {
    [0, 1].map(|end| both.ends[end].core.timers.is_set(Timer::Dry(stream)))
}

#[test]
fn a_stream_that_waits_costs_nothing_and_is_told_of_each_time_that_it_runs_dry() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    for times in 1..4 {
        assert_eq!(looks(&both, stream), [true; 2]);
        both.run(500);
        assert_eq!(dry(&both), [times; 2]);
        assert_eq!(looks(&both, stream), [false; 2], "it has been told of");
        both.run(3_000);
        assert_eq!((dry(&both), looks(&both, stream)), ([times; 2], [false; 2]));
        both.block();
        both.run(20);
        for end in 0..2 {
            both.accept(end, stream);
        }
    }
}

#[test]
fn a_stream_whose_kms_takes_nothing_is_not_looked_at_and_may_run_dry_once_it_does() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    both.block();
    both.run(3_000);
    assert_eq!(looks(&both, stream), [false; 2]);
    for end in 0..2 {
        both.accept(end, stream);
        assert_eq!(
            notices(&both, end, Status::InsufficientKey),
            0,
            "what makes room is given time to bring key"
        );
    }
    // An eighth of its timeout.
    both.run(49);
    assert_eq!(dry(&both), [0, 0], "what makes room is given time to bring key");
    both.run(10);
    assert_eq!(dry(&both), [1, 1]);
}

#[test]
fn a_stream_is_told_of_at_the_millisecond_at_which_its_time_is_over() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    for end in 0..2 {
        let over = both.ends[end].core.streams[&stream].fed_ms + 400;
        while both.time < over - 1 {
            both.run(1);
        }
        assert_eq!(notices(&both, end, Status::InsufficientKey), 0, "end {end}");
        while both.time < over {
            both.run(1);
        }
        assert_eq!(notices(&both, end, Status::InsufficientKey), 1, "end {end}");
    }
}

#[test]
fn a_stream_that_was_told_that_the_link_is_down_is_not_looked_at_when_its_kms_takes_key() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    both.block();
    both.run(20);
    for end in 0..2 {
        link(&mut both, end, LinkState::Aligning, 0);
    }
    both.run(3_000);
    for end in 0..2 {
        both.accept(end, stream);
    }
    assert_eq!(looks(&both, stream), [false; 2]);
    both.run(3_000);
    assert_eq!(dry(&both), [0, 0]);
}

#[test]
fn a_stream_that_is_dry_when_the_link_returns_is_told_of_if_no_key_comes_with_it() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { timeout: Some(400), ..QosRequest::default() });
    for end in 0..2 {
        link(&mut both, end, LinkState::Aligning, 0);
    }
    both.run(3_000);
    assert_eq!((notices(&both, 0, Status::InsufficientKey), looks(&both, stream)), (0, [false; 2]));
    for end in 0..2 {
        link(&mut both, end, LinkState::Distilling, 1_000_000);
        assert_eq!(notices(&both, end, Status::InsufficientKey), 0, "the link has only just come");
    }
    both.run(500);
    assert_eq!(dry(&both), [1, 1]);
}

#[test]
fn a_stream_that_the_other_end_closed_a_time_to_live_ago_ends_here_too() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest { ttl: Some(2), ..QosRequest::default() });
        both.close(1 - end, stream);
        both.run(1_900);
        assert!(!both.ends[end].says("a time to live ago"));
        assert!(!both.ends[end].durable.streams[&stream].closed);
        both.run(200);
        assert!(both.ends[end].says("a time to live ago"), "end {end}");
        both.run(5_000);
        assert!(both.ends.iter().all(|end| end.durable.streams.is_empty()), "it is over at both ends");
        let mut closed = Ends::in_step(1_000_000);
        let stream = closed.stream(QosRequest { ttl: Some(2), ..QosRequest::default() });
        closed.close(1 - end, stream);
        closed.run(1_000);
        closed.close(end, stream);
        closed.run(5_000);
        assert!(!closed.ends.iter().any(|end| end.says("a time to live ago")), "it was closed in time");
    }
}

#[test]
fn a_stream_that_one_kms_has_opened_and_the_other_has_not_ends_for_that_reason() {
    let mut both = Ends::in_step(1_000_000);
    both.open(0, None, QosRequest::default());
    both.run(59_000);
    assert_eq!(both.ends[0].durable.streams.len(), 1);
    both.run(2_000);
    assert!(both.ends[0].says("only one KMS has opened it"));
    assert!(both.ends.iter().all(|end| end.durable.streams.is_empty()));
}
