//! Damage, bit by bit: every bit of a small store is flipped, sectors are zeroed and swapped, and each time the store must
//! either refuse, or mend itself and say so, or answer exactly as before.
//!
//! Unlike the rest of this package this runs the engine in process: a start takes a fraction of a millisecond, so that
//! millions of them can be looked at. Reading order: [`stage`] (the store, and what is true of it), [`regions`] (what each
//! bit of it is), [`judge`] (what becomes of one damage), [`run`] (all of them), [`report`].

pub mod judge;
pub mod regions;
pub mod report;
pub mod run;
pub mod stage;

/// What goes wrong while damage is prepared: never a finding about the store.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct Trouble {
    doing: String,
    why: String,
}

impl Trouble {
    fn at(doing: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self {
            doing: doing.into(),
            why: why.to_string(),
        }
    }
}

/// Says what was being done when something went wrong.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, Trouble>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::at(what, error))
    }
}
