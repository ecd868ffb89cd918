//! The load generator: it loads a Croupier server, measures it from the caller's side and checks every answer.
//!
//! Read in this order: what is asked for (`cli`, `run`), what is sent (`workload`, `schedule`, `stock`), how it is
//! sent (`driver`), what is concluded (`oracle`, `recorder`, `report`). `limits` measures what the machine could do
//! without an engine; `peers` runs other databases on the same work; `scale` makes one store larger and larger; `scene`
//! has issuers fall ill.

#![allow(rustdoc::private_intra_doc_links)] // the pages are for those who read the source

// What is asked for.
pub mod cli;
pub mod error;
pub mod run;
pub mod units;

// Against what.
pub mod control;
pub mod embedded;
pub mod machine;

// What is sent, and when.
pub mod schedule;
pub mod stock;
pub mod workload;

// How it is sent.
pub mod driver;

// What is concluded.
pub mod bitmap;
pub mod oracle;
pub mod progress;
pub mod recorder;
pub mod report;

// Several servers side by side.
pub mod contest;
pub mod limits;
pub mod peers;

// One server, larger and larger.
pub mod scale;

// One server whose issuers fall ill.
pub mod scene;
