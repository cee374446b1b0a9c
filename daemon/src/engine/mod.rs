//! The engine: brings together card, key agreement, ledger, peer link and pushers in one task.
//!
//! Every turn takes in what has happened and lets the [`Core`] decide. What it writes is made durable by a thread, in one
//! commit for all that has gathered while the commit before was under way; its number goes to the card's cell; and only
//! when the cell shows it are the actions carried out that depend on it. Nothing but this task changes the state of the
//! key agreement.

mod aside;
mod audit;
mod batches;
mod card;
mod clock;
mod exit;
mod first_light;
mod keys;
mod losses;
mod passed;
mod saying;
mod start;
mod streams;
mod supervision;
mod writer;
mod zeroize;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::audit::Auditing;
use self::batches::Batches;
pub use self::card::CardEnd;
use self::card::{CardPort, FromCard, ToCard};
pub use self::exit::{Failure, KeyFault};
use self::keys::Keys;
use self::losses::Losses;
use self::saying::Saying;
pub use self::start::{Addresses, run};
pub use self::streams::PushFault;
use self::streams::Streams;
use self::supervision::Supervision;
use self::writer::Writer;
use self::zeroize::Zeroizing;
use crate::agreement::{Action, BlockName, Core, Event, Level, Message, Output, Position};
use crate::audit::{What, Who};
use crate::calls::{Answer, Pending};
use crate::interface::KeyStreamId;
use crate::operator::FromOperator;
use crate::peer::{Link, PeerEvent};
use crate::push::Report;
use crate::vault::Vault;

/// Most of each kind of input that one turn takes in, so that none shuts out the others.
const BATCH: usize = 256;
/// While so many writes and actions wait for ledger and cell, nothing more is taken in from outside, beside the card.
const MOST_WAITING: usize = 16_384;
/// While the card's thread is behind with acknowledgements.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest wait for the kernel to close the card, once its memory is wiped.
const CLOSING: Duration = Duration::from_secs(3);
/// Longest wait for pushers and card when the daemon stops.
const STOPPING: Duration = Duration::from_secs(10);

/// Everything that comes in from outside, beside the card.
struct Inputs {
    calls: mpsc::Receiver<Pending>,
    peer: mpsc::Receiver<PeerEvent>,
    reports: mpsc::Receiver<Report>,
    stopped: mpsc::UnboundedReceiver<(KeyStreamId, Position)>,
    /// Pushers that were ended to wipe what they held, one message each.
    wiped: mpsc::UnboundedReceiver<()>,
    operator: mpsc::Receiver<FromOperator>,
    /// Certificates were read anew.
    reloads: mpsc::Receiver<()>,
}

struct Engine {
    /// Name of the module.
    module: String,
    core: Core,
    writer: Writer,
    batches: Batches,
    keys: Keys,
    vault: Vault,
    card: CardPort,
    link: Link,
    streams: Streams,
    inputs: Inputs,
    /// Calls that wait for their answer.
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next_call: u64,
    /// Orders that the card's thread had no room for.
    orders: VecDeque<ToCard>,
    link_state: Option<qkd_driver::LinkState>,
    secret_key_rate: u64,
    saying: Saying,
    losses: Losses,
    supervision: Supervision,
    auditing: Auditing,
    /// An operator has every key destroyed.
    zeroizing: Option<Zeroizing>,
    /// What the core wants, as far as its writes are not under way.
    out: Output,
}

impl Engine {
    /// Works until `stop` is done or something fails, and then leaves no key behind.
    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let end = self.work(stop).await;
        self.shut_down(end).await
    }

    async fn work(&mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::pin!(stop);
        self.handle(Event::Start);
        self.settle()?;
        loop {
            let awake = std::sync::Arc::clone(&self.card.awake);
            let tick = self.next_tick();
            let retry = Instant::now() + LOOK_AGAIN;
            let start = self.streams.next_start();
            let losses = self.losses.due();
            let look = self.supervision.due();
            let slow = self.writer.due();
            let zeroizing = self.zeroizing_due();
            let open = self.takes_more();
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = awake.notified() => {}
                written = self.writer.done() => self.on_written(written?),
                Some(pending) = self.inputs.operator.recv() => self.on_operator(pending),
                Some(()) = self.inputs.wiped.recv() => self.on_wiped(),
                Some(()) = self.inputs.reloads.recv() => {
                    self.auditing.note(Who::Daemon, What::Reloaded { settings: "certificates".into() });
                }
                () = sleep_until(zeroizing.unwrap_or(retry)), if zeroizing.is_some() => {}
                Some(event) = self.inputs.peer.recv(), if open => self.on_peer(event),
                Some(pending) = self.inputs.calls.recv(), if open => self.on_call(pending),
                Some(report) = self.inputs.reports.recv(), if open => self.on_report(report),
                Some(stopped) = self.inputs.stopped.recv(), if open => self.on_stopped(stopped),
                () = sleep_until(tick.unwrap_or(retry)), if tick.is_some() => self.handle(Event::Tick),
                () = sleep_until(retry), if !self.orders.is_empty() => {}
                () = sleep_until(start.unwrap_or(retry)), if start.is_some() => {}
                () = sleep_until(losses.unwrap_or(retry)), if losses.is_some() => {}
                () = sleep_until(look.unwrap_or(retry)), if look.is_some() => {}
                () = sleep_until(slow.unwrap_or(retry)), if slow.is_some() => self.writer.look(Instant::now())?,
            }
            self.streams.start_waiting()?;
            self.losses.say(Instant::now());
            self.take_in()?;
            self.settle()?;
            self.look_at_zeroizing()?;
            self.supervision.stands(&self.core.status(), self.link_state);
            self.supervision.look(Instant::now());
        }
    }

    /// What else has come meanwhile, in bounded amounts.
    fn take_in(&mut self) -> Result<(), Failure> {
        if self.takes_more() {
            self.take_in_from_outside();
        }
        for _ in 0..BATCH {
            let Ok(news) = self.card.news.pop() else { return Ok(()) };
            self.on_card(news)?;
        }
        self.card.awake.notify_one();
        Ok(())
    }

    /// Whether what waits for ledger and cell is little enough. What the card delivers is bounded by the vault.
    fn takes_more(&self) -> bool {
        self.out.writes.len() + self.out.actions.len() + self.batches.waiting() < MOST_WAITING
    }

    fn take_in_from_outside(&mut self) {
        for _ in 0..BATCH {
            let Ok(event) = self.inputs.peer.try_recv() else { break };
            self.on_peer(event);
        }
        for _ in 0..BATCH {
            let Ok(pending) = self.inputs.calls.try_recv() else { break };
            self.on_call(pending);
        }
        for _ in 0..BATCH {
            let Ok(report) = self.inputs.reports.try_recv() else { break };
            self.on_report(report);
        }
        for _ in 0..BATCH {
            let Ok(stopped) = self.inputs.stopped.try_recv() else { break };
            self.on_stopped(stopped);
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        let deadline = self.core.deadline()?;
        Some(Instant::now() + Duration::from_millis(deadline.saturating_sub(clock::now().boot_ms)))
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(clock::now(), event, &mut self.out);
    }

    fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected => {
                self.auditing.note_bounded(Who::Peer, What::PeerConnected, Instant::now());
                self.handle(Event::PeerConnected);
            }
            PeerEvent::Disconnected(reason) => {
                self.saying.say(log::Level::Info, &format!("peer link: {reason}"));
                self.auditing.note_bounded(Who::Peer, What::PeerDisconnected, Instant::now());
                self.handle(Event::PeerDisconnected);
            }
            PeerEvent::Frame(frame) => match Message::decode(&frame) {
                Ok(message) => self.handle(Event::PeerMessage(message)),
                Err(fault) => {
                    log::error!("peer link: the other end said something that cannot be: {fault}");
                    self.send(&Message::Refuse { reason: fault.to_string() });
                    self.link.disconnect(fault.to_string());
                }
            },
        }
    }

    fn on_call(&mut self, pending: Pending) {
        let id = self.next_call;
        self.next_call += 1;
        self.auditing.asked(id, &pending.call);
        self.waiting.insert(id, pending.reply);
        self.handle(Event::Call { id, call: pending.call, fresh_stream: KeyStreamId::new_v4() });
    }

    fn on_report(&mut self, report: Report) {
        if let Some(event) = streams::event_of(report) {
            self.handle(event);
        }
    }

    fn on_wiped(&mut self) {
        if let Some(zeroizing) = &mut self.zeroizing {
            zeroizing.pushers = zeroizing.pushers.saturating_sub(1);
        }
    }

    fn on_stopped(&mut self, (stream, sent_up_to): (KeyStreamId, Position)) {
        self.handle(Event::Stopped { stream, sent_up_to });
    }

    fn on_card(&mut self, news: FromCard) -> Result<(), Failure> {
        match news {
            FromCard::Block { name, key, replayed } => {
                let name = agreed_name(name);
                if self.zeroizing.as_ref().is_some_and(|zeroizing| zeroizing.card.is_none()) {
                    // It was handed over before the card took the order.
                    drop(key);
                    self.handle(Event::BlockLost { name });
                    return Ok(());
                }
                let length = u32::try_from(key.length()).unwrap_or(u32::MAX);
                // A replay brings again what the vault still has; the core knows of it.
                if self.keys.hold(name, key) {
                    self.handle(Event::BlockHeld { name, length, replayed });
                }
            }
            FromCard::Lost { name } => self.handle(Event::BlockLost { name: agreed_name(name) }),
            FromCard::ReplayEnd => self.handle(Event::ReplayEnd),
            FromCard::Session { session, previous_blocks } => {
                self.handle(Event::Session { session, previous_blocks });
            }
            FromCard::Recovered => self.handle(Event::CardReset),
            FromCard::Zeroized { count } => {
                if let Some(zeroizing) = &mut self.zeroizing {
                    zeroizing.card = Some(count);
                }
            }
            FromCard::Newest(name) => self.handle(Event::Newest { name: agreed_name(name) }),
            FromCard::Link(state) => {
                log::info!("QKD link: {state:?}");
                self.link_state = Some(state);
                self.tell_link();
            }
            FromCard::Telemetry(telemetry) => {
                self.secret_key_rate = telemetry.secret_key_rate;
                self.tell_link();
            }
            FromCard::Ended(Ok(())) => {}
            FromCard::Ended(Err(end)) => return Err(end.into()),
        }
        Ok(())
    }

    fn tell_link(&mut self) {
        if let Some(state) = self.link_state {
            self.handle(Event::Link { state, secret_key_rate_bps: self.secret_key_rate });
        }
    }

    /// A write is durable: the card's cell must know before anything is done that depends on it.
    fn on_written(&mut self, number: u64) {
        self.card.raise_cell(number);
        self.batches.written(number);
    }

    /// Lets the next write begin, and does what no write is waited for any more.
    fn settle(&mut self) -> Result<(), Failure> {
        let nothing = self.out.is_empty() && self.auditing.is_empty();
        if !self.writer.is_busy() && !nothing {
            let Output { writes, actions } = std::mem::take(&mut self.out);
            self.auditing.before(&actions);
            let events = self.auditing.take();
            if writes.is_empty() && events.is_empty() {
                self.batches.follow(actions);
            } else {
                self.batches.begin(actions);
                self.writer.begin(writes, events);
            }
        }
        while let Some(actions) = self.batches.next(self.card.cell_shown()) {
            for action in actions {
                self.carry_out(action)?;
            }
        }
        while let Some(order) = self.orders.pop_front() {
            if !self.card.order(order) {
                self.orders.push_front(order);
                break;
            }
        }
        Ok(())
    }

    fn order(&mut self, order: ToCard) {
        // Behind others that wait, so that their order stays.
        if !self.orders.is_empty() || !self.card.order(order) {
            self.orders.push_back(order);
        }
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::Send(message) => self.send(&message),
            Action::Disconnect { reason } => self.link.disconnect(reason),
            Action::Answer { call, answer } => {
                if let Some(reply) = self.waiting.remove(&call) {
                    // A client that has gone does not mind.
                    let _ = reply.send(answer);
                }
            }
            Action::Begin { stream, kms, chunk_size, position } => {
                self.streams.begin(stream, &kms, chunk_size, position)?;
            }
            Action::Deliver(_) if self.withholds_key() => {}
            Action::Deliver(delivery) => {
                let key = self.keys.take(&delivery.extents)?;
                self.streams.deliver(&delivery, key)?;
            }
            Action::Discard { stream, up_to, cause } => {
                log::debug!("key stream {stream}: nothing below {up_to} is sent any more ({cause:?})");
                self.streams.discard(stream, up_to)?;
            }
            Action::Lost { stream, first, count, cause } => {
                self.losses.add(stream, cause, first, count, Instant::now());
            }
            Action::Resume { stream } => self.streams.resume(stream)?,
            Action::Stop { stream } => self.streams.stop(stream),
            Action::Notice { stream, status, position } => self.streams.notice(stream, status, position)?,
            Action::Acknowledge { first, last } => {
                self.order(ToCard::Acknowledge(card_name(first), card_name(last)));
            }
            Action::Release { block } => self.keys.release(block),
            Action::Zeroized => {
                if let Some(zeroizing) = &mut self.zeroizing {
                    zeroizing.agreed = true;
                }
            }
            Action::Say { level, text } => self.saying.say(log_level(level), &text),
        }
        Ok(())
    }

    fn send(&mut self, message: &Message) {
        match message.encode() {
            Ok(frame) => {
                if !self.link.send(frame) {
                    self.link.disconnect("the peer takes nothing any more".into());
                }
            }
            Err(fault) => log::error!("peer link: a message cannot be sent: {fault}"),
        }
    }

    /// Stops pushing, closes the card with proof that it has stopped, and wipes every key.
    async fn shut_down(mut self, end: Result<(), Failure>) -> Result<(), Failure> {
        self.supervision.stopping();
        self.give_up_zeroizing(&end);
        self.card.go_on();
        self.inputs.operator.close();
        self.waiting.clear();
        self.inputs.calls.close();
        // What is still being gathered is said now.
        self.losses.say(Instant::now() + STOPPING);
        let mut confirmations = self.streams.stop_all();
        let deadline = Instant::now() + STOPPING;
        let mut end = end;
        if !self.card.order(ToCard::Stop) {
            self.orders.push_back(ToCard::Stop);
        }
        let mut card_ended = matches!(end, Err(Failure::Card(_)));
        while (confirmations > 0 || !card_ended) && Instant::now() < deadline {
            let awake = std::sync::Arc::clone(&self.card.awake);
            tokio::select! {
                Some(_) = self.inputs.stopped.recv() => confirmations = confirmations.saturating_sub(1),
                Some(_) = self.inputs.reports.recv() => {}
                () = awake.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            while let Ok(news) = self.card.news.pop() {
                if let FromCard::Ended(how) = news {
                    card_ended = true;
                    end = end.and(how.map_err(Failure::from));
                }
            }
            if let Some(order) = self.orders.pop_back()
                && !self.card.order(order)
            {
                self.orders.push_back(order);
            }
        }
        if card_ended || self.card.has_ended() {
            self.card.join(CLOSING).await;
        } else {
            log::error!(
                "the card's thread did not end within {STOPPING:?}; its memory goes with the process"
            );
        }
        let why = match &end {
            Ok(()) => "stopped as asked".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let last = self.auditing.end(why);
        self.writer.last_words(last);
        self.writer.close(deadline.saturating_duration_since(Instant::now()).max(LOOK_AGAIN)).await;
        log::info!("stopped; {} blocks of key that were not used are wiped", self.keys.count());
        self.keys.clear();
        end
    }
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    }
}

fn agreed_name(name: qkd_driver::BlockName) -> BlockName {
    BlockName::new(name.session, name.sequence)
}

fn card_name(name: BlockName) -> qkd_driver::BlockName {
    qkd_driver::BlockName { session: name.session, sequence: name.sequence }
}
