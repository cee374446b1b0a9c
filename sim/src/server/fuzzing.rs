//! A way in for fuzzing: a client that says anything to a card's server.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use qkd_contract::state::Role;

use super::connection::serve;
use super::device::Device;
use super::port::Port;
use crate::card::{Card, Identity, Remembered, WhileRunning};

/// A card that is stepped for as long as the process lives.
pub struct Served {
    port: Arc<Port>,
}

impl Served {
    /// Begins to step a card.
    ///
    /// # Errors
    /// When the operating system gives no memory or no thread.
    pub fn start() -> io::Result<Self> {
        let identity = Identity { block_max: 4096, ..Identity::new(0xA1B2C3, 0xA1B2C4, Role::Transmitter) };
        let mut card = Card::new(identity, Remembered::default(), Box::new(WhileRunning))
            .map_err(|bad| io::Error::other(bad.to_string()))?;
        let port = Arc::new(Port::new(card.identity().device_id, card.identity().serial)?);
        port.step(&mut card, 0);
        let stepped = Arc::clone(&port);
        std::thread::Builder::new().spawn(move || {
            let start = Instant::now();
            loop {
                stepped.step(&mut card, u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
                std::thread::sleep(Duration::from_micros(50));
            }
        })?;
        Ok(Self { port })
    }

    /// Serves one client until it goes; whether the card was reset in time afterwards.
    #[must_use]
    pub fn serve(&self, stream: &UnixStream) -> bool {
        self.port.client_came();
        let _ = serve(stream, &mut Device::new(&self.port), &AtomicBool::new(false));
        self.port.client_left()
    }
}
