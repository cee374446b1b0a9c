//! Writes the seeds of every target into a folder for each: `fuzz-seeds FOLDER`. Without a folder, names the targets.

use std::path::PathBuf;

use qkd_fuzz_targets::TARGETS;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        for target in TARGETS {
            println!("{} {}", target.name, target.longest);
        }
        return Ok(());
    };
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
