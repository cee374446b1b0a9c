//! A QKD module's API with a scripted key agreement behind it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use qkd_daemon::api::{self, Settings};
use qkd_daemon::calls::{Answer, Call, CallPort};
use qkd_daemon::config::{Config, Profile};
use qkd_daemon::interface::{Qos, Status};
use qkd_daemon::pulse::Pulses;
use uuid::Uuid;

use crate::client::Client;

/// The key stream ID that the scripted key agreement chooses.
pub(crate) const CHOSEN: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// What the scripted key agreement does with a call.
pub(crate) enum Reaction {
    Answer(Answer),
    /// Lets go of the call unanswered, as a daemon that stops.
    LetGo,
    /// Keeps the call and never answers.
    Keep,
    /// Takes no more calls from the queue.
    Stall,
}

pub(crate) struct Module {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// Settings as a configuration with nothing but what is required gives them.
pub(crate) fn settings() -> Settings {
    let text = r#"
        module = { name = "A", role = "leader" }
        card = { socket = "/run/qkd/a.sock" }
        api = { listen = "127.0.0.1:0" }
        peer = { listen = "127.0.0.1:0", kms = ["kms://b", "kms://b2"] }
        kms = [{ uri = "kms://a", endpoint = "http://127.0.0.1:9001" },
               { uri = "kms://a2", endpoint = "http://127.0.0.1:9002" }]
    "#;
    Settings::of(&Config::parse(Path::new("test.toml"), text).unwrap())
}

impl Module {
    /// Starts a module whose key agreement says yes to everything.
    pub(crate) fn willing(profile: Profile) -> Self {
        Self::start(
            Settings { api: qkd_daemon::config::Api { profile, ..settings().api }, ..settings() },
            yes,
        )
    }

    /// Starts a module whose key agreement reacts by `script`.
    pub(crate) fn start(
        settings: Settings,
        mut script: impl FnMut(&Call) -> Reaction + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let depth = usize::try_from(settings.api.most_waiting_calls).unwrap();
        let (port, mut queue) = CallPort::new(depth);
        let (ready, started) = std::sync::mpsc::channel();
        let record = Arc::clone(&calls);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (server, handle) =
                    api::serve(settings, listener, None, port, &Pulses::default()).unwrap();
                ready.send(handle).unwrap();
                let agreement = async move {
                    let mut kept = Vec::new();
                    while let Some(pending) = queue.recv().await {
                        record.lock().unwrap().push(pending.call.clone());
                        match script(&pending.call) {
                            // A client that has gone away waits for nothing.
                            Reaction::Answer(answer) => drop(pending.reply.send(answer)),
                            Reaction::LetGo => {}
                            Reaction::Keep => kept.push(pending),
                            Reaction::Stall => std::future::pending().await,
                        }
                    }
                };
                let agreement = tokio::spawn(agreement);
                server.await.unwrap();
                agreement.abort();
            });
        });
        let handle = started.recv_timeout(Duration::from_secs(30)).unwrap();
        Self { address, calls, handle, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A client at another address of this machine.
    pub(crate) fn connect_from(&self, from: &str) -> Client {
        Client::connect_from(from, self.address)
    }

    /// The calls that reached the key agreement, in order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Says yes to every call.
pub(crate) fn yes(call: &Call) -> Reaction {
    Reaction::Answer(match call {
        Call::Open(open) => Answer::Opened {
            stream: open.stream.unwrap_or_else(chosen),
            source: open.source.clone(),
            destination: open.destination.clone(),
            qos: qos(),
            status: Status::PeerNotConnected,
        },
        Call::GetKey(_) | Call::Close(_) => Answer::Done,
    })
}

pub(crate) fn chosen() -> Uuid {
    CHOSEN.parse().unwrap()
}

pub(crate) fn qos() -> Qos {
    Qos {
        key_chunk_size: 32,
        max_bps: u32::MAX,
        min_bps: 0,
        jitter: 1,
        priority: 2,
        timeout: 5_000,
        ttl: 3_600,
        metadata_mimetype: "application/json".to_owned(),
    }
}
