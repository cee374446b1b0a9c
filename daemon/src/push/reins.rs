//! The task's end of what its handle steers with.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use super::handle::{Command, Shared, StopOrder};

/// Commands that are taken before the socket is looked at.
const COMMANDS_AT_ONCE: usize = 256;

/// What the handle orders.
pub(super) enum Order {
    /// To stop; `None`: the handle was dropped.
    Stop(Option<StopOrder>),
    /// Commands were taken.
    Commanded,
}

/// The task's ends of what the handle steers with.
#[derive(Debug)]
pub(super) struct Reins {
    commands: mpsc::Receiver<Command>,
    stop: oneshot::Receiver<StopOrder>,
    pub(super) shared: Arc<Shared>,
    stopped: bool,
    /// Nothing was ordered since the task was woken, and the next order wakes it again.
    listening: bool,
}

impl Reins {
    pub(super) fn new(
        commands: mpsc::Receiver<Command>,
        stop: oneshot::Receiver<StopOrder>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { commands, stop, shared, stopped: false, listening: false }
    }

    /// The task was woken, perhaps by an order.
    pub(super) fn woken(&mut self) {
        self.listening = false;
    }

    /// Has `take` take the commands that there are, and hears whether to stop. A task does so several times until it sleeps again,
    /// and asks the channels once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(Command)) -> Poll<Order> {
        if self.listening {
            return Poll::Pending;
        }
        if !self.stopped
            && let Poll::Ready(order) = Pin::new(&mut self.stop).poll(cx)
        {
            // What was ordered before is not forgotten.
            while let Ok(command) = self.commands.try_recv() {
                take(command);
            }
            self.stopped = true;
            return Poll::Ready(Order::Stop(order.ok()));
        }
        let mut commanded = false;
        for _ in 0..COMMANDS_AT_ONCE {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => {
                    take(command);
                    commanded = true;
                }
                Poll::Ready(None) if !self.stopped => return Poll::Ready(Order::Stop(None)),
                Poll::Ready(None) | Poll::Pending => {
                    self.listening = true;
                    break;
                }
            }
        }
        if commanded { Poll::Ready(Order::Commanded) } else { Poll::Pending }
    }

    /// Takes no command any more.
    pub(super) fn let_go(&mut self) {
        self.commands.close();
    }
}
