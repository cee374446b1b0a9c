//! The log: entries with fields in systemd's journal, readable lines elsewhere. Under systemd the message's id (docs/messages.md)
//! is the field `ID`.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::recent::Recorder;

/// Where the journal takes entries with fields.
const JOURNAL: &str = "/run/systemd/journal/socket";

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

/// Whether somebody takes entries there. A unit's view of the files may not have it, and what is sent to nobody is lost: standard
/// error is the journal's own stream then.
fn can_be_reached(socket: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|client| client.connect(socket).is_ok())
}

/// Starts the log: what is of `level` or weightier is written. What operators see of the last events does not depend on it.
///
/// # Errors
/// When there is a log already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    let journal = (connected_to_journal() && can_be_reached(Path::new(JOURNAL)))
        .then(JournalLog::new)
        .and_then(Result::ok);
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
    use std::os::unix::net::UnixDatagram;

    use log::{Level, LevelFilter, Log, Metadata};

    use super::{Filtered, can_be_reached};

    #[test]
    fn a_journal_that_the_unit_cannot_see_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!can_be_reached(&path), "there is none");
        let journal = UnixDatagram::bind(&path).unwrap();
        assert!(can_be_reached(&path));
        drop(journal);
        assert!(!can_be_reached(&path), "nobody listens any more");
    }

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
