//! Replays the seeds, and every input that has ever found a fault, through what is fuzzed.

use std::fs;
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name != "README.md"));
    files.sort();
    files
}

#[test]
fn seeds_and_regressions_do_no_harm() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (target, run) in croupier_fuzz::TARGETS {
        let seeds = files(&fuzz.join("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for path in seeds
            .into_iter()
            .chain(files(&fuzz.join("regressions").join(target)))
        {
            let bytes = fs::read(&path).unwrap();
            println!("{}", path.display());
            run(&bytes);
        }
    }
}

#[test]
fn every_cut_of_a_seed_does_no_harm() {
    for (target, run) in croupier_fuzz::TARGETS {
        for (_, bytes) in croupier_fuzz::seeds::of(target) {
            let step = 1 + bytes.len() / 40;
            (0..bytes.len())
                .step_by(step)
                .for_each(|cut| run(&bytes[..cut]));
        }
    }
}
