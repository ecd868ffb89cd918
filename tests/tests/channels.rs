//! Channels that are outside: docs/channels.md. Workers that do what they should, and those that do not; whatever they do, what was
//! delivered is stock, no card goes to two orders, and every accepted order has its cards once a good worker is there.

mod market;

mod deliveries;
mod failures;
mod leases;

mod bad_input;
mod canaries;
mod floods;
mod replays;
mod restarts;
mod upstreams;

mod workers;
