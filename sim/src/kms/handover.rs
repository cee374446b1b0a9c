//! How the KMS that opened a stream tells its ID to the other one. Real KMSs talk to each other; these use a file.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

/// Time between two looks into the file.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Octets of the largest file that is read.
const LARGEST: u64 = 4 << 20;

/// Where IDs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Lines of standard input.
    StandardInput,
    /// Lines of a file that may still be growing, or not be there yet.
    File(PathBuf),
}

impl FromStr for Ids {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::StandardInput } else { Self::File(text.into()) })
    }
}

/// Adds a line with `id` to the file, in one write.
///
/// # Errors
/// The file cannot be written.
pub(super) fn give(path: &Path, id: Uuid) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{id}\n").as_bytes())
}

/// Waits for `count` IDs, at most `deadline` long.
///
/// # Errors
/// They did not come in time, or what came is no ID.
pub(super) async fn take(ids: &Ids, count: usize, deadline: Duration) -> io::Result<Vec<Uuid>> {
    let late = || {
        let what = format!("no {count} key stream IDs came within {} s", deadline.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, what)
    };
    let taken = match ids {
        Ids::StandardInput => tokio::time::timeout(deadline, from_standard_input(count)).await,
        Ids::File(path) => tokio::time::timeout(deadline, from_file(path, count)).await,
    };
    taken.map_err(|_| late())?
}

async fn from_file(path: &Path, count: usize) -> io::Result<Vec<Uuid>> {
    loop {
        match std::fs::metadata(path) {
            Ok(about) if about.len() > LARGEST => {
                return Err(io::Error::other("the file of key stream IDs is too large"));
            }
            Ok(_) => {
                let text = std::fs::read_to_string(path)?;
                // A line without its end may still be growing.
                let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
                let ids = whole.lines().take(count).map(read_id).collect::<io::Result<Vec<_>>>()?;
                if ids.len() == count {
                    return Ok(ids);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn from_standard_input(count: usize) -> io::Result<Vec<Uuid>> {
    // A blocked read cannot be cancelled: this thread is left behind when the deadline passes, and ends with the process.
    let (give, take) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("standard input".into()).spawn(move || {
        let lines = io::stdin().lock().lines().take(count);
        let ids: io::Result<Vec<Uuid>> = lines.map(|line| line.and_then(|line| read_id(&line))).collect();
        // Nobody waits any more: the deadline has passed.
        let _ = give.send(ids);
    })?;
    let ids = take.await.map_err(io::Error::other)??;
    if ids.len() < count {
        let what = format!("standard input ended after {} of {count} key stream IDs", ids.len());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(ids)
}

fn read_id(line: &str) -> io::Result<Uuid> {
    Uuid::try_parse(line.trim())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line is no key stream ID (a UUID)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime").block_on(future)
    }

    #[test]
    fn an_id_that_is_half_written_is_not_taken() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("ids");
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        give(&path, one).expect("writes");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opens");
        file.write_all(&two.to_string().as_bytes()[..35]).expect("writes");
        let ids = Ids::File(path.clone());
        assert_eq!(wait(take(&ids, 1, Duration::from_secs(9))).expect("one"), [one]);
        let late = wait(take(&ids, 2, Duration::from_millis(120))).expect_err("half");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        file.write_all(&two.to_string().as_bytes()[35..]).expect("writes");
        file.write_all(b"\n").expect("writes");
        assert_eq!(wait(take(&ids, 2, Duration::from_secs(9))).expect("both"), [one, two]);
    }

    #[test]
    fn what_is_no_id_is_refused_at_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("ids");
        std::fs::write(&path, "one\n").expect("writes");
        let error = wait(take(&Ids::File(path), 1, Duration::from_secs(60))).expect_err("no id");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
