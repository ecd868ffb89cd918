//! Channels that are outside: docs/channels.md.

pub mod fleet;
