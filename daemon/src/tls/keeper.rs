//! Reads certificates again when told to (SIGHUP), and looks every day at how long they are good.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::Tls;

const DAY: Duration = Duration::from_secs(86_400);

/// Works until it is dropped, and tells `reloads` when certificates were read anew. Without TLS, SIGHUP only says that there is
/// nothing to read again.
pub(crate) async fn keep(tls: Option<Arc<Tls>>, mut hangup: Signal, reloads: mpsc::Sender<()>) {
    if let Some(tls) = &tls {
        tls.say_start();
        tls.say_expiries(SystemTime::now(), true);
    }
    let mut days = interval(DAY);
    days.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first is at once, and has been said.
    days.tick().await;
    loop {
        let asked = tokio::select! {
            asked = hangup.recv() => asked,
            _ = days.tick() => {
                if let Some(tls) = &tls {
                    tls.say_expiries(SystemTime::now(), false);
                }
                continue;
            }
        };
        if asked.is_none() {
            return std::future::pending().await;
        }
        let tls = tls.clone();
        // Files and the service manager's socket may keep it waiting, and key must not wait with it.
        let done = tokio::task::spawn_blocking(move || reload(tls.as_deref())).await;
        if let Ok(true) = done {
            // An engine that is so far behind, or gone, records one less.
            let _ = reloads.try_send(());
        }
    }
}

/// Returns whether certificates were read anew.
fn reload(tls: Option<&Tls>) -> bool {
    tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading)]);
    let read = tls.map(Tls::reload);
    match &read {
        None => log::info!("SIGHUP: there is no [tls], so that nothing is read again"),
        Some(Ok(())) => {
            log::info!("SIGHUP: certificates are read again; new connections use them");
            if let Some(tls) = tls {
                tls.say_expiries(SystemTime::now(), true);
            }
        }
        Some(Err(error)) => {
            log::error!("SIGHUP: the old certificates stay in use, the new ones cannot be used: {error}")
        }
    }
    tell(&[NotifyState::Ready]);
    matches!(read, Some(Ok(())))
}

/// Without a service manager that wants to know, nobody is told.
fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        log::debug!("the service manager cannot be told of the reload: {error}");
    }
}
