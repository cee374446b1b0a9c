//! When the follower reports to its leader, and how much it says at once.

use super::two_ends::{BLOCK, Ends, settings};
use crate::agreement::check::LINES_MAX;
use crate::agreement::entry::{Decision, Entry};
use crate::agreement::message::{Log, Report};
use crate::agreement::{Event, Message, Role};
use crate::interface::{KeyStreamId, QosRequest};

fn reports(heard: &[Message]) -> Vec<&Report> {
    let reports = heard.iter().filter_map(|message| match message {
        Message::Report(report) => Some(report),
        _ => None,
    });
    reports.collect()
}

#[test]
fn more_streams_than_fit_into_a_report_are_told_in_several() {
    let [mut leader, mut follower] = [Role::Leader, Role::Follower].map(settings);
    leader.most_streams_per_kms = 2 * LINES_MAX;
    follower.most_streams_per_kms = 2 * LINES_MAX;
    let mut both = Ends::with(leader, follower, 1_000_000);
    let all: Vec<KeyStreamId> = (0..LINES_MAX as u128 + 1).map(KeyStreamId::from_u128).collect();
    for chunk in all.chunks(60) {
        for stream in chunk {
            for end in 0..2 {
                both.event(end, Event::Tick);
                both.open(end, Some(*stream), QosRequest::default());
                both.run(2);
            }
        }
        both.ends[0].forget_old();
        both.ends[1].forget_old();
    }
    both.run(50);
    let open = both.ends[1].core.streams().count();
    both.ends[1].core.following.lines.extend(all);
    both.connected = false;
    let said = both.ends[1].handle(both.time + 1_000, Event::Tick);
    let lines: Vec<usize> = reports(&said).iter().map(|report| report.streams.len()).collect();
    assert_eq!(open, LINES_MAX + 1);
    assert_eq!(lines, [LINES_MAX, 1]);
}

#[test]
fn what_was_applied_is_reported_soon_and_nothing_new_is_not() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    both.run(700);
    both.connected = false;
    let durable = both.ends[1].durable.clone();
    let log = |entries| {
        let log = Log { epoch: durable.epoch, heard: 0, entries, streams: Vec::new() };
        Event::PeerMessage(Message::Log(log))
    };
    let time = both.time;
    let said = both.ends[1].handle(time, log(Vec::new()));
    assert_eq!(reports(&said).len(), 0, "nothing has come");
    let entry = Entry::chained(&durable.hash, durable.last + 1, Decision::Skip { stream, to: 1 });
    let said = both.ends[1].handle(time, log(vec![entry]));
    assert_eq!(reports(&said).len(), 1, "the leader waits for it");
}

#[test]
fn progress_is_reported_at_once_where_half_is_accepted_and_otherwise_in_company() {
    // 16 chunks are granted; of the rest that is not accepted, news must be half.
    for (accepted, soon) in [(4, false), (5, true), (16, true)] {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest { key_chunk_size: Some(64), ..QosRequest::default() });
        both.block();
        both.run(30);
        assert_eq!(both.delivered(1, stream), u64::from(BLOCK));
        both.run(20);
        both.connected = false;
        let said = both.ends[1].handle(both.time, Event::Accepted { stream, up_to: accepted });
        assert_eq!(!reports(&said).is_empty(), soon, "{accepted} of 16");
    }
}
