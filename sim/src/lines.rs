//! Lines that are told to a running program: from a file, a FIFO or standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Octets that a line may have, without its end.
const LINE_MAX: usize = 1024;

/// A line without its end, or why it cannot be one.
pub(crate) type Line = Result<String, String>;

/// Reads lines from `path`, or from standard input if it is `-`, in a thread of its own: until their end, or until `take`
/// wants no more. A FIFO is held open, so that one writer may follow another.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn follow(path: &Path, take: impl FnMut(Line) -> bool + Send + 'static) -> io::Result<()> {
    if path.as_os_str() == "-" {
        std::thread::spawn(move || read_lines(io::stdin().lock(), take));
    } else {
        let file = open(path)?;
        std::thread::spawn(move || read_lines(BufReader::new(file), take));
    }
    Ok(())
}

/// A FIFO is opened for writing too: so it is there without a writer, and its last writer's end is not the input's.
fn open(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::metadata(path)?.file_type().is_fifo();
    OpenOptions::new().read(true).write(is_fifo).open(path)
}

fn read_lines(mut input: impl BufRead, mut take: impl FnMut(Line) -> bool) {
    loop {
        match next_line(&mut input) {
            Ok(Some(line)) => {
                if !take(line) {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                log::warn!("lines cannot be read any more: {error}");
                return;
            }
        }
    }
}

/// The next line without its end, however the input goes on behind it; `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut octets = Vec::new();
    let limit = LINE_MAX as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', &mut octets)? == 0 {
        return Ok(None);
    }
    if octets.last() == Some(&b'\n') {
        octets.pop();
    } else if octets.len() > LINE_MAX {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!("a line of more than {LINE_MAX} octets"))));
    }
    Ok(Some(String::from_utf8(octets).map_err(|_| "a line that is not UTF-8".into())))
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, next_line};

    fn lines(mut text: &[u8]) -> Vec<Result<String, String>> {
        std::iter::from_fn(|| next_line(&mut text).unwrap()).collect()
    }

    #[test]
    fn a_line_ends_where_it_ends_and_one_too_long_hides_none_behind_it() {
        let longest = "x".repeat(LINE_MAX);
        let text = format!("one\n\n{longest}\n{longest}y\nlast");
        let too_long = Err(format!("a line of more than {LINE_MAX} octets"));
        let expected = [Ok("one".into()), Ok(String::new()), Ok(longest), too_long, Ok("last".into())];
        assert_eq!(lines(text.as_bytes()), expected);
        assert_eq!(lines(b"\xFF\nnext\n"), [Err("a line that is not UTF-8".into()), Ok("next".into())]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(&vec![b'x'; 100 * LINE_MAX]).len(), 1);
    }
}
