//! Routes: which lane an order waits in, and which channels it is dealt from, in which order. The page is docs/routes.md.
//!
//! A table is immutable but for what it counts. The one in force sits in a [`RouteCell`], an `ArcSwap`; every core keeps a cache of it,
//! so a swap costs an order nothing but one load. What a table says about a SKU and a priority just now is resolved once per core
//! ([`Resolver`]); only what rules ask of the order itself is looked at order by order. Beside the table in force one may be on
//! trial for a share of orders ([`Trial`], docs/canary.md): a [`Router`] has a resolver for each.

mod conditions;
mod load;
mod outside;
mod resolver;
mod router;
mod table;
mod text;
mod trial;

#[cfg(test)]
mod tests;

pub use conditions::Asked;
pub(crate) use conditions::{glob, globs_meet, mix};
pub use load::{Load, LoadNow, LoadParts, MarkNow, Marks};
pub(crate) use outside::better_of_two;
pub use outside::{Balance, Chain, Outlier, Outside, Retry, Source, ToAsk};
pub use resolver::{NoTarget, Resolved, Resolver, Taken};
pub use router::{Router, WAY_BITS};
pub use table::{Moment, RouteTable, RuleCount, Target};
pub use text::RouteError;
pub use trial::{Fate, Group, InForce, RouteCell, Sighting, Trial};

/// Most bytes of a table's text.
pub const ROUTES_BYTES_MAX: usize = 48 << 10;
/// Most rules of a table.
pub const RULES_MAX: usize = 1024;
/// Most channels of a table.
pub const CHANNELS_MAX: usize = 256;
/// Most channels, or groups of them, in the chain of a rule, and most members of such a group.
pub const CHAIN_MAX: usize = 8;
/// Most ways that orders can go by one rule: one for each channel that may be asked first.
pub const RULE_WAYS_MAX: usize = 64;
/// Most ways by all rules of a table: a dealer groups the orders of a turn by them.
pub const WAYS_MAX: usize = 4095;

/// The table of a store that was never given one: every priority has its lane, every SKU all its pools.
pub const DEFAULT_ROUTES: &str =
    "# the built-in table: each priority in its own lane, all pools of the SKU\n[[rule]]\n";
