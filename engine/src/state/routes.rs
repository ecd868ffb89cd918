//! The route tables that were in force, with their texts: the last of them, so that one can go back.

use std::sync::Arc;

/// Most tables that are kept, the one in force among them.
pub const TABLES_KEPT_MAX: usize = 64;

/// A table that was put in force, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFact {
    pub version: u32,
    /// Of the record; 0 if that is not known: checkpoints of versions before this one do not say it.
    pub lsn: u64,
    /// When that was, in Unix milliseconds; 0 if that is not known.
    pub unix_ms: u64,
    pub toml: Arc<str>,
}

/// The tables that are kept, by version; the last is in force. Without any, the built-in one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTables(Vec<TableFact>);

impl RouteTables {
    /// Those of a checkpoint. The error says what in them cannot be.
    pub fn of_kept(kept: Vec<TableFact>) -> Result<RouteTables, String> {
        if kept.len() > TABLES_KEPT_MAX {
            return Err(format!("{} route tables are kept", kept.len()));
        }
        let mut tables = RouteTables::default();
        kept.into_iter().try_for_each(|table| tables.put(table))?;
        Ok(tables)
    }

    /// Another table is in force. The oldest goes when there are too many. The error says why it cannot be.
    pub(super) fn put(&mut self, mut table: TableFact) -> Result<(), String> {
        let before = self.version();
        if table.version <= before {
            let version = table.version;
            return Err(format!("route table {version} comes after {before}"));
        }
        // Who goes back and forth between two tables keeps two texts.
        if let Some(same) = self.0.iter().find(|kept| kept.toml == table.toml) {
            table.toml = same.toml.clone();
        }
        if self.0.len() == TABLES_KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push(table);
        Ok(())
    }

    /// The one in force; `None`: the built-in one.
    pub fn in_force(&self) -> Option<&TableFact> {
        self.0.last()
    }

    /// The version in force; 0: the built-in one.
    pub fn version(&self) -> u32 {
        self.in_force().map_or(0, |table| table.version)
    }

    /// All that are kept, by version.
    pub fn kept(&self) -> &[TableFact] {
        &self.0
    }

    /// Whether there is no more to say than version and text of the one in force.
    pub fn is_plain(&self) -> bool {
        match &self.0[..] {
            [] => true,
            [one] => one.lsn == 0 && one.unix_ms == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(version: u32, toml: &str) -> TableFact {
        TableFact {
            version,
            lsn: 10 + u64::from(version),
            unix_ms: 5,
            toml: toml.into(),
        }
    }

    #[test]
    fn the_last_ones_are_kept_and_the_oldest_goes() {
        let mut tables = RouteTables::default();
        assert_eq!((tables.version(), tables.is_plain()), (0, true));
        for version in 1..=100 {
            tables.put(table(version, &version.to_string())).unwrap();
            assert_eq!(tables.version(), version);
            assert!(!tables.is_plain());
        }
        let kept: Vec<u32> = tables.kept().iter().map(|table| table.version).collect();
        assert!(kept.into_iter().eq(37..=100));
    }

    #[test]
    fn versions_only_grow() {
        let mut tables = RouteTables::default();
        tables.put(table(3, "a")).unwrap();
        for version in [0, 2, 3] {
            let before = tables.clone();
            let error = tables.put(table(version, "b")).unwrap_err();
            assert!(error.contains("after 3"), "{error}");
            assert_eq!(tables, before);
        }
        tables.put(table(5, "b")).unwrap();
        let all = |range: std::ops::Range<u32>| range.map(|n| table(n, "t")).collect();
        assert!(RouteTables::of_kept(all(1..65)).is_ok());
        assert!(RouteTables::of_kept(all(1..66)).is_err());
    }

    #[test]
    fn the_same_text_is_kept_once() {
        let mut tables = RouteTables::default();
        for (version, toml) in (1..).zip(["a", "b", "a"]) {
            tables.put(table(version, toml)).unwrap();
        }
        let [first, _, last] = tables.kept() else {
            panic!("{tables:?}")
        };
        assert!(Arc::ptr_eq(&first.toml, &last.toml));
    }
}
