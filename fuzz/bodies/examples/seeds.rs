//! Writes the seeds of all targets to `fuzz/seeds/`: `cargo run -p croupier-fuzz --example seeds`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for (target, _) in croupier_fuzz::TARGETS {
        let dir = all.join(target);
        std::fs::create_dir_all(&dir)?;
        for (name, bytes) in croupier_fuzz::seeds::of(target) {
            std::fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}
