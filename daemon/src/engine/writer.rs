//! The thread that writes the ledger. A disk may take its time: the engine goes on meanwhile and gathers the next batch,
//! but does nothing of what depends on a write before that is durable.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Duration, Instant, sleep_until};

use crate::agreement::Record;
use crate::audit::{AuditFile, Event};
use crate::ledger::{Ledger, LedgerError};
use crate::timing;

/// A write that takes longer is said, ...
const SLOW: Duration = Duration::from_secs(3);
/// ... and one that takes so long is given up.
const LONGEST: Duration = Duration::from_secs(30);

/// A write of so many records shows that many key streams are served: what has come meanwhile is as many again, ...
const MANY_RECORDS: usize = 16;
/// ... and the next write begins no sooner than so long after it did. A page of the ledger is then written once for what lies on it
/// and not once for each; key comes that much later.
const APART: Duration = Duration::from_millis(16);

/// What one write makes durable.
type Order = (Vec<Record>, Vec<Event>);

/// What [`Writer::next`] has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The write under way is durable, as this number.
    Durable(u64),
    /// The next write need not wait any longer.
    Rested,
}

/// The way to the ledger and to the audit record. One write is under way at a time.
pub(super) struct Writer {
    orders: Option<Sender<Order>>,
    done: UnboundedReceiver<Result<u64, LedgerError>>,
    thread: Option<JoinHandle<()>>,
    /// Since when a write is under way, and whether it was said that it takes long.
    writing: Option<(Instant, bool)>,
    /// When the next write may begin.
    rests_until: Option<Instant>,
}

impl Writer {
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(
        mut ledger: Box<dyn Ledger + Send>,
        mut audit: Option<AuditFile>,
    ) -> std::io::Result<Self> {
        let (orders, ordered) = channel::<Order>();
        let (finished, done) = unbounded_channel();
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || {
            let mut number = 0;
            for (writes, events) in ordered {
                let begun = timing::now();
                let result = write(ledger.as_mut(), audit.as_mut(), &writes, &events, &mut number);
                let done = timing::now();
                let failed = result.is_err();
                if finished.send(result).is_err() || failed {
                    break;
                }
                timing::took(begun, done, format_args!("write {number}"));
            }
        })?;
        Ok(Self { orders: Some(orders), done, thread: Some(thread), writing: None, rests_until: None })
    }

    /// Begins to make `writes` and `events` durable. None must be under way.
    pub(super) fn begin(&mut self, writes: Vec<Record>, events: Vec<Event>) {
        let now = Instant::now();
        self.writing = Some((now, false));
        self.rests_until = (writes.len() >= MANY_RECORDS).then(|| now + APART);
        if let Some(orders) = &self.orders {
            // A thread that has ended says so by the end of its answers.
            let _ = orders.send((writes, events));
        }
    }

    /// Whether a write is under way: nothing that comes after it may overtake it.
    pub(super) fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether the next write should wait for more to come.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| until > Instant::now())
    }

    /// How long a write is under way; `None`: none is.
    pub(super) fn busy_for(&self, now: Instant) -> Option<Duration> {
        self.writing.map(|(since, _)| now.saturating_duration_since(since))
    }

    /// What comes next: that the write under way is durable, or that the next one need not wait any longer. Waits for ever when there
    /// is neither. May be dropped unfinished.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub(super) async fn next(&mut self) -> Result<Next, LedgerError> {
        if self.writing.is_some() {
            let answer = self.done.recv().await;
            self.writing = None;
            let number = answer.unwrap_or_else(|| Err(LedgerError::Thread { what: "no answer came".into() }));
            return number.map(Next::Durable);
        }
        let Some(until) = self.rests_until else { return std::future::pending().await };
        sleep_until(until).await;
        self.rests_until = None;
        Ok(Next::Rested)
    }

    /// When [`Writer::look`] wants to be called, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        self.writing.map(|(since, said)| since + if said { LONGEST } else { SLOW })
    }

    /// Says that a write takes long, and gives it up in the end.
    ///
    /// # Errors
    /// [`LedgerError::Stalled`].
    pub(super) fn look(&mut self, now: Instant) -> Result<(), LedgerError> {
        let Some((since, said)) = &mut self.writing else { return Ok(()) };
        let after = now.saturating_duration_since(*since);
        if after >= LONGEST {
            return Err(LedgerError::Stalled { after });
        }
        if after >= SLOW && !std::mem::replace(said, true) {
            log::error!(
                id = "ledger.slow"; "the ledger's storage has not finished a write for {} s; nothing is answered, granted or acknowledged \
                 meanwhile. Look at the disk",
                after.as_secs()
            );
        }
        Ok(())
    }

    /// The last events, behind a write that may be under way.
    pub(super) fn last_words(&mut self, events: Vec<Event>) {
        if let Some(orders) = &self.orders {
            let _ = orders.send((Vec::new(), events));
        }
    }

    /// Lets the thread end, so that the file is closed in order. One that hangs in a write is left behind.
    pub(super) async fn close(&mut self, longest: Duration) {
        self.orders = None;
        let ended = async { while self.done.recv().await.is_some() {} };
        if tokio::time::timeout(longest, ended).await.is_err() {
            log::error!(
                id = "ledger.stalled"; "the ledger's storage does not answer; the next start will see what became of the last write"
            );
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(id = "ledger.thread_panicked"; "the ledger's thread panicked");
        }
    }
}

/// The ledger first: an event tells of what has become so. Nothing of either is acted on before both are durable.
fn write(
    ledger: &mut dyn Ledger,
    audit: Option<&mut AuditFile>,
    writes: &[Record],
    events: &[Event],
    number: &mut u64,
) -> Result<u64, LedgerError> {
    if !writes.is_empty() || events.is_empty() {
        *number = ledger.commit(writes)?;
    }
    if let Some(audit) = audit {
        audit.append(events)?;
    }
    Ok(*number)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::{LONGEST, MANY_RECORDS, Next, SLOW, Writer};
    use crate::agreement::{Durable, Record};
    use crate::ledger::{Ledger, LedgerError};
    use tokio::time::{Duration, Instant};

    /// A ledger that commits when it is told to.
    struct Slow {
        go: Receiver<()>,
        number: u64,
    }

    impl Ledger for Slow {
        fn load(&mut self) -> Result<Durable, LedgerError> {
            Ok(Durable::default())
        }

        fn commit(&mut self, _: &[Record]) -> Result<u64, LedgerError> {
            self.go.recv().map_err(|_| LedgerError::NumbersUsedUp)?;
            self.number += 1;
            Ok(self.number)
        }
    }

    fn slow() -> (Writer, Sender<()>) {
        let (go, waits) = channel();
        (Writer::start(Box::new(Slow { go: waits, number: 0 }), None).unwrap(), go)
    }

    #[tokio::test]
    async fn a_write_is_done_when_the_ledger_says_so_and_not_before() {
        let (mut writer, go) = slow();
        writer.begin(Vec::new(), Vec::new());
        assert!(writer.is_busy());
        let waited = tokio::time::timeout(Duration::from_millis(20), writer.next()).await;
        assert!(waited.is_err(), "nothing was durable yet");
        go.send(()).unwrap();
        assert_eq!(writer.next().await.unwrap(), Next::Durable(1));
        assert!(!writer.is_busy());
        drop(go);
        writer.begin(Vec::new(), Vec::new());
        assert!(matches!(writer.next().await, Err(LedgerError::NumbersUsedUp)));
        writer.begin(Vec::new(), Vec::new());
        assert!(
            matches!(writer.next().await, Err(LedgerError::Thread { .. })),
            "it never goes on after an error"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_write_of_many_records_the_next_one_waits_for_company_but_not_for_ever() {
        let (mut writer, go) = slow();
        for (records, rests) in [(MANY_RECORDS - 1, false), (MANY_RECORDS, true), (1, false)] {
            writer.begin(vec![Record::WriteNumber(0); records], Vec::new());
            go.send(()).unwrap();
            assert!(matches!(writer.next().await, Ok(Next::Durable(_))), "a rest keeps back no answer");
            assert_eq!(writer.rests(), rests, "{records}");
            if rests {
                let next = tokio::time::timeout(SLOW, writer.next()).await.expect("it ends");
                assert_eq!(next.unwrap(), Next::Rested);
            }
            assert!(!writer.rests() && !writer.is_busy());
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_said_and_given_up_in_the_end() {
        let (mut writer, go) = slow();
        assert_eq!(writer.due(), None);
        writer.begin(Vec::new(), Vec::new());
        let due = writer.due().unwrap();
        assert!(due <= Instant::now() + SLOW);
        writer.look(due).unwrap();
        let last = writer.due().unwrap();
        assert!(last > due && writer.look(due + SLOW).is_ok());
        assert!(matches!(writer.look(last), Err(LedgerError::Stalled { after }) if after >= LONGEST));
        writer.close(Duration::from_millis(1)).await;
        drop(go);
    }
}
