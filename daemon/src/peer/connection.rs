//! One connection: frames in, frames out, signs of life, deadlines.

use std::io;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{FRAME_BYTES_MAX, PeerEvent, Times};

/// A transport with frames on it.
pub(super) type Frames<T> = Framed<T, LengthDelimitedCodec>;

/// Puts frames on `transport`.
pub(super) fn framed<T: AsyncRead + AsyncWrite>(transport: T) -> Frames<T> {
    LengthDelimitedCodec::builder()
        .length_field_length(4)
        .max_frame_length(FRAME_BYTES_MAX)
        .new_framed(transport)
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The other end closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The other end said nothing, not even a sign of life.
    #[error("the peer was silent for {0} ms")]
    Silent(u128),
    /// A write did not go out in time.
    #[error("the peer took nothing for {0} ms")]
    Stuck(u128),
    /// The connection or its framing broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The key agreement asked for it.
    #[error("ended by this end: {0}")]
    Dropped(String),
    /// A newer connection has taken its place.
    #[error("a newer connection of the peer has taken its place")]
    Replaced,
    /// The daemon is stopping.
    #[error("this daemon is stopping")]
    Stopping,
}

/// What the engine tells the link.
#[derive(Debug)]
pub(super) enum Order {
    /// Send this frame.
    Send(Vec<u8>),
    /// End the present connection, with a reason for the log.
    Drop(String),
}

/// Waits for the first frame that is not a sign of life.
pub(super) async fn first_frame<T>(frames: &mut Frames<T>, times: &Times) -> Result<BytesMut, Ended>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let patience = times.patience;
    let wait = async {
        loop {
            match frames.next().await {
                Some(frame) => match frame? {
                    frame if frame.is_empty() => {}
                    frame => return Ok(frame),
                },
                None => return Err(Ended::Closed),
            }
        }
    };
    timeout(patience, wait).await.unwrap_or(Err(Ended::Silent(patience.as_millis())))
}

/// Carries frames until the connection ends. `orders` come from the engine, events go to it.
pub(super) async fn carry<T>(
    frames: Frames<T>,
    times: &Times,
    orders: &mut mpsc::Receiver<Order>,
    events: &mpsc::Sender<PeerEvent>,
) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = frames.split();
    let incoming = receive(&mut stream, times, events);
    let outgoing = transmit(&mut sink, times, orders);
    tokio::select! {
        ended = incoming => ended,
        ended = outgoing => ended,
    }
}

async fn receive<S>(stream: &mut S, times: &Times, events: &mpsc::Sender<PeerEvent>) -> Ended
where
    S: Stream<Item = io::Result<BytesMut>> + Unpin,
{
    loop {
        match timeout(times.silence, stream.next()).await {
            Err(_) => return Ended::Silent(times.silence.as_millis()),
            Ok(None) => return Ended::Closed,
            Ok(Some(Err(e))) => return e.into(),
            Ok(Some(Ok(frame))) if frame.is_empty() => {}
            Ok(Some(Ok(frame))) => {
                if events.send(PeerEvent::Frame(frame.to_vec())).await.is_err() {
                    return Ended::Stopping;
                }
            }
        }
    }
}

async fn transmit<S>(sink: &mut S, times: &Times, orders: &mut mpsc::Receiver<Order>) -> Ended
where
    S: Sink<Bytes, Error = io::Error> + Unpin,
{
    let mut next_sign = Instant::now() + times.keep_alive;
    loop {
        let (frame, end) = tokio::select! {
            order = orders.recv() => match order {
                None => return Ended::Stopping,
                Some(Order::Drop(reason)) => (None, Some(reason)),
                Some(Order::Send(frame)) => (Some(Bytes::from(frame)), None),
            },
            () = sleep_until(next_sign) => (Some(Bytes::new()), None),
        };
        // Queued frames share one flush, so that a burst costs one write; a drop waits for what was sent before it.
        let write = async {
            let mut end = end;
            if let Some(frame) = frame {
                sink.feed(frame).await?;
            }
            while end.is_none() {
                match orders.try_recv() {
                    Ok(Order::Send(frame)) => sink.feed(Bytes::from(frame)).await?,
                    Ok(Order::Drop(reason)) => end = Some(reason),
                    Err(_) => break,
                }
            }
            sink.flush().await?;
            Ok::<_, io::Error>(end)
        };
        match timeout(times.patience, write).await {
            Err(_) => return Ended::Stuck(times.patience.as_millis()),
            Ok(Err(e)) => return e.into(),
            Ok(Ok(Some(reason))) => return Ended::Dropped(reason),
            Ok(Ok(None)) => next_sign = Instant::now() + times.keep_alive,
        }
    }
}
