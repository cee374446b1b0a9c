//! Where the documentation's commands find what they speak of: a folder, free ports, cards and modules.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, killpg};
use tempfile::TempDir;

use crate::DEADLINE;
use crate::ports::{free_ports, with_ports};
use crate::process::Process;
use crate::programs::{program, workspace, write_script};

/// Ports that the pages use.
const PORTS: [&str; 6] = ["8001", "8002", "7001", "9001", "9002", "8101"];

/// A program with all that it has started, which ends with this value.
pub struct Running(Process);

impl Running {
    /// Starts it in a process group of its own.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self(Process::start(name, command.process_group(0)))
    }

    /// The program.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.0
    }

    /// The program, to wait for its end.
    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.0.pid(), Signal::SIGKILL);
    }
}

/// A folder and ports of its own for commands that are typed as they stand.
pub struct Place {
    folder: TempDir,
    ports: [SocketAddr; PORTS.len()],
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A new one.
    ///
    /// # Panics
    /// When there is no room, or no port is free.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder"), ports: free_ports() }
    }

    /// The folder, which stands for the pages' `/tmp/qkd-lab` and is where commands are typed.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Text with this place's folder and ports.
    ///
    /// # Panics
    /// When the folder's name is no text.
    #[must_use]
    pub fn adapt(&self, text: &str) -> String {
        let text = with_ports(text, ":", &PORTS, &self.ports);
        let programs = program("qkdd").parent().expect("a folder of programs").to_owned();
        text.replace("/tmp/qkd-lab", self.folder().to_str().expect("text"))
            .replace("target/release", programs.to_str().expect("text"))
    }

    /// A shell that types these commands. Programs are found as if they were installed.
    #[must_use]
    pub fn shell(&self, name: &str, commands: &str) -> Running {
        let programs = program("qkdd").parent().expect("a folder of programs").to_owned();
        let path = format!(
            "{}:{}:{}",
            self.folder().join("bin").display(),
            programs.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &self.adapt(commands)]);
        Running::start(name, command.current_dir(self.folder()).env("PATH", path))
    }

    /// Types commands, and answers what they print and their exit code.
    ///
    /// # Panics
    /// When they do not end in time, or by a signal.
    #[must_use]
    pub fn code_of(&self, name: &str, commands: &str) -> (String, i32) {
        let mut shell = self.shell(name, commands);
        let ended = shell.0.wait(DEADLINE);
        (shell.0.output(), ended.code().expect("an exit code"))
    }

    /// Types commands that must succeed, and answers what they print.
    ///
    /// # Panics
    /// When they fail, or do not end in time.
    #[must_use]
    pub fn run(&self, name: &str, commands: &str) -> String {
        let (output, code) = self.code_of(name, commands);
        assert_eq!(code, 0, "{name}:\n{commands}\n{output}");
        output
    }

    /// A program of that name, found before others, which is this script.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn stand_in(&self, name: &str, script: &str) {
        let folder = self.folder().join("bin");
        std::fs::create_dir_all(&folder).expect("a folder");
        write_script(&folder.join(name), script);
    }
}

/// What the walk through starts: cards, and a module on each.
pub struct Lab {
    /// Where all of it is.
    pub place: Place,
    /// `qkd-sim pair`.
    pub cards: Running,
    /// `qkdd` at ends A and B.
    pub modules: [Running; 2],
}

impl Lab {
    /// Starts the cards by this command, and the modules by `lab/`, module A with this beside.
    ///
    /// # Panics
    /// When they do not come up in time.
    #[must_use]
    pub fn start(cards: &str, more: &str) -> Self {
        let place = Place::new();
        let cards = place.shell("the cards", cards);
        let _ = cards.process().line("ready", DEADLINE);
        let modules = ["a", "b"].map(|end| {
            let file = format!("module-{end}.toml");
            let text = std::fs::read_to_string(workspace().join("lab").join(&file)).expect("a configuration");
            let more = if end == "a" { more } else { "" };
            std::fs::write(place.folder().join(&file), place.adapt(&format!("{text}\n{more}")))
                .expect("a configuration");
            place.shell(&format!("module {end}"), &format!("exec qkdd --config {file}"))
        });
        let lab = Self { place, cards, modules };
        let _ = lab.modules[1].process().line("takes over", DEADLINE);
        let _ = lab.modules[0].process().line("Distilling", DEADLINE);
        lab
    }
}

/// Text with these words replaced.
///
/// # Panics
/// When one of them is not there: what is typed is what the page says now.
#[must_use]
pub fn edited(text: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text.replace(from, to)
    })
}
