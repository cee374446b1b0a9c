//! What a restart must not cost: streams go on by themselves, and key grows old.

use qkd_contract::state::LinkState;

use super::two_ends::{BLOCK, End, Ends, settings};
use crate::agreement::{Action, BlockName, Core, Durable, Event, LossCause, Now, Output, Role};
use crate::calls::Answer;
use crate::interface::{KeyStreamId, QosRequest, Status};

fn qos(chunk: u32) -> QosRequest {
    QosRequest { key_chunk_size: Some(chunk), ..QosRequest::default() }
}

fn replay(both: &mut Ends, end: usize, blocks: std::ops::Range<u64>) {
    for sequence in blocks {
        let name = BlockName::new(1, sequence);
        both.event(end, Event::BlockHeld { name, length: BLOCK, replayed: true });
    }
    both.event(end, Event::ReplayEnd);
}

#[test]
fn what_was_granted_is_delivered_after_a_restart_without_anybodys_call() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        // Nobody accepts anything before the restart, and nothing more is granted after it.
        both.restart(end, settings([Role::Leader, Role::Follower][end]));
        both.run(30);
        assert_eq!(both.delivered(end, stream), u64::from(BLOCK), "end {end}");
    }
}

#[test]
fn where_wall_time_has_gone_back_over_a_reboot_no_key_of_before_is_young() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest { ttl: Some(3_600), ..qos(64) });
    both.block();
    both.run(1_000);
    both.block();
    both.run(30);
    assert_eq!(both.ends[0].durable.streams[&stream].next, u64::from(2 * BLOCK / 64));
    // The new wall time is after the first grant and before the second.
    let mut settings = settings(Role::Leader);
    settings.boot_id += 1;
    let mut core = Core::new(settings, both.ends[0].durable.clone());
    let mut out = Output::default();
    let now = Now { boot_ms: 5, wall_ms: 1_700_000_000_000 + both.time - 500 };
    core.handle(now, Event::Start, &mut out);
    let lost: u64 = out
        .actions
        .iter()
        .map(|action| match action {
            Action::Lost { count, cause: LossCause::Expired, .. } => *count,
            _ => 0,
        })
        .sum();
    assert_eq!(lost, u64::from(2 * BLOCK / 64), "nothing tells the age of either");
}

fn lost(both: &Ends, end: usize, cause: LossCause) -> u64 {
    let actions = both.ends[end].actions.iter();
    actions
        .map(|action| match action {
            Action::Lost { count, cause: c, .. } if *c == cause => *count,
            _ => 0,
        })
        .sum()
}

#[test]
fn what_a_close_gives_up_is_counted_and_never_called_delivered() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        both.event(end, Event::Accepted { stream, up_to: 5 });
        both.close(end, stream);
        assert_eq!(lost(&both, end, LossCause::Closed), u64::from(BLOCK / 64) - 5);
        let state = &both.ends[end].durable.streams[&stream];
        assert_eq!((state.position, state.next), (16, 16), "nothing is owed");
        let told = both.ends[end].actions.iter().any(|a| matches!(a, Action::Notice { .. }));
        assert!(!told, "the KMS has closed it itself");
    }
}

#[test]
fn what_is_granted_to_a_stream_that_the_follower_has_closed_is_counted() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    // The leader has not heard of the close when it grants.
    both.block();
    both.close(1, stream);
    both.run(30);
    assert_eq!(both.ends[1].durable.last, both.ends[0].durable.last);
    assert_eq!(lost(&both, 1, LossCause::Closed), u64::from(BLOCK / 64));
}

#[test]
fn what_a_new_epoch_gives_up_is_counted_and_told_of() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    both.block();
    both.run(30);
    // The follower has lost its ledger.
    both.cut();
    both.ends[1] = End::new(settings(Role::Follower), crate::agreement::Durable::default());
    both.event(1, Event::Start);
    replay(&mut both, 1, 0..1);
    both.event(1, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1 });
    both.connect();
    both.run(30);
    assert!(!both.ends[0].durable.streams.contains_key(&stream));
    assert_eq!(lost(&both, 0, LossCause::Epoch), u64::from(BLOCK / 64));
    let told: Vec<KeyStreamId> = both.ends[0]
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Notice { stream, status: Status::InsufficientKey, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    assert_eq!(told, [stream]);
}

#[test]
fn a_ledger_that_is_too_old_still_tells_which_kmss_must_hear_of_the_end() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        let mut settings = settings([Role::Leader, Role::Follower][end]);
        settings.card.cell = both.ends[end].durable.write_number + 1;
        both.restart(end, settings);
        both.run(30);
        let told = both.ends[end].actions.iter().filter(|action| {
            matches!(action, Action::Notice { stream: s, status: Status::PeerNotConnected, .. } if *s == stream)
        });
        assert_eq!(told.count(), 1, "end {end}");
        assert!(!both.ends[end].durable.streams.contains_key(&stream));
        let last =
            both.ends[end].actions.iter().rfind(|a| matches!(a, Action::Stop { .. } | Action::Notice { .. }));
        assert!(matches!(last, Some(Action::Stop { stream: s }) if *s == stream), "{last:?}");
    }
}

#[test]
fn a_stream_whose_kms_is_not_configured_any_more_is_closed_and_keeps_nobody_from_starting() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(qos(64));
        both.block();
        both.run(30);
        let mut settings = settings([Role::Leader, Role::Follower][end]);
        settings.local_kms = vec!["kms://another".into()];
        both.restart(end, settings);
        both.run(30);
        assert!(both.ends[end].says("is not configured at this end any more"));
        assert!(both.ends[end].durable.streams[&stream].closed);
        let asks = |action: &Action| {
            matches!(action, Action::Begin { .. } | Action::Deliver(_) | Action::Notice { .. })
        };
        assert!(!both.ends[end].actions.iter().any(asks), "end {end}: there is nobody to push to");
    }
}

#[test]
fn a_stream_opened_before_the_follower_has_ever_come_lives_through_the_leaders_restart() {
    let leader = End::new(settings(Role::Leader), crate::agreement::Durable::default());
    let follower = End::new(settings(Role::Follower), crate::agreement::Durable::default());
    let mut both = Ends::unconnected(leader, follower);
    for end in 0..2 {
        both.event(end, Event::Start);
        both.event(end, Event::ReplayEnd);
        both.event(end, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 });
    }
    let call = both.open(0, None, qos(64));
    let Some(Answer::Opened { stream, .. }) = both.ends[0].answer(call).cloned() else {
        panic!("{:?}", both.ends[0].answer(call));
    };
    both.restart(0, settings(Role::Leader));
    both.run(30);
    let joined = both.open(1, Some(stream), QosRequest::default());
    both.run(30);
    assert!(matches!(both.ends[1].answer(joined), Some(Answer::Opened { status: Status::Successful, .. })));
    assert!(!both.ends[0].says("the two ledgers differ"));
}

#[test]
fn a_leader_that_has_lost_its_ledger_takes_no_predefined_id_before_the_follower_has_come() {
    // What tells that there was something before: the card's newest block, or, where a loss of power has taken that, its cell.
    for (newest, cell) in [(Some(BlockName::new(1, 0)), 0), (None, 7)] {
        no_predefined_id(newest, cell);
    }
}

fn no_predefined_id(newest: Option<BlockName>, cell: u64) {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    both.block();
    both.run(30);
    both.cut();
    let mut settings = settings(Role::Leader);
    settings.card.newest = newest;
    settings.card.cell = cell;
    both.ends[0] = End::new(settings, crate::agreement::Durable::default());
    both.event(0, Event::Start);
    both.event(0, Event::ReplayEnd);
    both.event(0, Event::Link { state: LinkState::Distilling, secret_key_rate_bps: 1_000_000 });
    let again = both.open(0, Some(stream), qos(64));
    let refused = both.ends[0].answer(again);
    assert!(matches!(refused, Some(Answer::Refused { status: Status::NoQkdConnection, .. })), "{refused:?}");
    let chosen = both.open(0, None, qos(64));
    assert!(matches!(both.ends[0].answer(chosen), Some(Answer::Opened { .. })), "IDs of its own are new");
    both.connect();
    both.run(30);
    // Now the follower's memory protects it: what the leader takes for new is closed there.
    both.open(0, Some(stream), qos(64));
    both.run(30);
    assert!(both.ends[1].durable.streams[&stream].closed);
}

#[test]
fn key_granted_in_the_very_millisecond_to_which_wall_time_has_gone_back_is_as_young_as_it_says() {
    for (back, lost_chunks) in [(0, 0), (1, u64::from(BLOCK / 64))] {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest { ttl: Some(3_600), ..qos(64) });
        both.block();
        both.run(30);
        let durable = both.ends[0].durable.clone();
        assert_eq!(durable.streams[&stream].next, u64::from(BLOCK / 64));
        let latest = durable.log.values().map(|logged| logged.stamp.wall_ms).max().unwrap();
        let mut settings = settings(Role::Leader);
        settings.boot_id += 1;
        let mut core = Core::new(settings, durable);
        let mut out = Output::default();
        core.handle(Now { boot_ms: 5, wall_ms: latest - back }, Event::Start, &mut out);
        let expired = out.actions.iter().map(|action| match action {
            Action::Lost { count, cause: LossCause::Expired, .. } => *count,
            _ => 0,
        });
        assert_eq!(expired.sum::<u64>(), lost_chunks, "{back}");
    }
}

#[test]
fn entries_that_the_follower_has_not_applied_still_take_up_its_room_after_a_restart() {
    let mut both = Ends::in_step(1_000_000);
    let _ = both.stream(qos(64));
    // Both have the blocks and the leader knows it; what it grants of them is not heard.
    both.connected = false;
    let mut reports = Vec::new();
    for sequence in 0..2 {
        let name = BlockName::new(1, sequence);
        for end in 0..2 {
            let time = both.time + 10 * (sequence + 1);
            let said = both.ends[end].handle(time, Event::BlockHeld { name, length: BLOCK, replayed: false });
            if end == 1 {
                reports.extend(said);
            }
        }
    }
    for report in reports {
        let _ = both.ends[0].handle(both.time + 30, Event::PeerMessage(report));
    }
    let before = both.ends[0].core.leading.unapplied;
    assert!(before.bytes >= u64::from(BLOCK) && before.blocks >= 1, "{before:?}");
    let durable = both.ends[0].durable.clone();
    both.ends[0] = End::new(settings(Role::Leader), durable);
    let _ = both.ends[0].handle(both.time + 40, Event::Start);
    assert_eq!(both.ends[0].core.leading.unapplied, before);
}

/// A block was granted, and the leader delivers it though its ledger does not know yet that the follower has applied the grant.
fn delivered_before_it_is_written() -> (Ends, KeyStreamId) {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(qos(64));
    both.run(200);
    both.block();
    for _ in 0..20 {
        if both.ends[0].total(stream) == 0 {
            both.run(1);
        }
    }
    let leader = &both.ends[0];
    assert_eq!(leader.total(stream), u64::from(BLOCK));
    assert!(leader.durable.peer_applied < leader.durable.last, "key waits for no write that says so");
    (both, stream)
}

#[test]
fn what_the_follower_has_applied_is_in_the_leaders_ledger_before_long() {
    let (mut both, _) = delivered_before_it_is_written();
    both.run(100);
    assert_eq!(both.ends[0].durable.peer_applied, both.ends[0].durable.last);
}

#[test]
fn what_the_follower_has_applied_is_in_the_leaders_ledger_with_whatever_is_written_next() {
    let (mut both, stream) = delivered_before_it_is_written();
    // What was granted is settled now: the ledger lets its entry go, and must know that the follower has it.
    both.close(0, stream);
    let leader = &both.ends[0].durable;
    assert!(leader.streams[&stream].closed && leader.peer_applied == leader.last);
}

#[test]
fn a_leader_that_forgets_what_the_follower_has_applied_delivers_the_same_again_and_nothing_new() {
    let (mut both, stream) = delivered_before_it_is_written();
    let before = both.ends[0].take_deliveries();
    both.restart(0, settings(Role::Leader));
    assert_eq!(both.ends[0].total(stream), 0, "the follower has not said yet what it has applied");
    both.run(30);
    assert_eq!(both.ends[0].take_deliveries(), before);
    assert_eq!(both.ends.each_ref().map(|end| end.durable.epoch), [both.ends[0].durable.epoch; 2]);
    assert_eq!(both.ends[1].total(stream), u64::from(BLOCK));
}

#[test]
fn a_follower_that_has_lost_its_ledger_with_the_leaders_memory_makes_a_new_epoch_begin() {
    let (mut both, stream) = delivered_before_it_is_written();
    let epoch = both.ends[0].durable.epoch;
    both.connected = false;
    both.ends[1] = End::new(settings(Role::Follower), Durable::default());
    both.event(1, Event::Start);
    both.event(1, Event::ReplayEnd);
    both.restart(0, settings(Role::Leader));
    both.run(30);
    assert!(both.ends[0].durable.epoch > epoch && both.ends[0].durable.forbidden.contains(&stream));
    assert_eq!(both.ends[1].durable.epoch, both.ends[0].durable.epoch);
    assert_eq!(both.ends.each_ref().map(|end| end.total(stream)), [0; 2]);
}
