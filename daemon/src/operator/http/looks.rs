//! Asking the engine, so seldom that it does not matter how many ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Look;
use crate::operator::FromOperator;
use crate::picture::{Picture, Stream};

/// Whoever asks within this time gets what the one before got.
const FRESH: Duration = Duration::from_millis(200);
/// Time the engine has to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The engine did not answer: it hangs, or is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon does not answer; look at its log")]
pub(super) struct Silent;

/// What was seen last.
#[derive(Debug)]
pub(super) struct Looks {
    engine: mpsc::Sender<FromOperator>,
    picture: Mutex<Option<(Instant, Arc<Picture>)>>,
    streams: Mutex<Option<(Instant, Arc<Vec<Stream>>)>>,
}

impl Looks {
    pub(super) fn new(engine: mpsc::Sender<FromOperator>) -> Self {
        Self { engine, picture: Mutex::new(None), streams: Mutex::new(None) }
    }

    pub(super) async fn picture(&self) -> Result<Arc<Picture>, Silent> {
        self.look(&self.picture, Look::Picture).await
    }

    pub(super) async fn streams(&self) -> Result<Arc<Vec<Stream>>, Silent> {
        self.look(&self.streams, Look::Streams).await
    }

    async fn look<T>(
        &self,
        seen: &Mutex<Option<(Instant, Arc<T>)>>,
        what: impl FnOnce(oneshot::Sender<T>) -> Look,
    ) -> Result<Arc<T>, Silent> {
        let asked = timeout(ANSWER, async {
            // One asks at a time, and the others get its answer.
            let mut seen = seen.lock().await;
            if let Some((at, value)) = seen.as_ref()
                && at.elapsed() < FRESH
            {
                return Ok(Arc::clone(value));
            }
            let (reply, answer) = oneshot::channel();
            self.engine.send(FromOperator::Look(what(reply))).await.map_err(|_| Silent)?;
            let value = Arc::new(answer.await.map_err(|_| Silent)?);
            *seen = Some((Instant::now(), Arc::clone(&value)));
            Ok(value)
        });
        asked.await.unwrap_or(Err(Silent))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::{FRESH, Look, Looks, Silent};
    use crate::operator::FromOperator;
    use crate::picture::example;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_ask_at_once_are_one_question_to_the_engine() {
        let (engine, mut asked) = mpsc::channel(8);
        let looks = std::sync::Arc::new(Looks::new(engine));
        let answering = tokio::spawn(async move {
            let mut count = 0;
            while let Some(FromOperator::Look(Look::Picture(reply))) = asked.recv().await {
                count += 1;
                let _ = reply.send(example());
            }
            count
        });
        for _ in 0..2 {
            for _ in 0..1_000 {
                assert!(looks.picture().await.is_ok());
            }
            tokio::time::sleep(FRESH).await;
        }
        drop(looks);
        assert_eq!(answering.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_is_told_in_time() {
        let (engine, _asked) = mpsc::channel(8);
        assert_eq!(Looks::new(engine).picture().await.unwrap_err(), Silent);
        let (engine, asked) = mpsc::channel(8);
        drop(asked);
        assert_eq!(Looks::new(engine).streams().await.unwrap_err(), Silent);
    }
}
