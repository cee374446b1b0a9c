//! The task of one key stream: gives the [`Sender`] its socket, its clock and its orders.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::PollSender;

use super::answer::LastHead;
use super::buffer::{Buffers, Pool};
use super::connect::{Transport, connect};
use super::connection::{Connection, Link, poll_read, understand};
use super::counters::add;
use super::handle::{StopHow, StopOrder};
use super::reins::{Order, Reins};
use super::report::{Failure, Report, Stopped};
use super::sender::Sender;
use super::{Pusher, StreamPush, excerpt};
use crate::config;
use crate::timing;
use crate::tls::Wire;
use crate::vault::VaultError;

/// Longest wait for room for the last report.
const LAST_REPORT_PATIENCE: Duration = Duration::from_secs(5);
/// When the timer rings while there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(3600);

enum Event {
    Ordered(Order),
    Connected(Result<Wire, Failure>),
    Read(Result<usize, Failure>),
    /// All that was to be written is, and there may be more.
    Written,
    Unwritable(Failure),
    ReportsHaveRoom,
    Timer,
}

struct Ending {
    deadline: Instant,
    confirm: oneshot::Sender<Stopped>,
}

/// Pushes one key stream until it is told to stop.
pub(super) struct Task {
    what: StreamPush,
    settings: config::Push,
    transport: Transport,
    sender: Sender,
    link: Link,
    pool: Arc<Pool>,
    /// While something is in them, and until the KMS has answered if the pool can spare them.
    buffers: Option<Buffers>,
    /// The send buffer was too small for all that could be sent.
    more: bool,
    last: LastHead,
    reins: Reins,
    ending: Option<Ending>,
    reports: PollSender<Report>,
    reports_full: bool,
    timer: Pin<Box<Sleep>>,
    /// The runtime knows when to ring.
    timer_set: bool,
    /// When the task was woken.
    now: Instant,
    asleep: bool,
}

impl Task {
    pub(super) fn new(pusher: &Pusher, what: StreamPush, reins: Reins) -> Result<Self, VaultError> {
        let now = Instant::now();
        let sender = Sender::new(&what, &pusher.settings, std::sync::Arc::clone(&reins.shared), now);
        // That there are any is known before the stream is.
        pusher.pool.give_back(pusher.pool.take(sender.longest_request())?);
        Ok(Self {
            what,
            settings: pusher.settings.clone(),
            transport: pusher.transport.clone(),
            sender,
            link: Link::None,
            pool: Arc::clone(&pusher.pool),
            buffers: None,
            more: false,
            last: pusher.pool.head()?,
            reins,
            ending: None,
            reports: PollSender::new(pusher.reports.clone()),
            reports_full: false,
            timer: Box::pin(sleep_until(now + IDLE)),
            timer_set: false,
            now,
            asleep: true,
        })
    }

    pub(super) async fn run(mut self) {
        loop {
            let now = self.now;
            if self.sender.answer_due().is_some_and(|due| due <= now) {
                add(&self.reins.shared.counters.answer_deadlines, 1);
                self.lose(Failure::AnswerDeadline, now);
            }
            if self.ending.as_ref().is_some_and(|ending| self.sender.has_ended() || ending.deadline <= now) {
                break;
            }
            self.send_what_can_be_sent(now);
            self.sender.account(now);
            self.report(now);
            self.arm_timer(now);
            match poll_fn(|cx| self.poll(cx)).await {
                Event::Ordered(Order::Stop(None)) => break,
                Event::Ordered(Order::Stop(Some(StopOrder { how, confirm }))) => {
                    let patience = match how {
                        StopHow::Now => Duration::ZERO,
                        StopHow::AfterInFlight => {
                            Duration::from_millis(u64::from(self.settings.answer_deadline_ms))
                        }
                    };
                    self.ending = Some(Ending { deadline: self.now + patience, confirm });
                    self.sender.end(self.now);
                }
                Event::Connected(result) => self.connected(result, self.now),
                Event::Read(result) => self.read(result, self.now),
                Event::Unwritable(why) => self.unwritable(why),
                // What can be done now is done at the top of the loop.
                Event::Ordered(Order::Commanded) | Event::Written | Event::ReportsHaveRoom | Event::Timer => {
                }
            }
        }
        self.finish().await;
    }

    /// Ends everything, then confirms: in this order.
    async fn finish(mut self) {
        self.reins.let_go();
        let now = Instant::now();
        self.lose(Failure::Closed, now);
        self.sender.account(now);
        let stopped = self.sender.stopped();
        self.report(now);
        let Self { sender, last, reins, ending, mut reports, link, .. } = self;
        drop((link, sender, last, reins));
        if let Some(ending) = ending {
            // Nobody need wait for it.
            let _ = ending.confirm.send(stopped);
        }
        // An engine that takes no reports for so long has other troubles.
        let _ = timeout(LAST_REPORT_PATIENCE, async {
            if poll_fn(|cx| reports.poll_reserve(cx)).await.is_ok() {
                let _ = reports.send_item(Report::Stopped(stopped));
            }
        })
        .await;
    }

    fn send_what_can_be_sent(&mut self, now: Instant) {
        match &mut self.link {
            Link::None => {
                if self.sender.has_work(now) {
                    let deadline = Duration::from_millis(u64::from(self.settings.connect_deadline_ms));
                    let (endpoint, transport) = (self.what.endpoint.clone(), self.transport.clone());
                    self.link = Link::Connecting(Box::pin(connect(endpoint, transport, deadline)));
                }
            }
            Link::Connecting(_) => {}
            Link::Open(connection) => {
                let nothing_to_do = match &self.buffers {
                    Some(buffers) => !buffers.send.is_empty(),
                    None => !self.sender.has_work(now),
                };
                if connection.unwritable.is_some() || nothing_to_do {
                    return;
                }
                match self.buffers() {
                    Ok(mut buffers) => {
                        self.more = self.sender.fill(&mut buffers.send, now);
                        self.buffers = Some(buffers);
                    }
                    // With requests on their way, the connection is lost where the answers cannot be read either.
                    Err(why) if !self.sender.is_in_flight() => {
                        self.sender.unconnected(Failure::NoMemory(why), now);
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// The buffers that it has, or others. They go back into their place, or to the pool when nothing is in them.
    fn buffers(&mut self) -> Result<Buffers, VaultError> {
        let has = self.buffers.take();
        has.map_or_else(|| self.pool.take(self.sender.longest_request()), Ok)
    }

    /// A stream with requests on their way will soon have something in its buffers again, and may keep them if few do.
    fn give_back_buffers(&mut self) {
        if (!self.sender.is_in_flight() || self.pool.is_in_demand())
            && let Some(buffers) = self.buffers.take_if(|buffers| buffers.are_empty())
        {
            self.pool.give_back(buffers);
        }
    }

    fn report(&mut self, now: Instant) {
        while !self.reports_full && self.sender.outbox.due(now).is_some_and(|due| due <= now) {
            let Some(Ok(place)) = self.reports.get_ref().map(|reports| reports.try_reserve()) else {
                self.reports_full = true;
                return;
            };
            match self.sender.outbox.next() {
                Some(report) => place.send(report),
                None => return,
            }
        }
    }

    /// The timer is set earlier at once, and later only when it rings: in the steady state it is left alone.
    fn arm_timer(&mut self, now: Instant) {
        let ending = self.ending.as_ref().map(|ending| ending.deadline);
        // For room in the queue of reports the queue itself wakes the task.
        let report = self.sender.outbox.due(now).filter(|_| !self.reports_full);
        let due = [self.sender.due(now), report, ending].into_iter().flatten().min().unwrap_or(now + IDLE);
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
            self.timer_set = false;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if std::mem::take(&mut self.asleep) {
            self.now = Instant::now();
            self.reins.woken();
        }
        let event = self.poll_all(cx);
        self.asleep = event.is_pending();
        if self.asleep {
            self.give_back_buffers();
        }
        event
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let sender = &mut self.sender;
        let ordered = self.reins.poll(cx, |command| sender.command(command));
        if let Poll::Ready(stop @ Order::Stop(_)) = ordered {
            return Poll::Ready(Event::Ordered(stop));
        }
        if let Poll::Ready(event) = self.poll_link(cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(commanded) = ordered {
            return Poll::Ready(Event::Ordered(commanded));
        }
        if self.reports_full
            && let Poll::Ready(result) = self.reports.poll_reserve(cx)
        {
            // Without an engine reports go nowhere; the end of its handle ends the task.
            self.reports_full = result.is_err();
            if let (Ok(()), Some(report)) = (result, self.sender.outbox.next()) {
                let _ = self.reports.send_item(report);
            } else {
                self.reports.abort_send();
            }
            if !self.reports_full {
                return Poll::Ready(Event::ReportsHaveRoom);
            }
        }
        if self.timer_set && self.now < self.timer.deadline() {
            return Poll::Pending;
        }
        let rung = self.timer.as_mut().poll(cx);
        self.timer_set = rung.is_pending();
        rung.map(|()| Event::Timer)
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let connection = match &mut self.link {
            Link::None => return Poll::Pending,
            Link::Connecting(connecting) => return connecting.as_mut().poll(cx).map(Event::Connected),
            Link::Open(connection) => connection,
        };
        let mut written = true;
        if let Some(Buffers { send, .. }) = &mut self.buffers {
            while !send.is_empty() {
                let Poll::Ready(result) = Pin::new(&mut connection.stream).poll_write(cx, send.unwritten())
                else {
                    break;
                };
                match result {
                    Ok(0) => return Poll::Ready(Event::Unwritable(Failure::Closed)),
                    Ok(octets) => {
                        add(&self.reins.shared.counters.octets_sent, octets as u64);
                        send.wrote(octets);
                        connection.unflushed = true;
                    }
                    Err(error) => return Poll::Ready(Event::Unwritable(Failure::Broken(error.to_string()))),
                }
                if send.is_empty() && std::mem::take(&mut self.more) {
                    return Poll::Ready(Event::Written);
                }
            }
            written = send.is_empty();
        }
        if connection.unflushed
            && let Poll::Ready(result) = Pin::new(&mut connection.stream).poll_flush(cx)
        {
            connection.unflushed = false;
            if let Err(error) = result {
                return Poll::Ready(Event::Unwritable(Failure::Broken(error.to_string())));
            }
            if written {
                let (stream, up_to) = (self.what.stream, self.sender.sent_up_to());
                timing::tell(timing::now(), format_args!("stream {stream} below {up_to} written"));
            }
        }
        if self.buffers.is_none() {
            match self.pool.take(self.sender.longest_request()) {
                Ok(buffers) => self.buffers = Some(buffers),
                Err(why) => return Poll::Ready(Event::Read(Err(Failure::NoMemory(why)))),
            }
        }
        let Some(Buffers { receive, .. }) = &mut self.buffers else { return Poll::Pending };
        let read = poll_read(&mut connection.stream, receive, cx);
        read.map(|result| Event::Read(result.map_err(|error| Failure::Broken(error.to_string()))))
    }

    fn connected(&mut self, result: Result<Wire, Failure>, now: Instant) {
        match result {
            Ok(stream) => {
                add(&self.reins.shared.counters.connections, 1);
                let excerpts = excerpt::allowed(self.what.chunk_size);
                self.link = Link::Open(Connection::new(stream, excerpts));
            }
            Err(why) => {
                add(&self.reins.shared.counters.connections_failed, 1);
                self.link = Link::None;
                self.sender.unconnected(why, now);
            }
        }
    }

    /// Answers may still be there to read.
    fn unwritable(&mut self, why: Failure) {
        if let Some(buffers) = &mut self.buffers {
            buffers.send.wipe();
        }
        if let Link::Open(connection) = &mut self.link {
            connection.unwritable = Some(why);
        }
    }

    fn read(&mut self, result: Result<usize, Failure>, now: Instant) {
        let Link::Open(connection) = &mut self.link else { return };
        let why = match (result, &mut self.buffers) {
            (Ok(octets @ 1..), Some(Buffers { receive, .. })) => {
                receive.fill(octets);
                match understand(connection, receive, &mut self.last, &mut self.sender, now) {
                    Ok(false) => return,
                    Ok(true) => Failure::Closed,
                    Err(error) => {
                        add(&self.reins.shared.counters.answers_unreadable, 1);
                        Failure::Unreadable(error)
                    }
                }
            }
            (Ok(_), _) => Failure::Closed,
            (Err(why), _) => why,
        };
        let why = connection.unwritable.take().unwrap_or(why);
        self.lose(why, now);
    }

    /// Gives up the connection, if there is one.
    fn lose(&mut self, why: Failure, now: Instant) {
        if let Link::Open(mut connection) = std::mem::replace(&mut self.link, Link::None) {
            // The head of an answer has decided already, even when its body did not end.
            if let Some(answer) = connection.reader.cut_short() {
                connection.progressed |= answer.is_success();
                let _ = self.sender.answered(answer, now);
            }
            let unwritten = self.buffers.as_ref().is_some_and(|buffers| !buffers.send.is_empty());
            if self.sender.is_in_flight() || unwritten {
                // What the KMS has not got yet must not be sent any more behind our back.
                connection.stream.drop_unsent();
            }
            let progressed = connection.progressed;
            drop(connection);
            self.sender.broke(why, progressed, now);
        }
        if let Some(buffers) = self.buffers.take() {
            self.pool.give_back(buffers);
        }
        self.last.forget();
    }
}
