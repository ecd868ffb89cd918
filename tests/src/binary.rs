//! Where the binary under test is: `CROUPIER_BIN`, else built once with the profile of this test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Tests this binary and no other. To be said before the first command is run.
///
/// # Panics
/// If there is no such file, or another binary has been run already.
pub fn use_binary(path: PathBuf) {
    let path = existing(path);
    let chosen = BINARY.get_or_init(|| path.clone());
    assert_eq!(*chosen, path, "another binary has been run already");
}

/// Tests the binary that a program was told with `--binary`, if it was told one.
///
/// # Errors
/// If there is no such file: what to tell the user.
pub fn use_binary_given(path: Option<PathBuf>) -> Result<(), String> {
    let Some(path) = path else {
        return Ok(());
    };
    if !path.is_file() {
        return Err(format!("--binary: {} is no file", path.display()));
    }
    // A server is started from another directory than this one's.
    use_binary(path.canonicalize().unwrap_or(path));
    Ok(())
}

/// The binary under test.
///
/// # Panics
/// If it cannot be built.
pub(crate) fn binary() -> &'static Path {
    BINARY.get_or_init(|| match env::var_os("CROUPIER_BIN") {
        Some(path) => existing(PathBuf::from(path)),
        None => build(),
    })
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.is_file(),
        "the binary under test is to be {}, which is no file",
        path.display()
    );
    path
}

/// A test lies in TARGET/PROFILE/deps, a program in TARGET/PROFILE; what is tested belongs there, too.
fn build() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own file");
    let mut beside = test.parent().expect("a file lies in a directory");
    if beside.ends_with("deps") {
        beside = beside.parent().expect("a profile has its own directory");
    }
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
