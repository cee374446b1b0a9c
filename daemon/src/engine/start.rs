//! Setting everything up from the configuration, in the order in which things can fail.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qkd_driver::backing::Backing;
use qkd_driver::backing::vfio::Vfio;
use qkd_driver::backing::vfio_user::VfioUser;
use qkd_driver::{Card, CardOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::aside::aside;
use super::audit::Auditing;
use super::batches::Batches;
use super::card::CardPort;
use super::exit::Failure;
use super::first_light::First;
use super::keys::Keys;
use super::losses::{self, Losses};
use super::saying::Saying;
use super::streams::Streams;
use super::supervision::Supervision;
use super::watch::Watch;
use super::writer::Writer;
use super::{Engine, Inputs, clock, first_light, passed};
use crate::agreement::{self, Capacity, CardFacts, Core, Output};
use crate::audit::{AuditFile, What, Who};
use crate::calls::CallPort;
use crate::config::{CardBacking, Config, KeyMemory, PeerAddress, Role};
use crate::ledger::{FileLedger, Ledger, LedgerError, MemoryLedger};
use crate::peer::{Endpoint, Link, Times};
use crate::push::Pusher;
use crate::tls::{Tls, keep};
use crate::vault::{Locking, MemoryKind, Vault};
use crate::{api, config, operator, peer};

/// Longest answer of a card's server.
const CARD_ANSWER: Duration = Duration::from_secs(10);
/// Octets of a file of the audit record.
const AUDIT_FILE: u64 = 4 << 20;
/// Reloads of certificates that may wait to be recorded.
const RELOADS: usize = 8;
/// Operators' requests that may wait.
const OPERATORS: usize = 8;
/// Longest wait until operators have taken their answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Least time between two of the follower's reports: so short that one rarely keeps the next block waiting, and long enough that
/// they cost nothing where key comes fast.
const REPORT_INTERVAL_MS: u64 = 2;
/// Messages of the peer and reports of pushers that may wait.
const QUEUE: usize = 1024;

/// Where the daemon can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// The peer link, when this end listens.
    pub peer: Option<SocketAddr>,
}

/// Runs the daemon until `stop` is done. `ready` is called once, when the API and the peer link can be reached.
///
/// # Errors
/// See [`Failure`]. Everything is stopped and wiped by then.
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(Addresses),
) -> Result<(), Failure> {
    match config.card.backing.clone() {
        CardBacking::VfioUser(socket) => {
            let connect = move || {
                VfioUser::connect(&socket, CARD_ANSWER).map_err(|source| Failure::Socket { socket, source })
            };
            run_on(config, connect, stop, ready).await
        }
        CardBacking::Vfio(address) => {
            let expected = config.card.pci_id;
            let take =
                move || Vfio::open(address, expected).map_err(|source| Failure::Slot { address, source });
            run_on(config, take, stop, ready).await
        }
    }
}

/// As [`run`], on the card behind the backing that `reach` gives.
async fn run_on<B: Backing + Send + 'static>(
    config: Config,
    reach: impl FnOnce() -> Result<B, Failure> + Send + 'static,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(Addresses),
) -> Result<(), Failure> {
    let started = (std::time::SystemTime::now(), std::time::Instant::now());
    let mut supervision = Supervision::from_environment()?;
    // From here on SIGHUP does not end the process; what it asks for is done once everything is up.
    let hangup = signal(SignalKind::hangup())?;
    let tls = Tls::load(&config)?.map(Arc::new);
    supervision.status("Reaching the card and testing it");
    let address = config.api.listen;
    let passed = passed::sockets(address, config.peer.address.listens())?;
    let listener = match passed.api {
        Some(listener) => listener,
        None => TcpListener::bind(address).map_err(|source| Failure::ApiAddress { address, source })?,
    };
    let api_address = listener.local_addr()?;

    let locking = match config.vault.memory {
        KeyMemory::Secret => Locking::Secret,
        KeyMemory::Locked => Locking::Locked,
        KeyMemory::Best if config.vault.unlocked_memory_lets_keys_reach_swap => Locking::Preferred,
        KeyMemory::Best => Locking::Required,
    };
    tokio::pin!(stop);
    // Both may take long: secret memory is made page by page, and a card has its times.
    let preparing = {
        let config = config.clone();
        aside("prepare", move || {
            let vault = Vault::new(config.vault.bytes, locking)?;
            log::info!(id = "vault.memory"; "memory for keys: {} bytes, {}", vault.size(), vault.kind());
            if locking != Locking::Locked && vault.kind() != MemoryKind::Secret {
                log::warn!(id = "vault.not_secret"; "the kernel gives no secret memory (memfd_secret), or not so much of it");
            }
            // The ledger before the card: one that is refused leaves the card alone.
            let mut ledger = open_ledger(&config)?;
            let durable = ledger.load()?;
            losses::say_counted(&durable);
            let audit = open_audit(&config)?;
            Ok((vault, ledger, durable, audit, open_card(reach()?, &config)?))
        })
    };
    let (vault, ledger, durable, audit, mut card) = tokio::select! {
        prepared = preparing => prepared?,
        () = stop.as_mut() => {
            supervision.stopping();
            log::info!(id = "daemon.stopped_early"; "stopped before the card was up");
            return Ok(());
        }
    };

    let (peer_events, peer) = mpsc::channel(QUEUE);
    let endpoint = match passed.peer {
        Some(listener) => Endpoint::Passed(listener),
        None => endpoint_of(&config.peer),
    };
    let link = Link::start(endpoint, times_of(&config), tls.clone(), peer_events).await?;

    let (port, mut calls) = CallPort::new(usize::try_from(config.api.most_waiting_calls).unwrap_or(QUEUE));
    let (server, server_handle) =
        api::serve(api::Settings::of(&config), listener, tls.clone(), port, &supervision.api)?;
    let serving = tokio::spawn(server);
    ready(Addresses { api: api_address, peer: link.local_address() });
    supervision.ready();
    let (reloads_in, reloads) = mpsc::channel(RELOADS);
    let (orders_in, orders) = mpsc::channel(RELOADS);
    let keeper = tokio::spawn(keep(tls.clone(), hangup, orders, reloads_in));
    let mut watch = Watch::new(&config.module, &card, tls.clone(), orders_in, started);

    let (operator_in, mut operator) = mpsc::channel(OPERATORS);
    let page_in = operator_in.clone();
    let socket = operator::socket(config.operator.socket.clone());
    let gate = socket
        .map(|socket| operator::serve(socket, config.operator.group.as_deref(), operator_in))
        .transpose()?;

    let page = config.operator.http.map(|address| operator::http::serve(address, page_in)).transpose()?;
    let page = page.map(|(_, server, handle)| (tokio::spawn(server), handle));

    let end = async {
        let light = first_light::peer_serial(
            &mut card,
            &mut calls,
            &mut operator,
            First { watch: &mut watch, vault: &vault, ledger: durable.write_number },
            &mut supervision,
            stop.as_mut(),
        )
        .await?;
        let Some(peer_serial) = light else {
            supervision.stopping();
            return card.close().map_err(|e| super::CardEnd::NotClosed(e).into());
        };
        watch.peer_serial(peer_serial);
        let facts = facts(&mut card, peer_serial)?;
        say_whether_the_ledger_is_the_one(card.identity().has_cell, facts.cell, durable.write_number);
        let settings = agreement_settings(&config, facts, &vault);
        let (reports_in, reports) = mpsc::channel(QUEUE);
        let (stopped_in, stopped) = mpsc::unbounded_channel();
        let (wiped_in, wiped) = mpsc::unbounded_channel();
        let endpoints: HashMap<_, _> =
            config.kms.iter().map(|kms| (kms.uri.clone(), kms.reached())).collect();
        let pusher = Pusher::new(config.push.clone(), &config.transport, tls, locking, reports_in);
        let mut auditing = Auditing::default();
        let (version, module) = (env!("CARGO_PKG_VERSION").to_owned(), config.module.name.clone());
        auditing.note(Who::Daemon, What::DaemonStarted { version, module, card: card.identity().serial });
        let engine = Engine {
            vault: vault.clone(),
            zeroizing: None,
            batches: Batches::opened_at(durable.write_number),
            core: Core::new(settings, durable),
            writer: Writer::start(ledger, audit)?,
            auditing,
            keys: Keys::default(),
            card: CardPort::start(card, config.card.slots, vault.clone(), supervision.card.clone())?,
            streams: Streams::new(pusher, endpoints, stopped_in, wiped_in),
            inputs: Inputs { calls, peer, reports, stopped, wiped, operator, reloads },
            waiting: HashMap::new(),
            next_call: 0,
            orders: std::collections::VecDeque::new(),
            link_state: None,
            secret_key_rate: 0,
            saying: Saying::default(),
            losses: Losses::default(),
            supervision,
            watch,
            out: Output::default(),
            link,
        };
        engine.run(stop).await
    }
    .await;
    keeper.abort();
    if let Some(gate) = gate {
        gate.finish(LAST_ANSWERS).await;
    }
    if let Some((serving, handle)) = page {
        handle.stop(false).await;
        serving.abort();
    }
    server_handle.stop(false).await;
    serving.abort();
    end
}

/// The ledger, where the configuration or else systemd says.
fn open_ledger(config: &Config) -> Result<Box<dyn Ledger + Send>, Failure> {
    if config.ledger.in_memory_forgets_everything {
        log::warn!(
            id = "ledger.in_memory"; "the ledger is kept in memory (ledger.in_memory_forgets_everything): the next start ends all key streams and \
             burns what the cards hold"
        );
        return Ok(Box::new(MemoryLedger::new()));
    }
    // The unit has one. It is named after the card's PCI address, so that a colon in it separates nothing.
    let given = std::env::var_os("STATE_DIRECTORY").filter(|given| !given.is_empty()).map(PathBuf::from);
    let directory = config.ledger.directory.clone().or(given).ok_or(Failure::NoLedger)?;
    let ledger = FileLedger::open(&directory)?;
    if ledger.is_new() {
        log::warn!(id = "ledger.new"; "ledger {}: there was none; a new one is begun", ledger.file().display());
    } else {
        log::info!(id = "ledger.opened"; "ledger {}: at write {}", ledger.file().display(), ledger.write_number());
    }
    Ok(Box::new(ledger))
}

/// The audit record, where the configuration or else systemd says, or beside the ledger.
fn open_audit(config: &Config) -> Result<Option<AuditFile>, Failure> {
    let given = std::env::var_os("STATE_DIRECTORY").filter(|given| !given.is_empty()).map(PathBuf::from);
    let beside = given.or_else(|| config.ledger.directory.clone()).map(|folder| folder.join("audit"));
    let Some(directory) = config.audit.directory.clone().or(beside) else {
        log::warn!(id = "audit.none"; "there is no audit record: give audit.directory");
        return Ok(None);
    };
    let most_files = config.audit.most_files.into();
    Ok(Some(AuditFile::open(&directory, AUDIT_FILE, most_files).map_err(LedgerError::from)?))
}

/// What the card's cell tells of the ledger.
fn say_whether_the_ledger_is_the_one(has_cell: bool, cell: u64, write_number: u64) {
    if !has_cell {
        log::warn!(
            id = "card.no_cell"; "this card has no cell: that a ledger was lost or restored from a backup is seen only where the other end \
             remembers more. Never put an old ledger back without removing the other end's as well"
        );
    } else if cell > write_number {
        log::warn!(
            id = "ledger.behind_card"; "the card has seen write {cell} of a ledger, and this ledger is at write {write_number}: it is new, or was \
             restored from a backup, or belongs to another card"
        );
    }
}

fn open_card<B: Backing>(backing: B, config: &Config) -> Result<Card<B>, Failure> {
    let options = CardOptions {
        pci: config.card.pci_id,
        serial: config.card.expected_serial,
        peer_serial: config.card.expected_peer_serial,
        slots: config.card.slots,
        allow_test_key: config.card.accept_test_key,
        grace: config.card.grace,
        ..CardOptions::default()
    };
    let card = Card::open(backing, options)?;
    let identity = card.identity();
    log::info!(
        id = "card.opened"; "card at {}: serial number {:#x}, {:?}, contract version {}.{}, blocks of up to {} bytes, retains {} bytes",
        card.location(),
        identity.serial,
        identity.role,
        identity.version.0,
        identity.version.1,
        identity.block_max,
        identity.retention_bytes
    );
    if cfg!(feature = "no-wipe-for-tests") && !identity.test_key {
        return Err(std::io::Error::other(
            "this build leaves key in memory, and takes no card but one with test key",
        )
        .into());
    }
    if identity.test_key {
        log::warn!(id = "card.test_key"; "this card delivers test key: nothing that this daemon hands out is secret");
    }
    Ok(card)
}

/// What the key agreement must know of the card before it starts.
fn facts<B: Backing>(card: &mut Card<B>, peer_serial: u64) -> Result<CardFacts, Failure> {
    let identity = card.identity().clone();
    let read = |fault| Failure::Card(super::CardEnd::OutOfOrder(fault));
    Ok(CardFacts {
        serial: identity.serial,
        peer_serial,
        cell: if identity.has_cell { card.cell().map_err(read)? } else { 0 },
        newest: card.newest().map_err(read)?.map(super::inputs::agreed_name),
        retention: Capacity { bytes: identity.retention_bytes, blocks: u64::from(identity.retention_blocks) },
    })
}

fn agreement_settings(config: &Config, card: CardFacts, vault: &Vault) -> agreement::Settings {
    let role = match config.module.role {
        Role::Leader => agreement::Role::Leader,
        Role::Follower => agreement::Role::Follower,
    };
    let local_kms = config.kms.iter().map(|kms| kms.uri.clone()).collect();
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let streams = &config.streams;
    agreement::Settings {
        vault_bytes: vault.size() as u64,
        default_chunk_size: streams.default_chunk_size,
        largest_chunk_size: streams.largest_chunk_size,
        default_timeout_ms: streams.default_timeout_ms,
        greatest_timeout_ms: streams.greatest_timeout_ms,
        default_ttl_s: streams.default_ttl_s,
        greatest_ttl_s: streams.greatest_ttl_s,
        default_priority: streams.default_priority,
        half_open_expiry_ms: u64::from(streams.half_open_expiry_s) * 1_000,
        most_streams: count(streams.most_streams),
        most_streams_per_kms: count(streams.most_per_kms),
        most_half_open_per_kms: count(streams.most_half_open_per_kms),
        most_closed_ids: count(streams.most_closed_remembered),
        most_waiting_calls: count(config.api.most_waiting_calls),
        most_waiting_calls_per_kms: count(config.api.most_waiting_calls_per_kms),
        window_bytes: u64::from(streams.window_bytes),
        window_chunks: u64::from(streams.window_chunks),
        notices: config.notices.enabled,
        report_interval_ms: REPORT_INTERVAL_MS,
        ..agreement::Settings::new(config.module.name.clone(), role, card, clock::boot_id(), local_kms)
    }
}

fn endpoint_of(peer: &config::Peer) -> Endpoint {
    match (&peer.address, &peer.through) {
        (PeerAddress::Listen(address), _) => Endpoint::Listen(*address),
        (PeerAddress::Connect(_), Some(socket)) => Endpoint::Through(socket.clone()),
        (PeerAddress::Connect(server), None) => Endpoint::Connect(server.to_string()),
    }
}

fn times_of(config: &Config) -> Times {
    let defaults = peer::Times::default();
    let silence = Duration::from_millis(config.peer.silence_deadline_ms.into());
    Times {
        keep_alive: defaults.keep_alive.min(silence / 4),
        silence,
        patience: silence,
        back_off: (defaults.back_off.0, Duration::from_millis(config.peer.reconnect_greatest_ms.into())),
    }
}
