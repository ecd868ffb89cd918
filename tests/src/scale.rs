//! How much of a good thing: enough for every commit, or all that a release wants.

use std::env;

/// `full` when `CROUPIER_TEST_SCALE=full`, else `usual`.
pub fn scaled<T>(usual: T, full: T) -> T {
    match env::var("CROUPIER_TEST_SCALE").as_deref() {
        Ok("full") => full,
        _ => usual,
    }
}
