//! Work that blocks for long, beside the loop that listens for the order to stop.

use tokio::sync::oneshot;

use super::exit::Failure;

/// Does `work` on a thread of its own. When the future is dropped, nobody waits for the thread any more: it ends by itself,
/// or with the process.
///
/// # Errors
/// What `work` answers, or that the system has no thread to give.
pub(super) async fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        // Nobody waits: what was made is given back here.
        drop(tell.send(work()));
    })?;
    told.await.unwrap_or_else(|_| Err(std::io::Error::other(format!("the thread {name} panicked")).into()))
}
