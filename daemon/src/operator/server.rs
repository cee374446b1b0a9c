//! Serves the socket: few connections at once, one line each way, a deadline for each step.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Gid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::access::{self, Caller};
use super::protocol::{Answer, LONGEST_REQUEST, Request, line, parse};
use super::{FromOperator, Pending};

/// Connections at once. More wait unaccepted until one ends, which each does within its deadlines.
const MOST_CONNECTIONS: usize = 8;
/// Time an operator's program has to send its line, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time the engine has to answer. Zeroizing waits for the card.
const ANSWER: Duration = Duration::from_secs(60);
/// After an error of the system, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Owner and group.
const MODE: u32 = 0o660;

/// The operator's socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The socket cannot be made.
    #[error("the operator's socket {} cannot be had ({what}): {source}; set operator.socket to a path in a directory that this user may write", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's word for it.
        source: io::Error,
    },
    /// The group is not known.
    #[error("operator.group names {0:?}, a group that this system does not know")]
    Group(String),
}

/// Keeps the socket; dropping it removes the file, and no new connection is taken.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    accepting: tokio::task::JoinHandle<()>,
    places: Arc<Semaphore>,
}

impl Gate {
    /// Lets answers that are being written go out, `longest` at most.
    pub async fn finish(&self, longest: Duration) {
        self.accepting.abort();
        let all = u32::try_from(MOST_CONNECTIONS).unwrap_or(u32::MAX);
        let _ = timeout(longest, self.places.acquire_many(all)).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        // It may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Begins to serve at `path`. Requests go to `engine`. Call it within a tokio runtime.
///
/// # Errors
/// See [`OperatorError`].
pub fn serve(
    path: PathBuf,
    group: Option<&str>,
    engine: mpsc::Sender<FromOperator>,
) -> Result<Gate, OperatorError> {
    let group = match group {
        Some(name) => Some(access::group(name).ok_or_else(|| OperatorError::Group(name.to_owned()))?),
        None => None,
    };
    let listener = listen(&path, group)?;
    log::info!(id = "operator.served"; "operators are served at {}", path.display());
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let accepting = tokio::spawn(accept(listener, group, engine, Arc::clone(&places)));
    Ok(Gate { path, accepting, places })
}

fn listen(path: &Path, group: Option<Gid>) -> Result<UnixListener, OperatorError> {
    let fail = |what| move |source| OperatorError::Socket { path: path.to_owned(), what, source };
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        // One that nobody serves any more.
        std::fs::remove_file(path).map_err(fail("removing an old socket"))?;
    }
    let listener = UnixListener::bind(path).map_err(fail("listening"))?;
    // Until here the file has what the umask leaves; whoever connects is asked for in any case.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
        .map_err(fail("setting its mode"))?;
    if let Some(group) = group {
        chown(path, None, Some(group.as_raw())).map_err(fail("giving it to operator.group"))?;
    }
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    group: Option<Gid>,
    engine: mpsc::Sender<FromOperator>,
    places: Arc<Semaphore>,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let engine = engine.clone();
                tokio::spawn(async move {
                    converse(stream, group, &engine).await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!(id = "operator.accept_failed"; "operator's socket: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, group: Option<Gid>, engine: &mpsc::Sender<FromOperator>) {
    let caller = match Caller::of(&stream) {
        Ok(caller) => caller,
        Err(error) => {
            log::warn!(id = "operator.caller_unknown"; "operator's socket: the kernel does not say who calls: {error}");
            return;
        }
    };
    let allowed = tokio::task::spawn_blocking(move || caller.may_ask(group));
    if !timeout(PATIENCE, allowed).await.is_ok_and(|allowed| allowed.unwrap_or(false)) {
        log::warn!(id = "operator.refused"; "operator's socket: {caller} may not ask");
        // A full queue loses it; the log has it.
        let _ = engine.try_send(FromOperator::Refused(caller));
        let reason = format!(
            "{caller} may not ask: only root, the daemon's user and the members of operator.group may"
        );
        say(&mut stream, &Answer::Refused { reason }).await;
        return;
    }
    let answer = match timeout(PATIENCE, read_line(&mut stream)).await {
        Ok(Ok(text)) => match parse::<Request>(&text) {
            Ok(request) => ask(caller, request, engine).await,
            Err(bad) => Answer::Refused { reason: bad.to_string() },
        },
        Ok(Err(error)) => Answer::Refused { reason: error.to_string() },
        Err(_) => Answer::Refused { reason: format!("no request came within {} s", PATIENCE.as_secs()) },
    };
    say(&mut stream, &answer).await;
}

async fn ask(caller: Caller, request: Request, engine: &mpsc::Sender<FromOperator>) -> Answer {
    if request.changes_something() {
        log::info!(id = "operator.asked"; "operator's socket: {caller} asks for {request:?}");
    } else {
        log::debug!(id = "operator.asked"; "operator's socket: {caller} asks for {request:?}");
    }
    let (reply, answer) = oneshot::channel();
    let asked = timeout(ANSWER, async {
        engine.send(FromOperator::Request(Pending { caller, request, reply })).await.ok()?;
        answer.await.ok()
    });
    match asked.await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Refused { reason: "the daemon is on its way out; look at its log".into() },
        Err(_) => {
            Answer::Refused { reason: format!("the daemon did not answer within {} s", ANSWER.as_secs()) }
        }
    }
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut piece = [0; 512];
    loop {
        let octets = stream.read(&mut piece).await?;
        text.extend_from_slice(piece.get(..octets).unwrap_or_default());
        if octets == 0 || text.contains(&b'\n') {
            return Ok(text);
        }
        if text.len() > LONGEST_REQUEST {
            return Err(io::Error::other(format!("the request is longer than {LONGEST_REQUEST} octets")));
        }
    }
}

async fn say(stream: &mut UnixStream, answer: &Answer) {
    if let Ok(text) = line(answer) {
        // Whoever does not wait for the answer does not mind.
        let _ = timeout(PATIENCE, stream.write_all(text.as_bytes())).await;
    }
}
