//! The load generator: it loads a Croupier server, measures it from the caller's side and checks every answer.
//!
//! Read in this order: what is asked for (`cli`, `run`), what is sent (`workload`, `schedule`, `stock`), how it is
//! sent (`driver`), what is concluded (`oracle`, `recorder`, `report`). `limits` measures what the machine could do
//! without an engine; `peers` runs other databases on the same work.

pub mod cli;
pub mod error;
pub mod units;

pub mod control;
pub mod embedded;
pub mod machine;

pub mod schedule;
pub mod stock;
pub mod workload;

pub mod bitmap;
pub mod driver;
pub mod oracle;
pub mod progress;
pub mod recorder;

pub mod report;
pub mod run;
