//! Routes: which lane an order waits in and which pools it is dealt from.
//!
//! A table is immutable. The one in force sits in a [`RouteCell`], an `ArcSwap`; every core keeps a cache of it, so a
//! swap costs an order nothing but one load. What a table says about a SKU is resolved once per core and table
//! ([`Resolver`]). Richer rules fit in as further conditions of a [`Rule`] and further fields of a [`Target`].

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use croupier_protocol::Priority;
use serde::Deserialize;

use crate::state::{Catalog, Pool};

/// Most bytes of a table's text.
pub const ROUTES_BYTES_MAX: usize = 48 << 10;
/// Most rules of a table.
pub const RULES_MAX: usize = 1024;

/// The table of a store that was never given one: every priority has its lane, every SKU all its pools.
pub const DEFAULT_ROUTES: &str =
    "# the built-in table: each priority in its own lane, all pools of the SKU\n[[rule]]\n";

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `None`: the lane of the order's priority.
    lane: Option<Priority>,
    /// Names of pools in the order they are tried; empty: all, in the order they were made.
    pools: Vec<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    priorities: Vec<Priority>,
    sku: String,
    target: Target,
}

/// A validated table.
#[derive(Debug)]
pub struct RouteTable {
    version: u32,
    text: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableText {
    rule: Vec<toml::Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default)]
    #[allow(dead_code)]
    // for people: shown by `croupier routes show` with the rest of the text
    name: String,
    #[serde(default)]
    priority: Vec<String>,
    sku: Option<String>,
    lane: Option<String>,
    #[serde(default)]
    pools: Vec<String>,
}

/// Why a table was not accepted: line and reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RouteError {
    pub line: usize,
    pub reason: String,
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
}

impl RouteTable {
    /// Reads and checks a table as a whole.
    pub fn parse(version: u32, text: &str) -> Result<RouteTable, RouteError> {
        let fault = |offset, reason: String| RouteError {
            line: line_of(text, offset),
            reason,
        };
        if text.len() > ROUTES_BYTES_MAX {
            return Err(fault(
                0,
                format!(
                    "the table has {} bytes, at most {ROUTES_BYTES_MAX} are allowed",
                    text.len()
                ),
            ));
        }
        let parsed: TableText = toml::from_str(text).map_err(|error| {
            fault(
                error.span().map_or(0, |span| span.start),
                error.message().trim().to_owned(),
            )
        })?;
        if parsed.rule.is_empty() || parsed.rule.len() > RULES_MAX {
            return Err(fault(
                0,
                format!(
                    "a table has 1 to {RULES_MAX} [[rule]]s, here are {}",
                    parsed.rule.len()
                ),
            ));
        }
        let rules = parsed
            .rule
            .into_iter()
            .map(|rule| {
                let at = rule.span().start;
                Rule::check(rule.into_inner()).map_err(|reason| fault(at, reason))
            })
            .collect::<Result<_, _>>()?;
        Ok(RouteTable {
            version,
            text: text.into(),
            rules,
        })
    }

    /// What is allowed but looks like a mistake; with a catalog also names that stand for nothing in it.
    pub fn warnings(&self, catalog: Option<&Catalog>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let number = index + 1;
            if let Some(above) = self.rules[..index]
                .iter()
                .position(|above| above.covers(rule))
            {
                warnings.push(format!(
                    "rule {number} can never match: rule {} takes all its orders",
                    above + 1
                ));
            }
            let Some(catalog) = catalog else { continue };
            let skus: Vec<_> = catalog
                .skus
                .iter()
                .filter(|sku| glob(&rule.sku, &sku.name))
                .collect();
            if skus.is_empty() {
                warnings.push(format!(
                    "rule {number}: no SKU is called {:?} yet",
                    rule.sku
                ));
            }
            for pool in &rule.target.pools {
                if !skus
                    .iter()
                    .any(|sku| sku.pools.load().iter().any(|known| known.name == *pool))
                {
                    warnings.push(format!("rule {number}: no pool is called {pool:?} yet"));
                }
            }
        }
        if !self.rules.iter().any(Rule::is_catch_all) {
            warnings.push(
                "no rule takes all orders: those that match none are refused as NoRoute".into(),
            );
        }
        warnings
    }

    /// Version, as every order's record carries it.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The text it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first rule that takes orders of this SKU and priority.
    pub fn resolve(&self, sku: &str, priority: Priority) -> Option<&Target> {
        self.rules
            .iter()
            .find(|rule| {
                (rule.priorities.is_empty() || rule.priorities.contains(&priority))
                    && glob(&rule.sku, sku)
            })
            .map(|rule| &rule.target)
    }
}

impl Rule {
    fn check(text: RuleText) -> Result<Rule, String> {
        let parse = |name: &String| {
            name.parse::<Priority>().map_err(|_| {
                format!("{name:?} is no priority: use vip, standard, bulk or background")
            })
        };
        let sku = text.sku.unwrap_or_else(|| "*".into());
        if sku.is_empty() || sku.len() > 64 {
            return Err(
                "sku is a name or a pattern of 1 to 64 bytes; * stands for any characters".into(),
            );
        }
        let mut pools = text.pools;
        if let Some(bad) = pools
            .iter()
            .find(|pool| croupier_protocol::Name::new(pool).is_err())
        {
            return Err(format!("{bad:?} cannot be the name of a pool"));
        }
        let named = pools.len();
        pools.dedup();
        if pools.len() != named {
            return Err("a pool is named twice in a row".into());
        }
        Ok(Rule {
            priorities: text.priority.iter().map(parse).collect::<Result<_, _>>()?,
            sku,
            target: Target {
                lane: text.lane.as_ref().map(parse).transpose()?,
                pools,
            },
        })
    }

    fn is_catch_all(&self) -> bool {
        self.priorities.is_empty() && self.sku == "*"
    }

    /// Whether every order that `other` takes is taken by this one.
    fn covers(&self, other: &Rule) -> bool {
        let priorities = self.priorities.is_empty()
            || (!other.priorities.is_empty()
                && other
                    .priorities
                    .iter()
                    .all(|one| self.priorities.contains(one)));
        priorities && (self.sku == "*" || self.sku == other.sku)
    }
}

/// `*` stands for any characters, everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The table in force.
#[derive(Clone)]
pub struct RouteCell(Arc<ArcSwap<RouteTable>>);

impl RouteCell {
    /// Begins with `table`.
    pub fn new(table: RouteTable) -> RouteCell {
        RouteCell(Arc::new(ArcSwap::from_pointee(table)))
    }

    /// Puts another table in force, for orders dealt from now on.
    pub fn swap(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }

    /// The table in force.
    pub fn load(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
}

/// A target with its pools found.
#[derive(Clone)]
pub struct Resolved {
    pub lane: Priority,
    pub pools: Arc<[Arc<Pool>]>,
}

/// One core's view of routes and catalog: what each SKU and priority resolves to, found once per table.
pub struct Resolver {
    table: Cache<Arc<ArcSwap<RouteTable>>, Arc<RouteTable>>,
    catalog: Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>>,
    seen: (u32, u64),
    /// By SKU − 1 and priority. Outer `None`: not looked at yet.
    found: Vec<[Option<Option<Resolved>>; 4]>,
}

/// Why an order has no place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    UnknownSku,
    NoRoute,
}

impl Resolver {
    pub fn new(cell: &RouteCell, catalog: &Arc<ArcSwap<Catalog>>) -> Resolver {
        Resolver {
            table: Cache::new(cell.0.clone()),
            catalog: Cache::new(catalog.clone()),
            seen: (0, 0),
            found: Vec::new(),
        }
    }

    /// Looks whether table or catalog have been swapped; once per turn. Returns the table's version.
    pub fn refresh(&mut self) -> u32 {
        let table = self.table.load().version;
        let catalog = self.catalog.load().version;
        if self.seen != (table, catalog) {
            self.seen = (table, catalog);
            self.found.clear();
        }
        table
    }

    /// The catalog as of the last refresh or later.
    pub fn catalog(&mut self) -> &Arc<Catalog> {
        self.catalog.load()
    }

    /// Where orders of this SKU and priority go.
    pub fn resolve(&mut self, sku: u32, priority: Priority) -> Result<&Resolved, NoTarget> {
        let index = (sku as usize).wrapping_sub(1);
        if self.found.len() <= index {
            if self.catalog.load().sku(sku).is_none() {
                return Err(NoTarget::UnknownSku);
            }
            self.found.resize_with(index + 1, Default::default);
        }
        let slot = &mut self.found[index][priority.as_index()];
        if slot.is_none() {
            *slot = Some(find(self.table.load(), self.catalog.load(), sku, priority));
        }
        slot.as_ref()
            .and_then(Option::as_ref)
            .ok_or(NoTarget::NoRoute)
    }
}

fn find(table: &RouteTable, catalog: &Catalog, sku: u32, priority: Priority) -> Option<Resolved> {
    let state = catalog.sku(sku)?;
    let target = table.resolve(&state.name, priority)?;
    let known = state.pools.load();
    let pools = if target.pools.is_empty() {
        known.iter().cloned().collect()
    } else {
        target
            .pools
            .iter()
            .filter_map(|name| known.iter().find(|pool| pool.name == *name).cloned())
            .collect()
    };
    Some(Resolved {
        lane: target.lane.unwrap_or(priority),
        pools,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expect) in [
            ("*", "", true),
            ("*", "x", true),
            ("steam-*", "steam-50", true),
            ("steam-*", "xsteam-50", false),
            ("*-50", "steam-50", true),
            ("*-50", "steam-500", false),
            ("s*m*0", "steam-50", true),
            ("s*m*1", "steam-50", false),
            ("a*a", "a", false),
            ("steam", "steam", true),
            ("steam", "steam2", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let table = RouteTable::parse(
            3,
            "[[rule]]\nsku = \"steam-*\"\npriority = [\"vip\"]\nlane = \"vip\"\npools = [\"reserve\", \"main\"]\n\
             [[rule]]\nsku = \"steam-*\"\nlane = \"bulk\"\n[[rule]]\n",
        )
        .unwrap();
        let vip = table.resolve("steam-5", Priority::Vip).unwrap();
        assert_eq!((vip.lane, vip.pools.len()), (Some(Priority::Vip), 2));
        assert_eq!(
            table.resolve("steam-5", Priority::Standard).unwrap().lane,
            Some(Priority::Bulk)
        );
        assert_eq!(
            table.resolve("other", Priority::Standard).unwrap().lane,
            None
        );
        assert!(RouteTable::parse(1, DEFAULT_ROUTES).unwrap().rules[0].is_catch_all());
    }

    #[test]
    fn bad_tables_are_told_by_line_and_reason() {
        for (text, line, word) in [
            ("", 1, "missing field"),
            ("rule = []", 1, "1 to"),
            ("[[rule]]\nsku = 5", 2, "string"),
            ("[[rule]]\n\n[[rule]]\nlane = \"fast\"", 3, "fast"),
            ("[[rule]]\npriority = [\"vip\", \"vop\"]", 1, "vop"),
            ("[[rule]]\nspeed = 1", 2, "unknown field"),
            ("[[rule]]\nsku = \"\"", 1, "sku"),
            ("[[rule]]\npools = [\" x\"]", 1, "pool"),
            ("[[rule]\n", 1, ""),
        ] {
            let error = RouteTable::parse(1, text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.reason.contains(word), "{text:?}: {error}");
        }
        assert!(
            RouteTable::parse(1, &format!("#{}\n[[rule]]", "x".repeat(ROUTES_BYTES_MAX))).is_err()
        );
    }

    #[test]
    fn what_looks_like_a_mistake_is_warned_of() {
        let table = RouteTable::parse(1, "[[rule]]\n[[rule]]\nsku = \"x\"\n").unwrap();
        let warnings = table.warnings(None);
        assert_eq!(
            warnings,
            ["rule 2 can never match: rule 1 takes all its orders"]
        );
        let narrow = RouteTable::parse(1, "[[rule]]\nsku = \"x\"\n").unwrap();
        assert!(narrow.warnings(None)[0].contains("NoRoute"));
    }
}
