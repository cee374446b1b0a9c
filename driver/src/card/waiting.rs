//! Waiting for the card, first by looking, then by interrupt; and supervising it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use qkd_contract::limits::HEARTBEAT_MS;
use qkd_contract::registers as reg;
use qkd_contract::state::{LinkState, State};

use super::{Card, Life};
use crate::backing::Backing;
use crate::fault::Fault;
use crate::mmio::Registers;

/// More than any card needs between writing `FAULT` and showing the state Fault (ORD-7).
const BETWEEN_FAULT_AND_STATE: Duration = Duration::from_millis(1);

/// How many entries are looked through for an event that came although the one before it did not.
const SKIPPED_AHEAD: u32 = 64;

/// Why [`Card::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// [`Card::next_event`] has something.
    Event,
    /// The waker is readable. It is not read.
    Waker,
    /// The time is up.
    TimedOut,
    /// The platform wants the card back: close it.
    RemovalRequested,
}

/// A card that keeps its times, and how its link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its state.
    pub state: State,
    /// State of the QKD link.
    pub link: LinkState,
}

impl<B: Backing> Card<B> {
    /// Waits until [`Card::next_event`] has something new, `waker` is readable, or `timeout` has passed.
    ///
    /// It looks for [`super::CardOptions::spin`] at most after the last event, without looking at the waker, and then blocks
    /// for an interrupt: where events come seldom, it does not look. While a block is pending that was not taken, only the waker and the time end the wait. An event
    /// that is already there goes before the waker; a caller who is never idle looks at his own queue in between.
    ///
    /// # Errors
    /// [`Fault::NotRunning`]; any other fault takes the card out of service.
    pub fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Woken, Fault> {
        if self.life != Life::Running {
            return Err(self.fail(Fault::NotRunning));
        }
        self.try_wait(timeout, waker).map_err(|fault| self.fail(fault))
    }

    fn try_wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) -> Result<Woken, Fault> {
        let deadline = self.backing.now().saturating_add(timeout);
        let full = self.pending.is_some();
        let mut looked = false;
        loop {
            let now = self.backing.now();
            if !full && self.something_due() {
                if looked {
                    self.came(now);
                } else {
                    self.last_activity = now;
                }
                self.counters.polls_hit += 1;
                return Ok(Woken::Event);
            }
            looked = true;
            if !full && now < deadline && now.saturating_sub(self.last_activity) < self.spin.time() {
                std::hint::spin_loop();
                continue;
            }
            if !full {
                self.arm();
                // An event that was written before the card saw the arming may have raised nothing: look again.
                if self.something_due() {
                    self.came(now);
                    return Ok(Woken::Event);
                }
            }
            self.counters.sleeps += 1;
            let signals = self.await_signals(deadline.saturating_sub(now), waker)?;
            self.counters.interrupts += u64::from(signals.event);
            if signals.control {
                self.expect_state(State::Running)?;
            }
            if self.removal_requested {
                return Ok(Woken::RemovalRequested);
            }
            if !full && self.something_due() {
                let now = self.backing.now();
                self.came(now);
                return Ok(Woken::Event);
            }
            if !full && (signals.event || now >= deadline) {
                self.look_for_skipped(SKIPPED_AHEAD)?;
            }
            if signals.waker {
                return Ok(Woken::Waker);
            }
            if now >= deadline {
                return Ok(Woken::TimedOut);
            }
        }
    }

    /// An event that was waited for is there.
    fn came(&mut self, now: Duration) {
        self.spin.came_after(now.saturating_sub(self.last_activity));
        self.last_activity = now;
    }

    fn something_due(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| self.progress.something_due(&self.layout, memory))
    }

    /// Asks for an interrupt at the next event (INT-1).
    fn arm(&mut self) {
        self.arm_serial = self.arm_serial.wrapping_add(1).max(1);
        let value = u64::from(self.arm_serial) << 32 | u64::from(self.progress.consumed);
        self.backing.registers().set64(reg::ARM, value);
    }

    /// Checks that the card lives and keeps its times: state, heartbeat, acknowledgements. Call it regularly, also
    /// when nothing happens.
    ///
    /// # Errors
    /// A fault that takes the card out of service.
    pub fn health(&mut self) -> Result<Health, Fault> {
        self.try_health().map_err(|fault| self.fail(fault))
    }

    fn try_health(&mut self) -> Result<Health, Fault> {
        if self.backing.registers().get32(reg::MAGIC) == u32::MAX {
            return Err(Fault::Gone);
        }
        // Nobody may be waiting for the card for a long time; the platform's signals must be heard all the same. What the
        // card itself signals is no news: whoever waits next looks before.
        self.await_signals(Duration::ZERO, None)?;
        let state = match self.life {
            Life::Running => State::Running,
            Life::Stopped => State::Stopped,
            Life::Zeroized => State::Zeroized,
            Life::Faulted | Life::GivenUp => return Err(Fault::NotRunning),
        };
        self.expect_state(state)?;
        let fault = self.backing.registers().get32(reg::FAULT);
        // A fault may have been entered between the two looks; its code comes before its state.
        if fault != 0 {
            self.backing.pause(BETWEEN_FAULT_AND_STATE);
            self.expect_state(state)?;
            return Err(self.undefined(reg::FAULT, fault.into()));
        }
        self.look_at_peer()?;
        self.look_at_heartbeat()?;
        if self.life == Life::Running {
            self.look_at_acks()?;
        }
        Ok(Health { state, link: self.read_link_state()? })
    }

    /// The serial number of the card at the other end, once known, is forgotten only by a reset (ID-5), and while this
    /// handle lives it never becomes another.
    pub(super) fn look_at_peer(&mut self) -> Result<(), Fault> {
        let found = self.backing.registers().get64(reg::PEER_SERIAL);
        if found == u64::MAX {
            return Err(self.undefined(reg::PEER_SERIAL, found));
        }
        let wrong = match (self.known_peer, found) {
            (Some(known), 0) => self.identity.peer_serial.is_some().then_some(known),
            (Some(known), found) => (known != found).then_some(known),
            (None, _) => None,
        };
        if let Some(expected) = wrong {
            return Err(Fault::PeerChanged { expected, found });
        }
        if found != 0 {
            self.known_peer = Some(found);
            self.identity.peer_serial = Some(found);
        }
        Ok(())
    }

    /// The heartbeat must differ from the last look's, if that is longer ago than its time (ST-10, TIM-8).
    fn look_at_heartbeat(&mut self) -> Result<(), Fault> {
        let found = self.backing.registers().get64(reg::HEARTBEAT);
        let now = self.backing.now();
        match self.heartbeat {
            Some((value, seen)) if value == found => {
                let ms = self.longest(HEARTBEAT_MS);
                if now.saturating_sub(seen) > Duration::from_millis(ms) {
                    return Err(Fault::Timeout { what: "a heartbeat", ms, clause: "TIM-8" });
                }
            }
            _ => self.heartbeat = Some((found, now)),
        }
        Ok(())
    }
}
