//! Route tables that were in force: which are kept, what they say, and the way back to one.

use std::fmt::Write as _;
use std::sync::Arc;

use croupier_protocol::{Refusal, RouteRow, RoutesShowReply};

use crate::engine::{Engine, Refused};
use crate::route::DEFAULT_ROUTES;
use crate::state::{RouteTables, TableFact};

/// A table that was put in force: its version, the record's LSN, and what an operator may want to mend in it.
pub type Loaded = (u32, u64, Vec<String>);

impl Engine {
    /// The tables that are kept, the newest first; the built-in one is the last.
    pub fn routes_history(&self) -> Vec<RouteRow> {
        let tables = self.state.ledger().routes.clone();
        let mut rows = vec![row(&built_in(), &[])];
        let kept = tables.kept();
        rows.extend((0..kept.len()).map(|nth| row(&kept[nth], &kept[..nth])));
        rows.reverse();
        rows
    }

    /// The text of a table; `None`: of the one in force.
    pub fn routes_show(&self, version: Option<u32>) -> Result<RoutesShowReply, Refused> {
        let in_force = self.routes.load();
        let (version, toml) = match version {
            Some(version) if version != in_force.version() => {
                (version, text_of(&self.state.ledger().routes, version)?)
            }
            _ => (in_force.version(), in_force.text().into()),
        };
        Ok(RoutesShowReply {
            version,
            toml: toml.as_ref().into(),
        })
    }

    /// Puts a table in force again that was before; `None`: the last one that is another than the one in force. It gets a
    /// version of its own. `expect` is the version that must be in force, if it matters.
    pub fn routes_rollback(&self, to: Option<u32>, expect: Option<u32>) -> Result<Loaded, Refused> {
        let _one_at_a_time = self.lock(&self.importing);
        self.expect_routes(expect)?;
        let tables = self.state.ledger().routes.clone();
        let text = match to {
            Some(version) => text_of(&tables, version)?,
            None => text_before(&tables)?,
        };
        self.put_in_force(&text)
    }

    /// Refuses unless that version is in force. The caller has the turn of those who load tables.
    pub(crate) fn expect_routes(&self, expect: Option<u32>) -> Result<(), Refused> {
        let version = self.routes.load().version();
        match expect {
            Some(expect) if expect != version => Err(Refused::because(
                Refusal::RoutesChanged,
                format!(
                    "route table {version} is in force, not {expect}: look at it (`croupier routes show`), then load again and \
                     expect {version}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The table of a store that was never given one, as if it had been loaded before all others.
fn built_in() -> TableFact {
    TableFact {
        version: 0,
        lsn: 0,
        unix_ms: 0,
        toml: DEFAULT_ROUTES.into(),
    }
}

/// A table of the history; `before`: the loaded ones that are kept from before it, by version.
fn row(table: &TableFact, before: &[TableFact]) -> RouteRow {
    let same = before.iter().rev().find(|other| other.toml == table.toml);
    let is_built_in = table.version > 0 && *table.toml == *DEFAULT_ROUTES;
    RouteRow {
        version: table.version,
        lsn: table.lsn,
        unix_ms: table.unix_ms,
        bytes: table.toml.len() as u32,
        rules: rule_names(&table.toml).len() as u32,
        same_as: same.map(|other| other.version).or(is_built_in.then_some(0)),
    }
}

fn text_of(tables: &RouteTables, version: u32) -> Result<Arc<str>, Refused> {
    if version == 0 {
        return Ok(DEFAULT_ROUTES.into());
    }
    let found = tables.kept().iter().find(|table| table.version == version);
    found.map(|table| table.toml.clone()).ok_or_else(|| {
        let text = format!("route table {version} is not kept: {}", kept(tables));
        Refused::because(Refusal::RoutesVersionUnknown, text)
    })
}

/// The text of the last table that is another than the one in force.
fn text_before(tables: &RouteTables) -> Result<Arc<str>, Refused> {
    let none = |why: &str| {
        let text = format!("{why}: {}", kept(tables));
        Refused::because(Refusal::RoutesVersionUnknown, text)
    };
    let Some((in_force, before)) = tables.kept().split_last() else {
        return Err(none("there was no table before the built-in one"));
    };
    let mut before = before.iter().rev().map(|table| &table.toml);
    if let Some(other) = before.find(|toml| **toml != in_force.toml) {
        return Ok(other.clone());
    }
    // Version 1 took the place of the built-in table. What an older first one took the place of, nobody knows any more.
    match tables.kept()[0].version {
        1 if *in_force.toml != *DEFAULT_ROUTES => Ok(DEFAULT_ROUTES.into()),
        _ => Err(none("no table from before is kept that is another one")),
    }
}

/// Which versions are kept, for people.
fn kept(tables: &RouteTables) -> String {
    let mut text = "kept are 0 (the built-in one)".to_owned();
    let mut versions = tables.kept().iter().map(|table| table.version).peekable();
    while let Some(first) = versions.next() {
        let mut last = first;
        while let Some(next) = versions.next_if_eq(&(last + 1)) {
            last = next;
        }
        let _ = match last - first {
            0 => write!(text, ", {first}"),
            _ => write!(text, ", {first} to {last}"),
        };
    }
    text
}

/// The rules of a table, each by its name or, without one, empty. It does not know what else a rule may say.
pub fn rule_names(toml: &str) -> Vec<String> {
    let table = toml.parse::<toml::Table>().unwrap_or_default();
    let rules = table.get("rule").and_then(toml::Value::as_array);
    let name = |rule: &toml::Value| Some(rule.get("name")?.as_str()?.to_owned());
    let names = rules.into_iter().flatten();
    names.map(|rule| name(rule).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of version and text.
    fn tables(kept: &[(u32, &str)]) -> RouteTables {
        let kept = kept.iter().map(|&(version, toml)| TableFact {
            version,
            lsn: version.into(),
            unix_ms: 1,
            toml: toml.into(),
        });
        RouteTables::of_kept(kept.collect()).unwrap()
    }

    #[test]
    fn the_one_before_is_the_last_that_is_another() {
        let check = |kept: &[(u32, &str)], expect: Option<&str>| {
            let before = text_before(&tables(kept));
            assert_eq!(before.as_deref().ok(), expect, "{kept:?}");
        };
        check(&[], None);
        check(&[(1, "a")], Some(DEFAULT_ROUTES));
        check(&[(1, "a"), (2, "a")], Some(DEFAULT_ROUTES));
        check(&[(1, DEFAULT_ROUTES)], None);
        check(&[(1, "a"), (2, "b")], Some("a"));
        check(&[(1, "a"), (2, "b"), (3, "b")], Some("a"));
        // Back, and back again.
        check(&[(1, "a"), (2, "b"), (3, "a")], Some("b"));
        check(&[(1, "a"), (2, DEFAULT_ROUTES)], Some("a"));
        // Of what was in force before, nothing is known.
        check(&[(5, "a")], None);
        check(&[(5, "a"), (6, "a")], None);
        check(&[(5, "a"), (6, "b")], Some("a"));
    }

    #[test]
    fn a_version_that_is_not_kept_is_refused_with_those_that_are() {
        let some = tables(&[(3, "a"), (4, "b"), (5, "c"), (9, "d"), (11, "e")]);
        let refused = text_of(&some, 8).unwrap_err();
        assert_eq!(refused.refusal, Refusal::RoutesVersionUnknown);
        assert_eq!(
            refused.text,
            "route table 8 is not kept: kept are 0 (the built-in one), 3 to 5, 9, 11"
        );
        assert_eq!(&*text_of(&some, 9).unwrap(), "d");
        assert_eq!(&*text_of(&some, 0).unwrap(), DEFAULT_ROUTES);
    }

    #[test]
    fn rules_are_counted_whatever_they_say() {
        for (toml, expect) in [
            (DEFAULT_ROUTES, &[""][..]),
            ("[[rule]]\nname = \"x\"\nspeed = 7\n[[rule]]\n", &["x", ""]),
            ("rule = 7", &[]),
            ("[[rule]\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(rule_names(toml), expect, "{toml}");
        }
    }
}
