//! Who runs the blocks of commands, and whether they really do.

use super::{Block, commands};
use crate::programs::workspace;

/// Mark of a block that a test of the documentation runs itself: `<!-- run: NAME -->`.
pub const HERE: &str = "run: ";

/// Who runs a block.
enum Runner {
    /// Takes blocks with that mark out of the page, with these words.
    Takes { file: &'static str, words: &'static [&'static str] },
    /// Has the commands in itself.
    Says(fn() -> String),
    /// Nobody, for this reason.
    Nobody { why: &'static str },
}

/// A page, a mark on it, and who runs the blocks below it, how many there are. A mark that begins with [`HERE`] and is not here is
/// the name of a block that the documentation's own test runs.
const RUNNERS: &[(&str, &str, usize, Runner)] = &[
    (
        "README.md",
        "walk",
        4,
        Runner::Takes { file: "tests/tests/walk_through.rs", words: &["<!-- walk -->\\n```sh\\n"] },
    ),
    ("README.md", "run: ./dev test", 1, Runner::Says(dev_test)),
    ("README.md", "run: continuous integration", 1, Runner::Says(continuous_integration)),
    ("README.md", "first minutes: install", 1, first_minutes(&["follow install"])),
    ("README.md", "first minutes: configure", 1, first_minutes(&["follow configure"])),
    ("README.md", "first minutes: deliver", 1, first_minutes(&["block deliver >", ". \"$minutes/deliver\""])),
    ("README.md", "first minutes: see", 1, first_minutes(&["follow see"])),
    ("README.md", "first minutes: end", 1, first_minutes(&["block end >", ". \"$minutes/end\""])),
    (
        "docs/certificates.md",
        "run",
        1,
        Runner::Takes { file: "tests/tests/certificates.rs", words: &["<!-- run -->\\n```sh\\n"] },
    ),
    (
        "docs/confinement.md",
        "run",
        2,
        Runner::Takes {
            file: "tests/vm/guest/confinement.sh",
            words: &["<!-- $1 -->", "as_written \"$card_2\" 2 'run' 1", "as_written \"$card_2\" 2 'run' 2"],
        },
    ),
    (
        "docs/confinement.md",
        "run where the peer connects",
        1,
        Runner::Takes {
            file: "tests/vm/guest/confinement.sh",
            words: &["<!-- $1 -->", "'run where the peer connects' 1"],
        },
    ),
    (
        "docs/kms-developers.md",
        "conform",
        1,
        Runner::Takes { file: "tests/tests/conform.rs", words: &["<!-- conform -->\\n```sh\\n"] },
    ),
    ("docs/certificates.md", "run: virtual machine", 1, Runner::Says(virtual_machine)),
    ("docs/operators.md", "run: virtual machine", 5, Runner::Says(virtual_machine)),
    ("docs/troubleshooting.md", "run: virtual machine", 1, Runner::Says(virtual_machine)),
    (
        "docs/messages.md",
        "run: by hand",
        1,
        Runner::Nobody {
            why: "needs the journal of a host that systemd has booted, with a daemon's messages",
        },
    ),
];

const fn first_minutes(words: &'static [&'static str]) -> Runner {
    Runner::Takes { file: "tests/vm/guest/first_minutes.sh", words }
}

fn read(file: &str) -> String {
    std::fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A script's lines that are no comments.
fn script(file: &str) -> String {
    read(file).lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// What `./dev test` does itself.
fn dev_test() -> String {
    let text = script("dev");
    let (_, rest) = text.split_once("\n    test)\n").expect("dev has a test command");
    rest.split_once(";;\n").expect("it ends").0.to_owned()
}

fn continuous_integration() -> String {
    script(".ci/run")
}

/// What the course in the virtual machine types, with a card's address as the pages write it.
fn virtual_machine() -> String {
    assert!(dev_test().contains("\n        vm\n"), "./dev test runs the virtual machine");
    let course = script("tests/vm/guest/main.sh");
    let parts = course.split_once("for part in ").and_then(|(_, rest)| rest.split_once("; do"));
    let (parts, _) = parts.expect("the course has parts");
    let mut text = String::new();
    for part in parts.split_whitespace() {
        text.push_str(&script(&format!("tests/vm/guest/{part}.sh")));
        text.push('\n');
    }
    for (variable, written) in [
        ("\"$(unit \"$card_1\")\"", "qkdd@ADDRESS"),
        ("\"$(unit \"$1\")\"", "qkdd@ADDRESS"),
        ("\"/dev/qkd/$card\"", "/dev/qkd/ADDRESS"),
        ("\"/dev/vfio/$group\"", "/dev/vfio/12"),
        ("journal -u", "journalctl -u"),
    ] {
        assert!(text.contains(variable), "{variable} is not in the course any more");
        text = text.replace(variable, written);
    }
    // The course follows these as they stand.
    let readme = super::look_through("README.md", &read("README.md"));
    for block in readme.blocks.iter().filter(|block| block.mark.as_deref().is_some_and(is_first_minutes)) {
        text.push_str(&block.text);
    }
    with_addresses(&text)
}

fn is_first_minutes(mark: &str) -> bool {
    mark.starts_with("first minutes: ")
}

/// Every card's address as the same word.
fn with_addresses(text: &str) -> String {
    ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]
        .iter()
        .fold(text.to_owned(), |text, address| text.replace(address, "ADDRESS"))
}

/// Whether the command stands in the script as a whole, and not as the beginning of a longer word.
fn says(script: &str, command: &str) -> bool {
    let whole = |rest: &str| rest.chars().next().is_none_or(|next| " \n;)\"|&".contains(next));
    let script = commands(script).join("\n");
    script.match_indices(command).any(|(at, _)| whole(&script[at + command.len()..]))
}

/// What is wrong with who runs these blocks.
#[must_use]
pub fn faults(blocks: &[Block]) -> Vec<String> {
    let mut faults = Vec::new();
    for block in blocks {
        let Some(mark) = &block.mark else {
            faults.push(format!("{}: no comment above it says who runs it", block.place()));
            continue;
        };
        match RUNNERS.iter().find(|(page, known, ..)| *page == block.page && known == mark) {
            Some((.., runner)) => faults.extend(runner.fault(block)),
            None if mark.starts_with(HERE) => {}
            None => faults.push(format!("{}: nobody is known as {mark:?}", block.place())),
        }
    }
    for (page, mark, number, _) in RUNNERS {
        let found =
            blocks.iter().filter(|block| block.page == *page && block.mark.as_deref() == Some(*mark)).count();
        if found != *number {
            faults.push(format!("{page}: {found} blocks are marked {mark:?}, and {number} are run"));
        }
    }
    faults
}

impl Runner {
    fn fault(&self, block: &Block) -> Option<String> {
        match self {
            Self::Takes { file, words } => {
                let text = read(file);
                let missing = words.iter().find(|words| !text.contains(**words))?;
                Some(format!("{}: {file} does not take it: {missing:?} is not there", block.place()))
            }
            Self::Says(text) => {
                let text = text();
                let missing =
                    block.commands().into_iter().find(|command| !says(&text, &with_addresses(command)))?;
                Some(format!("{}: who should run it does not: {missing}", block.place()))
            }
            Self::Nobody { why } => why.is_empty().then(|| format!("{}: no reason", block.place())),
        }
    }
}

/// Names of the blocks that the documentation's own test has to run.
#[must_use]
pub fn to_run_here(blocks: &[Block]) -> Vec<String> {
    let others = |block: &Block, mark: &str| {
        RUNNERS.iter().any(|(page, known, ..)| *page == block.page && *known == mark)
    };
    let marks = blocks.iter().filter_map(|block| Some((block, block.mark.as_deref()?)));
    marks
        .filter(|(block, mark)| !others(block, mark))
        .filter_map(|(_, mark)| Some(mark.strip_prefix(HERE)?.to_owned()))
        .collect()
}

/// How many blocks nobody runs.
#[must_use]
pub fn run_by_nobody() -> usize {
    RUNNERS
        .iter()
        .map(|(.., number, runner)| if matches!(runner, Runner::Nobody { .. }) { *number } else { 0 })
        .sum()
}
