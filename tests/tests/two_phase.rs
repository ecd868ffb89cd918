//! Orders in two phases: docs/orders.md, cell by cell; repeats over crashes, quantities, extensions, expiry, late commits.

mod shop;

mod table;

mod parts;
mod repeats;

mod expiry;
mod extensions;

mod folds;
mod out_of_sale;
mod picks;

mod bad_input;
mod racing;

mod waits;
