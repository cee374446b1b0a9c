//! The commands that the documentation tells to type: where they stand, and who runs them.

pub mod lab;
pub mod runners;

use crate::programs::workspace;

/// What a command begins with. A block or an indented line that begins so is one, whatever its fence says.
const PROGRAMS: &[&str] = &[
    "$",
    "./dev",
    "apt",
    "apt-get",
    "cargo",
    "curl",
    "dpkg",
    "editor",
    "journalctl",
    "lspci",
    "openssl",
    "python3",
    "qkd-sim",
    "qkdctl",
    "qkdd",
    "sudo",
    "systemctl",
    "target/release/qkd-sim",
    "target/release/qkdctl",
    "target/release/qkdd",
    "udevadm",
];

/// Languages of blocks that nobody takes for commands.
const NO_COMMANDS: &[&str] = &["", "json", "python", "toml"];

/// Commands in a block of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The page's path in the workspace.
    pub page: String,
    /// Line of the block's beginning, from 1 on.
    pub line: usize,
    /// What the comment right above it says.
    pub mark: Option<String>,
    /// The commands.
    pub text: String,
}

impl Block {
    /// Where it stands, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Its commands, one each: without comments, with continued lines joined.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        commands(&self.text)
    }
}

/// Each command of a script: without comments, with continued lines joined and white space made one.
#[must_use]
pub fn commands(script: &str) -> Vec<String> {
    let joined = script.replace("\\\n", " ");
    let lines = joined.lines().map(|line| {
        let line = if line.trim_start().starts_with('#') { "" } else { line };
        line.split(" # ").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// Every page that tells people what to type, with its text.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["README.md", "SECURITY.md", "contract/CONTRACT.md", "tests/vm/README.md"].map(str::to_owned).into();
    for entry in std::fs::read_dir(workspace().join("docs")).expect("a folder of documents") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    let read = |path: String| {
        let text = std::fs::read_to_string(workspace().join(&path)).expect("a page");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// What a page has in it.
#[derive(Debug, Default)]
pub struct Found {
    /// Blocks of commands.
    pub blocks: Vec<Block>,
    /// Commands that stand where nobody looks for commands.
    pub elsewhere: Vec<String>,
    /// Commands inside sentences and tables: place and text.
    pub inline: Vec<(String, String)>,
}

/// Looks through a page.
#[must_use]
pub fn look_through(page: &str, text: &str) -> Found {
    let mut found = Found::default();
    // Language of the fence that is open.
    let mut open: Option<String> = None;
    let mut above = "";
    let mut prose = String::new();
    for (index, line) in text.lines().enumerate() {
        let place = format!("{page}:{}", index + 1);
        match (line.trim_start().strip_prefix("```"), open.as_deref()) {
            (Some(_), Some(_)) => open = None,
            (Some(language), None) => {
                if language == "sh" {
                    let mark = above.trim().strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->"));
                    found.blocks.push(Block {
                        page: page.to_owned(),
                        line: index + 1,
                        mark: mark.map(str::to_owned),
                        text: String::new(),
                    });
                } else if !NO_COMMANDS.contains(&language) {
                    found.elsewhere.push(format!("{place}: a block of {language:?}: commands are sh"));
                }
                open = Some(language.to_owned());
            }
            (None, Some("sh")) => {
                let block = found.blocks.last_mut().expect("a block that has begun");
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(_)) if is_command(line) => found.elsewhere.push(format!("{place}: {line}")),
            (None, None) if line.starts_with("    ") && is_command(line) => {
                found.elsewhere.push(format!("{place}: {line}"));
            }
            (None, Some(_)) => {}
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
        above = line;
    }
    for span in prose.split('`').skip(1).step_by(2) {
        let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
        found.inline.push((page.to_owned(), span));
    }
    found
}

fn is_command(line: &str) -> bool {
    // Lines of a drawing are none.
    !line.contains('─') && line.split_whitespace().next().is_some_and(|word| PROGRAMS.contains(&word))
}

/// Every block of commands of every page.
#[must_use]
pub fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|(page, text)| look_through(page, text).blocks).collect()
}
