//! Where the binary under test is: `CROUPIER_BIN`, else built once with the profile of this test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test.
///
/// # Panics
/// If it cannot be built.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CROUPIER_BIN") {
        Some(path) => existing(PathBuf::from(path)),
        None => build(),
    })
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.is_file(),
        "CROUPIER_BIN is {}, which is no file",
        path.display()
    );
    path
}

/// A test lies in TARGET/PROFILE/deps; what it tests belongs into TARGET/PROFILE.
fn build() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own file");
    let beside = test
        .ancestors()
        .nth(2)
        .expect("a test lies two levels down");
    let target = beside
        .parent()
        .expect("a profile lies in a target directory");
    let profile = match beside.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let done = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "croupier-engine",
            "--bin",
            "croupier",
        ])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo starts");
    assert!(done.success(), "the binary under test does not build");
    existing(beside.join("croupier"))
}
