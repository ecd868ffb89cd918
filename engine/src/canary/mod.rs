//! The canary of a route table: a second table for a share of orders, compared with an equal group under the table in force.
//! The page is docs/canary.md.
//!
//! [`stats`] and [`course`] are pure: samples in, verdicts out, no clock. [`watch`] is what a core keeps of orders that are measured;
//! the deeds on an engine are in [`deeds`]. Which order is in which group, and by which table it is dealt, is the business of
//! [`crate::route`].

pub mod course;
mod deeds;
pub mod settings;
pub mod stats;
pub mod watch;

pub use deeds::Watched;
pub use settings::Settings;
