//! What the service manager is told: readiness, how things stand, and that every part still turns.
//!
//! Without a service manager that wants to know (`NOTIFY_SOCKET`), nothing is told. The watchdog is fed from the loop
//! that does the daemon's work, and only when the card's thread and every thread of the API have turned since it was
//! fed last. Not proven by that: the thread that accepts the API's connections.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use qkd_driver::LinkState;
use sd_notify::NotifyState;
use tokio::time::Instant;

use crate::agreement::{Role, Status};
use crate::pulse::{Looks, Pulse, Pulses};

/// How often the watchdog is fed within its time.
const FEEDS: u32 = 4;
/// Messages that may wait for the service manager. It reads at once unless it is in trouble itself.
const WAITING: usize = 16;
/// Longest wait at the end until the last message is sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A message for the service manager.
#[derive(Debug)]
enum Say {
    Ready,
    Stopping,
    Alive,
    Status(String),
}

/// The way to the service manager, and what it wants to be told.
pub(super) struct Supervision {
    /// The card's thread.
    pub(super) card: Pulse,
    /// Threads that serve the API.
    pub(super) api: Pulses,
    looks: Looks,
    manager: Option<Teller>,
    /// Between two feeds, and when the next is due.
    feed: Option<(Duration, Instant)>,
    /// The part for whose sake the watchdog was not fed last time.
    hangs: Option<&'static str>,
    standing: Option<Standing>,
}

/// The thread that sends.
struct Teller {
    queue: SyncSender<Say>,
    /// Broken once everything has been sent.
    ended: Receiver<()>,
}

/// What a status line tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    role: Role,
    link: Option<LinkState>,
    connected: bool,
    in_step: bool,
}

impl Supervision {
    /// As the environment says.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn from_environment() -> std::io::Result<Self> {
        let manager = match std::env::var_os("NOTIFY_SOCKET") {
            Some(_) => Some(start_teller()?),
            None => None,
        };
        let time = manager.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        Ok(Self::new(manager, time, Instant::now()))
    }

    fn new(manager: Option<Teller>, time: Option<Duration>, now: Instant) -> Self {
        let feed = time.map(|time| time / FEEDS).filter(|every| !every.is_zero());
        Self {
            card: Pulse::default(),
            api: Pulses::default(),
            looks: Looks::default(),
            manager,
            feed: feed.map(|every| (every, now + every)),
            hangs: None,
            standing: None,
        }
    }

    /// The card is up and the API listens. From now on the watchdog wants to be fed.
    pub(super) fn ready(&mut self) {
        self.say(Say::Ready);
        self.feed = self.feed.map(|(every, _)| (every, Instant::now() + every));
    }

    /// The daemon is on its way out.
    pub(super) fn stopping(&self) {
        self.say(Say::Stopping);
    }

    /// How things stand, as a sentence. Never holds key.
    pub(super) fn status(&self, text: &str) {
        self.say(Say::Status(text.to_owned()));
    }

    /// When [`Self::look`] wants to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.feed.map(|(_, due)| due)
    }

    /// Feeds the watchdog if it is time and every part has turned. Called by the loop that does the work.
    pub(super) fn look(&mut self, now: Instant) {
        let Some((every, due)) = self.feed else { return };
        if now < due {
            return;
        }
        self.feed = Some((every, now + every));
        // Both are looked at each time, so that neither's beat is saved up.
        let (card, api) = (self.looks.one(&self.card), self.looks.all(&self.api));
        let hangs = match (card, api) {
            (true, true) => None,
            (false, _) => Some("the card's thread"),
            (true, false) => Some("a thread of the API"),
        };
        match (self.hangs, hangs) {
            (None, Some(part)) => {
                let text = format!("{part} hangs; the watchdog is not fed");
                log::error!(id = "watchdog.hangs"; "{text}");
                self.status(&text);
            }
            (Some(part), None) => {
                log::warn!(id = "watchdog.turns_again"; "{part} turns again; the watchdog is fed");
                self.say_standing();
            }
            _ => {}
        }
        self.hangs = hangs;
        if hangs.is_none() {
            self.say(Say::Alive);
        }
    }

    /// Tells how link and other module stand, when that has changed.
    pub(super) fn stands(&mut self, status: &Status, link: Option<LinkState>) {
        let standing =
            Standing { role: status.role, link, connected: status.connected, in_step: status.in_step };
        if self.standing != Some(standing) {
            self.standing = Some(standing);
            self.say_standing();
        }
    }

    fn say_standing(&self) {
        if let Some(standing) = self.standing {
            self.status(&standing.to_string());
        }
    }

    fn say(&self, what: Say) {
        let Some(manager) = &self.manager else { return };
        if let Err(TrySendError::Full(lost)) = manager.queue.try_send(what) {
            log::warn!(id = "systemd.not_read"; "the service manager does not read what it is told: {lost:?} is dropped");
        }
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        if let Some(Teller { queue, ended }) = self.manager.take() {
            drop(queue);
            // It only ever breaks, or is given up.
            let _ = ended.recv_timeout(LAST_WORDS);
        }
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = match self.role {
            Role::Leader => "Leader",
            Role::Follower => "Follower",
        };
        let link = match self.link {
            None => "has not been told yet",
            Some(LinkState::Off) => "is off",
            Some(LinkState::Initialising) => "initialises",
            Some(LinkState::Aligning) => "is being aligned",
            Some(LinkState::Distilling) => "distils key",
            Some(LinkState::NoAuthenticationKey) => "has no authentication key",
            Some(LinkState::Fault) => "is in fault",
        };
        let peer = match (self.connected, self.in_step) {
            (false, _) => "waiting for the other module",
            (true, false) => "getting in step with the other module",
            (true, true) => "in step with the other module",
        };
        write!(f, "{role}; the QKD link {link}; {peer}")
    }
}

/// A thread of its own sends: a service manager that does not read must not hold up keys.
fn start_teller() -> std::io::Result<Teller> {
    let (queue, told) = sync_channel(WAITING);
    let (until_the_end, ended) = channel::<()>();
    std::thread::Builder::new().name("notify".into()).spawn(move || {
        let _until_the_end = until_the_end;
        let mut failed = false;
        for what in told {
            let sent = match &what {
                Say::Ready => sd_notify::notify(&[NotifyState::Ready]),
                Say::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
                Say::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
                Say::Status(text) => sd_notify::notify(&[NotifyState::Status(text)]),
            };
            if let (Err(e), false) = (&sent, failed) {
                log::warn!(id = "systemd.unreachable"; "the service manager cannot be told anything (NOTIFY_SOCKET): {e}");
            }
            failed = sent.is_err();
        }
    })?;
    Ok(Teller { queue, ended })
}
