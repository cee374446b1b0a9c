//! Pages of programs: one for each, and one for each command of it.

use std::fs;
use std::io::Error;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, roman};

use super::Program;

/// What stands in the middle of each page's head.
pub(super) const MANUAL: &str = "QKD module";

/// Writes all pages of a program into `folder`.
pub(super) fn write(folder: &Path, program: &Program) -> Result<(), Error> {
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    page(folder, program, &command, true)
}

fn page(folder: &Path, program: &Program, command: &Command, is_whole: bool) -> Result<(), Error> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        page(folder, program, inner, false)?;
    }
    // A command of a program is called after both.
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(program.section)
        .source(concat!("qkd ", env!("CARGO_PKG_VERSION")))
        .manual(MANUAL);
    let mut text = Vec::new();
    man.render(&mut text)?;
    let own = format!("{}({})", program.command.get_name(), program.section);
    let mut more = Roff::new();
    more.control("SH", ["SEE ALSO"]);
    let others: Vec<&str> = if is_whole { program.see_also.to_vec() } else { vec![own.as_str()] };
    more.text([roman(others.join(", "))]);
    text.extend_from_slice(more.to_roff().as_bytes());
    fs::write(folder.join(format!("{name}.{}", program.section)), text)
}
