//! The connection to the other end: greeting, refusing, and who may say what.

use super::check::{PeerFault, check_epoch, excerpt};
use super::core::Core;
use super::event::{Action, Level, Now, Output};
use super::message::{Hello, Message, PROTOCOL_VERSION};
use super::settings::Role;
use super::timers::Timer;

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// It stands.
    pub(super) connected: bool,
    /// The other end's hello has come and suits.
    pub(super) greeted: bool,
    /// The other end has shown that it works in the same epoch.
    pub(super) in_step: bool,
    /// URIs of its KMSs.
    pub(super) kms: Vec<String>,
    /// Time of the last message to it.
    pub(super) spoke_ms: u64,
}

impl Core {
    pub(super) fn peer_connected(&mut self, now: Now, out: &mut Output) {
        self.forget_connection();
        self.peer.connected = true;
        self.greet(now, out);
        self.timers.set(Timer::KeepAlive, now.boot_ms.saturating_add(self.settings.keep_alive_ms));
    }

    pub(super) fn peer_disconnected(&mut self) {
        self.forget_connection();
    }

    /// The connection is given up; nothing more that comes over it is heeded.
    pub(super) fn hang_up(&mut self, reason: String, out: &mut Output) {
        self.forget_connection();
        out.actions.push(Action::Disconnect { reason });
    }

    fn forget_connection(&mut self) {
        self.peer = Peer::default();
        self.leading.connection_ended();
        self.following.connection_ended();
        self.forget_questions();
        for timer in [Timer::KeepAlive, Timer::Report, Timer::Resend, Timer::Grant] {
            self.timers.clear(timer);
        }
    }

    fn greet(&mut self, now: Now, out: &mut Output) {
        let durable = &self.durable;
        let hello = Hello {
            version: PROTOCOL_VERSION,
            role: self.settings.role,
            module: self.settings.module.clone(),
            epoch: durable.epoch,
            last: durable.last,
            hash: durable.hash,
            card: self.settings.card.serial,
            peer_card: self.settings.card.peer_serial,
            kms: self.settings.local_kms.clone(),
            heard: self.peer.greeted,
        };
        self.say_to_peer(now, Message::Hello(hello), out);
    }

    pub(super) fn say_to_peer(&mut self, now: Now, message: Message, out: &mut Output) {
        self.peer.spoke_ms = now.boot_ms;
        out.send(message);
    }

    /// Says something before the other end takes this one for silent; repeats the greeting until it has had an effect.
    pub(super) fn keep_alive(&mut self, now: Now, out: &mut Output) {
        if !self.peer.connected {
            return;
        }
        let next = now.boot_ms.saturating_add(self.settings.keep_alive_ms);
        self.timers.set(Timer::KeepAlive, next);
        if !self.peer.in_step {
            self.greet(now, out);
        }
        if self.peer.greeted {
            if self.leads() {
                self.leading.log_due = true;
                self.turn_leader_lines();
            } else if self.peer.in_step {
                self.turn_follower_lines();
                self.report(now, out);
            }
            self.repeat_open_requests(now, out);
        }
    }

    pub(super) fn peer_message(&mut self, now: Now, message: Message, out: &mut Output) {
        if !self.peer.connected {
            return;
        }
        let handled = message.check().and_then(|()| self.heed(now, message, out));
        if let Err(fault) = handled {
            self.fault(&fault, out);
        }
    }

    fn heed(&mut self, now: Now, message: Message, out: &mut Output) -> Result<(), PeerFault> {
        let leads = self.leads();
        let wrong = |message| Err(PeerFault::WrongRole { message, role: self.settings.role.other() });
        match message {
            Message::Hello(hello) => self.hello(now, hello, out),
            Message::Refuse { reason } => {
                let reason = excerpt(&reason);
                out.say(Level::Error, format!("the other end refuses to work with this one: {reason}"));
                self.hang_up(format!("refused by the other end: {reason}"), out);
                Ok(())
            }
            // Before the greeting these cannot be placed; they are sent again.
            _ if !self.peer.greeted => Ok(()),
            Message::Log(_) if leads => wrong("log"),
            Message::OpenReply(_) if leads => wrong("open_reply"),
            Message::Report(_) if !leads => wrong("report"),
            Message::OpenRequest(_) if !leads => wrong("open_request"),
            Message::Log(log) => self.heed_log(now, log, out),
            Message::Report(report) => self.heed_report(now, report, out),
            Message::OpenRequest(request) => {
                self.heed_open_request(now, request, out);
                Ok(())
            }
            Message::OpenReply(reply) => {
                self.heed_open_reply(now, reply, out);
                Ok(())
            }
        }
    }

    fn hello(&mut self, now: Now, hello: Hello, out: &mut Output) -> Result<(), PeerFault> {
        check_epoch(hello.epoch)?;
        if let Some(reason) = self.unsuitable(&hello) {
            out.say(Level::Error, format!("cannot work with the other end: {reason}"));
            out.send(Message::Refuse { reason: excerpt(&reason) });
            self.hang_up(reason, out);
            return Ok(());
        }
        // Only the first greeting of a connection says where the other end stands: a repeated one may be old.
        if self.peer.greeted {
            if self.peer.in_step && !hello.heard {
                // The other end has not heard this end's greeting, which is not repeated any more.
                self.greet(now, out);
                self.leading.log_due = self.leads();
            }
            return Ok(());
        }
        self.peer.greeted = true;
        out.say(
            Level::Info,
            format!(
                "module {} greets as {} in epoch {} at entry {}",
                excerpt(&hello.module),
                hello.role,
                hello.epoch,
                hello.last
            ),
        );
        if self.leads() {
            self.judge_follower(now, &hello, out);
        }
        self.peer.kms = hello.kms;
        Ok(())
    }

    /// Why this end cannot work with the other, in words for both operators.
    fn unsuitable(&self, hello: &Hello) -> Option<String> {
        let settings = &self.settings;
        let card = &settings.card;
        if hello.version != PROTOCOL_VERSION {
            return Some(format!(
                "module {} speaks version {} of the peer protocol and module {} version {PROTOCOL_VERSION}; \
                 install the same release at both ends",
                excerpt(&hello.module),
                hello.version,
                settings.module
            ));
        }
        if hello.role == settings.role {
            let both = match hello.role {
                Role::Leader => "both ends are set up to lead",
                Role::Follower => "neither end is set up to lead",
            };
            return Some(format!(
                "{both}; exactly one of the modules {} and {} must have the role leader",
                excerpt(&hello.module),
                settings.module
            ));
        }
        if hello.card != card.peer_serial || hello.peer_card != card.serial {
            return Some(format!(
                "the cards do not belong together: module {} has card {} and its link ends at card {}, \
                 module {} has card {} and its link ends at card {}",
                excerpt(&hello.module),
                hello.card,
                hello.peer_card,
                settings.module,
                card.serial,
                card.peer_serial
            ));
        }
        None
    }
}
