//! Reads certificates again when told to (SIGHUP, or by an operator), and looks every day at how long they are good.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::Tls;

const DAY: Duration = Duration::from_secs(86_400);

/// Somebody wants everything to be read again, and to hear whether it was: `Ok(false)`, there is no TLS.
pub(crate) type ReloadOrder = oneshot::Sender<Result<bool, String>>;

/// Works until it is dropped, and tells `reloads` when certificates were read anew: on SIGHUP, or by order. Without TLS there is
/// nothing to read again, which is said.
pub(crate) async fn keep(
    tls: Option<Arc<Tls>>,
    mut hangup: Signal,
    mut orders: mpsc::Receiver<ReloadOrder>,
    reloads: mpsc::Sender<()>,
) {
    if let Some(tls) = &tls {
        tls.say_start();
        tls.say_expiries(SystemTime::now(), true);
    }
    let mut days = interval(DAY);
    days.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first is at once, and has been said.
    days.tick().await;
    loop {
        let (who, order) = tokio::select! {
            asked = hangup.recv() => match asked {
                Some(()) => ("SIGHUP", None),
                None => return std::future::pending().await,
            },
            Some(order) = orders.recv() => ("operator", Some(order)),
            _ = days.tick() => {
                if let Some(tls) = &tls {
                    tls.say_expiries(SystemTime::now(), false);
                }
                continue;
            }
        };
        let tls = tls.clone();
        // Files and the service manager's socket may keep it waiting, and key must not wait with it.
        let done = tokio::task::spawn_blocking(move || reload(tls.as_deref(), who)).await;
        let done = done.unwrap_or_else(|_| Err("the reload has panicked; look at the log".into()));
        if done == Ok(true) {
            // An engine that is so far behind, or gone, records one less.
            let _ = reloads.try_send(());
        }
        if let Some(order) = order {
            // Who does not wait any more does not mind.
            let _ = order.send(done);
        }
    }
}

/// Returns whether certificates were read anew, or why they cannot be used.
fn reload(tls: Option<&Tls>, who: &str) -> Result<bool, String> {
    tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading)]);
    let read = tls.map(Tls::reload);
    match &read {
        None => log::info!(id = "reload.nothing"; "{who}: there is no [tls], so that nothing is read again"),
        Some(Ok(())) => {
            log::info!(id = "reload.done"; "{who}: certificates are read again; new connections use them");
            if let Some(tls) = tls {
                tls.say_expiries(SystemTime::now(), true);
            }
        }
        Some(Err(error)) => {
            log::error!(
                id = "reload.refused";
                "{who}: the old certificates stay in use, the new ones cannot be used: {error}"
            );
        }
    }
    tell(&[NotifyState::Ready]);
    read.map_or(Ok(false), |read| read.map(|()| true).map_err(|error| error.to_string()))
}

/// Without a service manager that wants to know, nobody is told.
fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        log::debug!("the service manager cannot be told of the reload: {error}");
    }
}
