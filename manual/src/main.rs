//! `qkd-manual FOLDER`: writes what the packages need beside the programs, from the programs' own command lines and the
//! configuration's own reference. `./dev deb` runs it; it reads nothing, and writes the same for the same source.

mod pages;
mod settings;

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::aot::{Bash, Fish, Generator, Zsh, generate_to};

/// A program of a package.
struct Program {
    package: &'static str,
    section: &'static str,
    command: Command,
    /// Pages of other packages or this one that its page points at.
    see_also: &'static [&'static str],
}

fn programs() -> [Program; 3] {
    [
        Program {
            package: "qkdd",
            section: "8",
            command: qkd_daemon::arguments::qkdd::Args::command(),
            see_also: &["qkdd.toml(5)", "qkdctl(8)", "qkd-sim(1)"],
        },
        Program {
            package: "qkdd",
            section: "8",
            command: qkd_daemon::arguments::qkdctl::Args::command(),
            see_also: &["qkdd(8)", "qkdd.toml(5)"],
        },
        Program {
            package: "qkd-sim",
            section: "1",
            command: qkd_sim::arguments::Cli::command(),
            see_also: &["qkdd(8)"],
        },
    ]
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: qkd-manual FOLDER");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("qkd-manual: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), Error> {
    for program in programs() {
        let package = folder.join(program.package);
        let man = package.join("man");
        fs::create_dir_all(&man)?;
        pages::write(&man, &program)?;
        complete(&package, Bash, program.command.clone())?;
        complete(&package, Zsh, program.command.clone())?;
        complete(&package, Fish, program.command)?;
    }
    fs::write(folder.join("qkdd/man/qkdd.toml.5"), settings::page())
}

/// Writes a completion into a folder named after the shell, under the name by which the shell finds it.
fn complete(package: &Path, shell: impl Generator, mut command: Command) -> Result<(), Error> {
    let name = command.get_name().to_owned();
    let folder = package.join("completions");
    fs::create_dir_all(&folder)?;
    let file = generate_to(shell, &mut command, &name, &folder)?;
    // Debian's bash-completion looks for the program's bare name.
    match file.extension() {
        Some(extension) if extension == "bash" => fs::rename(&file, folder.join(&name)),
        _ if file.exists() => Ok(()),
        _ => Err(Error::new(ErrorKind::NotFound, format!("no completion of {name} was written"))),
    }
}
