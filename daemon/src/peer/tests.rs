//! What is feared of the peer link: silence, floods, half-open connections, frames beyond the limit.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::{Ended, Order, carry, framed};
use super::{Endpoint, FRAME_BYTES_MAX, Link, PeerEvent, Times};

const DEADLINE: Duration = Duration::from_secs(20);

/// Patient enough for a loaded machine; the tests about silence run in virtual time.
fn times() -> Times {
    Times {
        keep_alive: Duration::from_millis(20),
        silence: DEADLINE,
        patience: DEADLINE,
        back_off: (Duration::from_millis(5), Duration::from_millis(20)),
    }
}

async fn listening() -> (Link, SocketAddr, mpsc::Receiver<PeerEvent>) {
    let (sender, events) = mpsc::channel(64);
    let link =
        Link::start(Endpoint::Listen("127.0.0.1:0".parse().unwrap()), times(), None, sender).await.unwrap();
    let address = link.local_address().unwrap();
    (link, address, events)
}

async fn next(events: &mut mpsc::Receiver<PeerEvent>) -> PeerEvent {
    timeout(DEADLINE, events.recv()).await.expect("an event in time").expect("a living link")
}

async fn expect_frame(events: &mut mpsc::Receiver<PeerEvent>, wanted: &[u8]) {
    match next(events).await {
        PeerEvent::Frame(frame) => assert_eq!(frame, wanted),
        other => panic!("expected a frame, got {other:?}"),
    }
}

async fn expect_connected(events: &mut mpsc::Receiver<PeerEvent>) {
    assert!(matches!(next(events).await, PeerEvent::Connected));
}

async fn expect_disconnected(events: &mut mpsc::Receiver<PeerEvent>, word: &str) {
    match next(events).await {
        PeerEvent::Disconnected(reason) => assert!(reason.contains(word), "{reason}"),
        other => panic!("expected the end, got {other:?}"),
    }
}

async fn write_frame(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(frame).await.unwrap();
}

#[tokio::test]
async fn two_links_speak_also_where_one_has_no_way_out_but_a_unix_socket() {
    let (leader, address, mut leader_events) = listening().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("peer.sock");
    let proxy = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut inside, _) = proxy.accept().await.unwrap();
        let mut outside = TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
    });
    let (sender, mut events) = mpsc::channel(64);
    let follower = Link::start(Endpoint::Through(socket), times(), None, sender).await.unwrap();
    expect_connected(&mut events).await;
    assert!(follower.send(b"hello".to_vec()));
    expect_connected(&mut leader_events).await;
    expect_frame(&mut leader_events, b"hello").await;
    assert!(leader.send(b"answer".to_vec()));
    expect_frame(&mut events, b"answer").await;
}

#[tokio::test]
async fn a_socket_that_was_passed_is_listened_on() {
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = passed.local_addr().unwrap();
    let (sender, mut events) = mpsc::channel(64);
    let link = Link::start(Endpoint::Passed(passed), times(), None, sender).await.unwrap();
    assert_eq!(link.local_address(), Some(address));
    let mut stream = TcpStream::connect(address).await.unwrap();
    write_frame(&mut stream, b"hello").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"hello").await;
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_at_both_ends() {
    let (leader, address, mut at_leader) = listening().await;
    let (sender, mut at_follower) = mpsc::channel(64);
    let follower = Link::start(Endpoint::Connect(address.to_string()), times(), None, sender).await.unwrap();
    expect_connected(&mut at_follower).await;
    assert!(follower.send(b"one".to_vec()));
    expect_connected(&mut at_leader).await;
    expect_frame(&mut at_leader, b"one").await;
    let large = vec![7; FRAME_BYTES_MAX];
    assert!(leader.send(large.clone()));
    assert!(leader.send(b"three".to_vec()));
    expect_frame(&mut at_follower, &large).await;
    expect_frame(&mut at_follower, b"three").await;
}

#[tokio::test]
async fn a_silent_connection_displaces_nobody_and_a_new_one_that_speaks_replaces_the_old() {
    let (_link, address, mut events) = listening().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut old = TcpStream::connect(address).await.unwrap();
    write_frame(&mut old, b"old").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"old").await;
    let mut new = TcpStream::connect(address).await.unwrap();
    write_frame(&mut new, b"new").await;
    expect_disconnected(&mut events, "newer").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"new").await;
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_peer_out() {
    let (_link, address, mut events) = listening().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut peer = TcpStream::connect(address).await.unwrap();
    write_frame(&mut peer, b"hello").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"hello").await;
    // Nor does one that comes while as many as may are waiting let them pile up.
    let mut octet = [0];
    assert_eq!(timeout(DEADLINE, silent[0].read(&mut octet)).await.unwrap().unwrap(), 0);
}

/// One end of a connection in virtual time: its orders, its events and how it ends.
fn end_of_connection(
    transport: DuplexStream,
    times: Times,
) -> (mpsc::Sender<Order>, mpsc::Receiver<PeerEvent>, JoinHandle<Ended>) {
    let (orders, mut receiver) = mpsc::channel(4);
    let (sender, events) = mpsc::channel(4);
    let task = tokio::spawn(async move { carry(framed(transport), &times, &mut receiver, &sender).await });
    (orders, events, task)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_taken_for_dead() {
    let (here, there) = duplex(1024);
    let (_orders, _events, task) = end_of_connection(here, Times::default());
    let begin = Instant::now();
    assert!(matches!(task.await.unwrap(), Ended::Silent(_)));
    assert_eq!(begin.elapsed(), Times::default().silence);
    drop(there);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_keep_an_idle_link_up_for_a_day_and_are_no_frames() {
    let (here, there) = duplex(1024);
    let (orders, mut events, task) = end_of_connection(here, Times::default());
    let (_orders, mut events_there, task_there) = end_of_connection(there, Times::default());
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert!(!task.is_finished() && !task_there.is_finished());
    assert!(events.try_recv().is_err() && events_there.try_recv().is_err());
    orders.send(Order::Send(b"still here".to_vec())).await.unwrap();
    expect_frame(&mut events_there, b"still here").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_does_not_hold_a_write_for_ever() {
    let (here, _there) = duplex(16);
    let (orders, _events, task) = end_of_connection(here, Times { silence: DEADLINE, ..Times::default() });
    orders.send(Order::Send(vec![1; 4096])).await.unwrap();
    assert!(matches!(task.await.unwrap(), Ended::Stuck(_)));
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_without_being_read() {
    let (_link, address, mut events) = listening().await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    write_frame(&mut peer, b"hello").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"hello").await;
    peer.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    expect_disconnected(&mut events, "broke").await;
}

#[tokio::test]
async fn a_cut_link_comes_back_by_itself_and_forgets_what_was_queued() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, mut events) = mpsc::channel(64);
    let endpoint = Endpoint::Connect(listener.local_addr().unwrap().to_string());
    let link = Link::start(endpoint, times(), None, sender).await.unwrap();
    let (first, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    expect_connected(&mut events).await;
    drop(first);
    expect_disconnected(&mut events, "").await;
    let (mut second, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    expect_connected(&mut events).await;
    assert!(link.send(b"again".to_vec()));
    let mut seen = Vec::new();
    while !seen.ends_with(b"again") {
        let mut octet = [0];
        timeout(DEADLINE, second.read_exact(&mut octet)).await.unwrap().unwrap();
        seen.push(octet[0]);
    }
}

#[tokio::test]
async fn an_order_to_disconnect_sends_what_was_said_before_it() {
    let (link, address, mut events) = listening().await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    write_frame(&mut peer, b"hello").await;
    expect_connected(&mut events).await;
    expect_frame(&mut events, b"hello").await;
    assert!(link.send(b"refused: why".to_vec()));
    link.disconnect("told why".into());
    expect_disconnected(&mut events, "told why").await;
    let mut all = Vec::new();
    timeout(DEADLINE, peer.read_to_end(&mut all)).await.unwrap().unwrap();
    assert!(all.ends_with(b"refused: why"));
}
