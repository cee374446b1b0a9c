//! The log: entries with fields in systemd's journal, readable lines elsewhere. Under systemd the message's id (docs/messages.md)
//! is the field `ID`.

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::recent::Recorder;

/// What is written.
struct Filtered<L> {
    logger: L,
    level: LevelFilter,
}

impl<L> Filtered<L> {
    /// The HTTP library calls every hasty client an error; the API says itself what matters.
    fn level_of(&self, target: &str) -> LevelFilter {
        match target.split("::").next() {
            Some("actix_http") => LevelFilter::Off,
            Some("actix_server") => self.level.min(LevelFilter::Warn),
            _ => self.level,
        }
    }
}

impl<L: Log> Log for Filtered<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level_of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Starts the log: what is of `level` or weightier is written. What operators see of the last events does not depend on it.
///
/// # Errors
/// When there is a log already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    // Standard error is the journal's own stream, and the journal takes entries beside it.
    let journal = connected_to_journal().then(JournalLog::new).and_then(Result::ok);
    let lines = || env_logger::Builder::new().filter_level(LevelFilter::Trace).build();
    match journal {
        Some(logger) => log::set_boxed_logger(Box::new(Recorder(Filtered { logger, level })))?,
        None => log::set_boxed_logger(Box::new(Recorder(Filtered { logger: lines(), level })))?,
    }
    log::set_max_level(level.max(LevelFilter::Info));
    Ok(())
}

#[cfg(test)]
mod tests {
    use log::{Level, LevelFilter, Log, Metadata};

    use super::Filtered;

    #[test]
    fn a_library_that_cries_wolf_is_not_heard_and_the_level_holds_for_the_rest() {
        let logger = env_logger::Builder::new().filter_level(LevelFilter::Trace).build();
        let filtered = Filtered { logger, level: LevelFilter::Info };
        let enabled =
            |target, level| filtered.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("qkd_daemon::engine", Level::Info) && !enabled("qkd_daemon::engine", Level::Debug));
        assert!(!enabled("actix_http::h1", Level::Error));
        assert!(enabled("actix_server", Level::Warn) && !enabled("actix_server::worker", Level::Info));
    }
}
