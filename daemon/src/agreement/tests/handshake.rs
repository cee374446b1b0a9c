//! Ends that do not belong together, and ledgers that do not tell the same story.

use super::two_ends::{A, BLOCK, Ends, settings};
use crate::agreement::{
    Action, BlockName, Digest, Durable, Event, Hello, Mark, Message, OpenReply, PROTOCOL_VERSION, PeerFault,
    Role,
};
use crate::interface::{KeyStreamId, QosRequest, Status};

fn refused(change: impl Fn(&mut crate::agreement::Settings, &mut crate::agreement::Settings), words: &str) {
    let (mut leader, mut follower) = (settings(Role::Leader), settings(Role::Follower));
    change(&mut leader, &mut follower);
    let both = Ends::with(leader, follower, 1_000);
    for end in &both.ends {
        assert!(end.says(words), "{words} is not among {:?}", end.actions);
        assert!(!end.core.status().in_step);
    }
}

#[test]
fn two_leaders_are_refused_in_words() {
    refused(|_, follower| follower.role = Role::Leader, "both ends are set up to lead");
}

#[test]
fn two_followers_are_refused_in_words() {
    refused(|leader, _| leader.role = Role::Follower, "neither end is set up to lead");
}

#[test]
fn cards_of_different_links_are_refused_in_words() {
    refused(|leader, _| leader.card.peer_serial = 99, "the cards do not belong together");
}

#[test]
fn another_version_is_refused_in_words() {
    let mut both = Ends::in_step(1_000);
    both.cut();
    both.event(1, Event::PeerConnected);
    let hello = r#"{"type":"hello","version":2,"role":"leader","module":"A","epoch":1,"last":0,
        "hash":"0000000000000000000000000000000000000000000000000000000000000000","card":1,"peer_card":2,"kms":[]}"#;
    both.event(1, Event::PeerMessage(Message::decode(hello.as_bytes()).unwrap()));
    assert!(both.ends[1].says("speaks version 2"), "{:?}", both.ends[1].actions);
}

#[test]
fn an_unknown_message_is_refused_in_words() {
    let fault = Message::decode(br#"{"type":"gossip"}"#).unwrap_err();
    assert!(matches!(&fault, PeerFault::Malformed(why) if why.contains("gossip")), "{fault}");
}

#[test]
fn a_fresh_ledger_burns_what_the_card_has_announced_and_says_so() {
    let mut leader = settings(Role::Leader);
    leader.card.newest = Some(BlockName::new(4, 17));
    let both = Ends::with(leader, settings(Role::Follower), 1_000);
    assert!(both.ends[0].says("starts without a ledger"));
    for end in &both.ends {
        assert_eq!(end.durable.mark, Mark::after(BlockName::new(4, 17)));
        assert!(end.core.status().in_step);
    }
}

#[test]
fn a_restart_with_the_ledger_keeps_streams_and_a_stale_ledger_ends_them() {
    for stale in [false, true] {
        let mut both = Ends::in_step(1_000_000);
        let stream = both.stream(QosRequest::default());
        both.block();
        both.run(50);
        let epoch = both.ends[0].durable.epoch;
        both.cut();
        let mut leader = settings(Role::Leader);
        leader.card.newest = Some(BlockName::new(1, 0));
        leader.card.cell = u64::from(stale);
        let durable = both.ends[0].durable.clone();
        both.ends[0] = super::two_ends::End::new(leader, durable);
        both.event(0, Event::Start);
        both.connect();
        both.run(50);
        let same = both.ends[0].durable.epoch == epoch;
        assert_eq!(same, !stale);
        for end in &both.ends {
            assert_eq!(end.durable.streams.contains_key(&stream), !stale);
            assert_eq!(end.durable.forbidden.contains(&stream), stale);
            assert!(end.core.status().in_step);
        }
    }
}

#[test]
fn a_follower_that_has_lost_its_ledger_gets_a_new_epoch() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    let before = both.ends[0].durable.epoch;
    both.cut();
    both.ends[1] = super::two_ends::End::new(settings(Role::Follower), Durable::default());
    both.event(1, Event::Start);
    both.connect();
    both.run(50);
    assert!(both.ends[0].durable.epoch > before);
    assert_eq!(both.ends[0].durable.epoch, both.ends[1].durable.epoch);
    assert!(both.ends[0].durable.forbidden.contains(&stream));
    let again = both.open(0, Some(stream), QosRequest::default());
    assert!(matches!(both.ends[0].answer(again), Some(crate::calls::Answer::Refused { .. })));
}

#[test]
fn an_answer_to_an_open_that_comes_before_the_epoch_opens_nothing_of_the_epoch_before() {
    let mut both = Ends::in_step(1_000_000);
    let stream = KeyStreamId::from_u128(1);
    both.open(0, Some(stream), QosRequest::default());
    both.run(20);
    assert!(both.ends[1].durable.streams.contains_key(&stream));
    both.cut();
    // The leader has lost its ledger; its greeting comes, and of what follows only the answer.
    both.event(1, Event::PeerConnected);
    let hello = Hello {
        version: PROTOCOL_VERSION,
        role: Role::Leader,
        module: "A".into(),
        epoch: both.ends[1].durable.epoch + 1,
        last: 1,
        hash: Digest::NONE,
        card: 1,
        peer_card: 2,
        kms: vec![A.into()],
        heard: false,
    };
    both.event(1, Event::PeerMessage(Message::Hello(hello)));
    let call = both.open(1, Some(stream), QosRequest::default());
    let reply =
        OpenReply { call, stream, status: Status::Successful, detail: String::new(), counter_proposal: None };
    both.event(1, Event::PeerMessage(Message::OpenReply(reply)));
    assert_eq!(both.ends[1].answer(call), None);
    assert!(!both.ends[1].actions.iter().any(|action| matches!(action, Action::Begin { .. })));
    assert!(both.ends[1].durable.streams[&stream].opened.is_none());
}

#[test]
fn a_report_that_was_held_up_until_the_next_connection_does_not_make_the_leader_deaf() {
    let mut both = Ends::in_step(1_000_000);
    let stream = both.stream(QosRequest::default());
    let heard = both.overhear(2_000);
    let report = heard[0].iter().rfind(|message| matches!(message, Message::Report(_))).unwrap().clone();
    both.cut();
    both.connect();
    both.run(5);
    both.event(0, Event::PeerMessage(report));
    both.block();
    both.run(30);
    assert_eq!(both.delivered(0, stream), u64::from(BLOCK));
}

#[test]
fn an_end_that_is_in_step_still_greets_the_other_that_has_not_heard_its_greeting() {
    for end in 0..2 {
        let mut both = Ends::in_step(1_000_000);
        let heard = both.overhear(2_000);
        let of_before = |message: &&Message| matches!(message, Message::Report(_) | Message::Log(_));
        let late = heard[end].iter().rfind(of_before).unwrap().clone();
        both.cut();
        let lost = both.ends[end].handle(both.time, Event::PeerConnected);
        assert!(matches!(lost[..], [Message::Hello(_)]));
        both.connected = true;
        both.event(1 - end, Event::PeerConnected);
        both.run(5);
        both.event(end, Event::PeerMessage(late));
        assert!(both.ends[end].core.status().in_step);
        assert!(!both.ends[1 - end].core.status().in_step);
        both.run(1_100);
        assert!(both.ends[1 - end].core.status().in_step, "end {end}");
        let hellos = both.overhear(5_000).into_iter().flatten().filter(|m| matches!(m, Message::Hello(_)));
        assert_eq!(hellos.count(), 0, "and then they leave it at that");
    }
}

#[test]
fn a_follower_that_tells_another_story_in_the_least_makes_a_new_epoch_begin() {
    type Change = fn(&mut Hello);
    let stories: [(Change, bool); 6] = [
        (|_| {}, false),
        (|hello| hello.hash = Digest::of_epoch(1, 2, 3), true),
        (|hello| hello.epoch -= 1, true),
        (|hello| hello.last += 1, true),
        (|hello| hello.last -= 1, true),
        (|hello| (hello.last, hello.hash) = (hello.last + 1, Digest::of_epoch(1, 2, 3)), true),
    ];
    for (number, (change, begins)) in stories.into_iter().enumerate() {
        let mut both = Ends::in_step(1_000_000);
        both.stream(QosRequest::default());
        both.block();
        both.run(50);
        both.cut();
        let epoch = both.ends[0].durable.epoch;
        let durable = &both.ends[1].durable;
        let mut hello = Hello {
            version: PROTOCOL_VERSION,
            role: Role::Follower,
            module: "B".into(),
            epoch,
            last: durable.last,
            hash: durable.hash,
            card: 2,
            peer_card: 1,
            kms: Vec::new(),
            heard: false,
        };
        change(&mut hello);
        both.event(0, Event::PeerConnected);
        both.event(0, Event::PeerMessage(Message::Hello(hello)));
        assert_eq!(both.ends[0].durable.epoch > epoch, begins, "story {number}");
    }
}

#[test]
fn a_greeting_that_comes_again_is_not_answered_by_a_greeting_for_ever() {
    let mut both = Ends::in_step(8_000_000);
    both.cut();
    both.connect();
    let [_, heard] = both.overhear(20);
    let greeting = heard.into_iter().find(|message| matches!(message, Message::Hello(_)));
    let mut greeting = greeting.expect("the leader greets");
    let Message::Hello(hello) = &mut greeting else { unreachable!() };
    hello.heard = true;
    both.event(1, Event::PeerMessage(greeting.clone()));
    let [heard, _] = both.overhear(2);
    assert!(!heard.iter().any(|message| matches!(message, Message::Hello(_))), "it is known by now");
}
