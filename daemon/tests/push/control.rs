//! What the engine asks of a stream's pushing: discard, notice, stop.

use std::time::Duration;

use qkd_daemon::interface::Status;
use qkd_daemon::push::{Delivery, DeliveryFault, Report, StopHow, Stopped};
use tokio::time::timeout;

use crate::kms::{Reaction, ScriptedKms, answer, silent_port};
use crate::stream::{STREAM, Stream, settings};

const PATIENCE: Duration = Duration::from_secs(60);

async fn hanging() -> ScriptedKms {
    ScriptedKms::start(|_, _| Reaction::Hang).await
}

#[tokio::test]
async fn what_is_discarded_is_never_sent_and_is_counted() {
    let kms =
        ScriptedKms::start(|number, _| Reaction::Answer(answer(if number == 0 { 404 } else { 201 }))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(20);
    stream.until(|report| matches!(report, Report::Suspended { .. })).await;
    // 0 was sent and refused; 1 to 11 were never sent; 20 to 24 are discarded before they come.
    stream.handle().discard(12).unwrap();
    stream.until(|report| *report == Report::Discarded { stream: STREAM, up_to: 12, chunks: 11 }).await;
    stream.handle().discard(25).unwrap();
    stream.until(|report| *report == Report::Discarded { stream: STREAM, up_to: 25, chunks: 8 }).await;
    stream.deliver(10);
    stream.until(|report| *report == Report::Discarded { stream: STREAM, up_to: 25, chunks: 5 }).await;
    stream.handle().resume().unwrap();
    stream.until_accepted(30).await;
    let indices: Vec<u32> = kms.seen().iter().map(|request| request.index).collect();
    assert_eq!(indices, [0, 25, 26, 27, 28, 29]);
    assert_eq!(stream.vault.used(), 0);
}

#[tokio::test]
async fn discarded_key_is_wiped_though_the_kms_hangs() {
    let kms = hanging().await;
    let mut stream = Stream::to(&kms);
    stream.deliver(1000);
    Stream::wait_for("the first chunk", || !kms.seen().is_empty()).await;
    stream.handle().discard(1000).unwrap();
    let vault = stream.vault.clone();
    Stream::wait_for("an empty vault", || vault.used() == 0).await;
}

#[tokio::test]
async fn a_notice_travels_alone_and_carries_no_key() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(200);
    stream.handle().notice(Status::InsufficientKey, (1 << 32) + 200).unwrap();
    stream.deliver(200);
    stream.until_accepted(400).await;
    let seen = kms.seen();
    stream.check(&seen);
    let notices: Vec<_> = seen.iter().enumerate().filter(|(_, request)| request.status != 0).collect();
    let [(at, notice)] = notices[..] else { panic!("{} notices", notices.len()) };
    assert_eq!((notice.status, notice.index, &notice.key[..]), (2, 200, &[][..]));
    assert_eq!(notice.waiting, 1, "chunks were on their way with the notice");
    assert!(seen.get(at + 1).is_none_or(|next| next.waiting == 1), "a chunk followed before the answer");
}

#[tokio::test]
async fn a_notice_ordered_behind_the_times_names_no_index_that_was_accepted() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(20);
    stream.until_accepted(20).await;
    stream.handle().notice(Status::PeerNotConnected, 3).unwrap();
    Stream::wait_for("the notice", || kms.seen().len() == 21).await;
    let notice = kms.seen().pop().unwrap();
    assert_eq!((notice.status, notice.index), (1, 20));
}

#[tokio::test]
async fn a_notice_that_is_not_taken_holds_no_key_back() {
    for reaction in [Reaction::Answer(answer(404)), Reaction::Answer(answer(503)), Reaction::Close] {
        let kms = ScriptedKms::start(move |_, seen| {
            if seen.status == 0 { Reaction::Answer(answer(201)) } else { reaction.clone() }
        })
        .await;
        let mut stream = Stream::to(&kms);
        stream.handle().notice(Status::NoQkdConnection, 0).unwrap();
        stream.deliver(10);
        stream.until_accepted(10).await;
        let notices = kms.seen().iter().filter(|request| request.status != 0).count();
        assert!((1..=3).contains(&notices), "{notices} attempts");
        assert_eq!(stream.handle().counters().notices_lost, 1);
    }
}

#[tokio::test]
async fn a_stop_settles_what_is_in_flight_and_sends_nothing_more() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.deliver(20_000);
    stream.until(|report| matches!(report, Report::Accepted { up_to, .. } if *up_to > 300)).await;
    let stop = stream.handle.take().unwrap().stop(StopHow::AfterInFlight);
    let stopped = timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!(stopped.sent_up_to, stopped.accepted_up_to, "all of it was settled");
    assert_eq!(stream.vault.used(), 0, "what was not sent is wiped");
    let positions = stream.check(&kms.seen());
    assert_eq!(positions, (0..stopped.sent_up_to).collect::<Vec<_>>());
    let report = stream.until(|report| matches!(report, Report::Stopped(_))).await;
    assert_eq!(report, Report::Stopped(stopped));
    assert!(stream.reports.recv().await.is_none(), "a report after the last one");
    assert_eq!(kms.seen().len(), positions.len(), "something came after the stop");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_kms_that_hangs() {
    let kms = hanging().await;
    let mut stream = Stream::to(&kms);
    stream.deliver(100);
    Stream::wait_for("the first chunk", || !kms.seen().is_empty()).await;
    let stop = stream.handle.take().unwrap().stop(StopHow::Now);
    let stopped = timeout(PATIENCE / 2, stop).await.unwrap().unwrap();
    assert_eq!(stopped, Stopped { stream: STREAM, sent_up_to: 1, accepted_up_to: 0 });
    assert_eq!(stream.vault.used(), 0);

    let push = qkd_daemon::config::Push { answer_deadline_ms: 50, ..settings() };
    let mut stream = Stream::start("127.0.0.1", kms.port, 32, 0, push);
    stream.deliver(100);
    let stop = stream.handle.take().unwrap().stop(StopHow::AfterInFlight);
    timeout(PATIENCE / 2, stop).await.unwrap().unwrap();
    assert_eq!(stream.vault.used(), 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_notice_to_a_kms_that_is_gone() {
    let (_nobody, port) = silent_port();
    let push = qkd_daemon::config::Push {
        answer_deadline_ms: 600_000,
        backoff_first_ms: 600_000,
        backoff_greatest_ms: 600_000,
        ..settings()
    };
    let mut stream = Stream::start("127.0.0.1", port, 32, 0, push);
    stream.handle().notice(Status::PeerNotConnected, 0).unwrap();
    let counters = || stream.handle.as_ref().unwrap().counters();
    Stream::wait_for("the first attempt", || counters().connections_failed > 0).await;
    let stop = stream.handle.take().unwrap().stop(StopHow::AfterInFlight);
    timeout(PATIENCE / 2, stop).await.expect("a close would have been late").unwrap();
}

#[tokio::test]
async fn a_stop_cuts_the_connection_instead_of_sending_what_waits() {
    // The KMS takes the connection and reads nothing, so that the request waits in the system's buffers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = Stream::start("127.0.0.1", port, 32, 0, settings());
    stream.deliver(1);
    let (mut taken, _) = listener.accept().await.unwrap();
    assert_eq!(taken.peek(&mut [0]).await.unwrap(), 1);
    let stop = stream.handle.take().unwrap().stop(StopHow::Now);
    timeout(PATIENCE, stop).await.unwrap().unwrap();
    let mut octets = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut taken, &mut octets).await;
    let error = end.expect_err("the connection ended in peace");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn waiting_notices_are_still_sent_when_a_stream_ends() {
    let kms = ScriptedKms::start(|_, _| Reaction::Answer(answer(201))).await;
    let mut stream = Stream::to(&kms);
    stream.handle().notice(Status::PeerNotConnected, 5).unwrap();
    let stop = stream.handle.take().unwrap().stop(StopHow::AfterInFlight);
    timeout(PATIENCE, stop).await.unwrap().unwrap();
    let statuses: Vec<u64> = kms.seen().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [1]);
}

#[tokio::test]
async fn a_dropped_handle_stops_and_wipes() {
    let kms = hanging().await;
    let mut stream = Stream::to(&kms);
    stream.deliver(100);
    Stream::wait_for("the first chunk", || !kms.seen().is_empty()).await;
    stream.handle = None;
    stream.until(|report| matches!(report, Report::Stopped(_))).await;
    assert_eq!(stream.vault.used(), 0);
}

#[tokio::test]
async fn an_engine_that_reads_no_reports_holds_nothing_up() {
    let kms =
        ScriptedKms::start(|number, _| Reaction::Answer(answer(if number % 50 == 49 { 503 } else { 201 })))
            .await;
    let mut stream = Stream::to(&kms);
    // Every delivery is settled before the next, so that there would be far more reports than the queue holds.
    for round in 1..=300 {
        stream.deliver(1);
        let handle = stream.handle.as_ref().unwrap();
        Stream::wait_for("the chunk", || handle.counters().chunks_accepted == round).await;
    }
    stream.until_accepted(300).await;
    stream.check(&kms.seen());
}

#[tokio::test]
async fn a_delivery_that_is_not_right_comes_back_whole() {
    let kms = hanging().await;
    let mut stream = Stream::to(&kms);
    stream.deliver(5);
    let behind = stream.delivery(4, 1);
    let refused = stream.handle().deliver(behind).unwrap_err();
    assert_eq!(refused.why, DeliveryFault::Behind { first: 4, next: 5 });
    assert_eq!(refused.delivery.key.iter().map(|extent| extent.length()).sum::<usize>(), 32);
    let key = stream.delivery(5, 2).key;
    let refused = stream.handle().deliver(Delivery { first: 5, count: 3, key }).unwrap_err();
    assert_eq!(refused.why, DeliveryFault::WrongLength { octets: 64, needed: 96 });
    let nothing = Delivery { first: 5, count: 0, key: Vec::new() };
    let refused = stream.handle().deliver(nothing).unwrap_err();
    assert_eq!(refused.why, DeliveryFault::WrongLength { octets: 0, needed: 0 });
    let key = stream.delivery(5, 1).key;
    let refused = stream.handle().deliver(Delivery { first: u64::MAX - 1, count: 1, key }).unwrap_err();
    assert_eq!(refused.why, DeliveryFault::TooFar { first: u64::MAX - 1 });
    assert_eq!(stream.handle().next_position(), 5);
}
