//! The route tables that orders were dealt by, and their outside channels under numbers of one kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::route::{Asked, DEFAULT_ROUTES, Outside, RouteTable, ToAsk};
use crate::state::State;
use crate::state::record::Fact;

/// Most names of outside channels that are told apart: a bound for what is kept of each.
const CHANNELS_SEEN_MAX: usize = 4096;
/// Most recorded tables that are kept at a time.
const TABLES_MAX: usize = 128;

/// Number of an outside channel in this what-if, by its name: a channel of one name is the same in all tables.
pub type Channel = u16;

/// A table with its channels found.
#[derive(Clone, Debug)]
pub struct Known {
    table: Arc<RouteTable>,
    /// By place in [`RouteTable::outside`].
    numbers: Arc<[Channel]>,
}

impl Known {
    /// Its outside channels.
    pub fn outside(&self) -> impl Iterator<Item = (Channel, &Outside)> {
        self.numbers.iter().copied().zip(self.table.outside())
    }

    /// The outside channels that an order may be asked of; `None`: there are none.
    pub fn to_ask(&self, sku: &str, asked: &Asked, unix_ms: u64) -> Option<ToAsk> {
        if self.numbers.is_empty() {
            return None;
        }
        let moment = self.table.moment(unix_ms);
        let to_ask = self.table.to_ask(sku, asked, moment)?;
        Some(self.numbered(to_ask))
    }

    /// The same with the numbers that channels have in this what-if, of what this table has told.
    pub fn numbered(&self, mut to_ask: ToAsk) -> ToAsk {
        for (channel, _) in to_ask.stages.iter_mut().flatten() {
            *channel = self.numbers[usize::from(*channel)];
        }
        to_ask
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tables {
    names: Vec<String>,
    numbers: HashMap<String, Channel>,
    by_version: BTreeMap<u32, Known>,
}

impl Tables {
    /// Those that a state keeps, and the built-in one.
    pub fn of(state: &State) -> Tables {
        let mut tables = Tables::default();
        tables.put(0, DEFAULT_ROUTES);
        let ledger = state.ledger();
        for kept in ledger.routes.kept() {
            tables.put(kept.version, &kept.toml);
        }
        // The text of one that is over is in the history, or forgotten.
        if let Some(canary) = ledger.canaries.under_way() {
            tables.put(canary.version, &canary.toml);
        }
        tables
    }

    /// A fact may be one of a table that comes.
    pub fn learn(&mut self, fact: &Fact<'_>) {
        match fact {
            Fact::RoutesLoaded { version, toml } => self.put(*version, toml),
            Fact::Canary(canary) => {
                if let Some((_, toml)) = canary.start {
                    self.put(canary.version, toml);
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, version: u32, toml: &str) {
        if self.by_version.contains_key(&version) {
            return;
        }
        // One that does not parse is one of another version of this program.
        let Ok(table) = RouteTable::parse(version, toml) else {
            return;
        };
        if let Some(known) = self.known(Arc::new(table)) {
            self.by_version.insert(version, known);
        }
        // The built-in one stays.
        if self.by_version.len() > TABLES_MAX
            && let Some(oldest) = self.by_version.keys().nth(1).copied()
        {
            self.by_version.remove(&oldest);
        }
    }

    /// A table with its channels found; `None`: there are too many channels in all.
    pub fn known(&mut self, table: Arc<RouteTable>) -> Option<Known> {
        let numbers = table.outside().iter().map(|one| self.number_of(&one.name));
        let numbers = numbers.collect::<Option<Arc<[Channel]>>>()?;
        Some(Known { table, numbers })
    }

    fn number_of(&mut self, name: &str) -> Option<Channel> {
        if let Some(known) = self.numbers.get(name) {
            return Some(*known);
        }
        if self.names.len() == CHANNELS_SEEN_MAX {
            return None;
        }
        let number = self.names.len() as Channel;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// The table of a version; `None`: it is not known any more.
    pub fn get(&self, version: u32) -> Option<&Known> {
        self.by_version.get(&version)
    }

    /// The number of a channel, if a table has it.
    pub fn channel(&self, name: &str) -> Option<Channel> {
        self.numbers.get(name).copied()
    }

    /// Names of channels by their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_channel(name: &str) -> String {
        format!(
            "[[channel]]\nname = \"{name}\"\nkind = \"issuer\"\n[[rule]]\nchannels = [\"{name}\"]\n"
        )
    }

    #[test]
    fn a_channel_has_one_number_in_all_tables() {
        let mut tables = Tables::default();
        for (version, name) in [(1, "alpha"), (2, "beta"), (3, "alpha")] {
            let toml = &with_channel(name);
            tables.learn(&Fact::RoutesLoaded { version, toml });
        }
        let first = |version| tables.get(version).unwrap().outside().next().unwrap().0;
        assert_eq!([1, 2, 3].map(first), [0, 1, 0]);
        assert_eq!(
            (tables.channel("beta"), tables.channel("gamma")),
            (Some(1), None)
        );
        assert_eq!(tables.names(), ["alpha", "beta"]);
    }

    #[test]
    fn the_oldest_tables_go_but_for_the_built_in_one() {
        let mut tables = Tables::default();
        tables.put(0, DEFAULT_ROUTES);
        tables.put(7, "no table");
        for version in 8..300 {
            tables.put(version, DEFAULT_ROUTES);
        }
        assert_eq!(tables.by_version.len(), TABLES_MAX);
        assert!(tables.get(0).is_some() && tables.get(299).is_some());
        assert!(tables.get(7).is_none() && tables.get(8).is_none());
    }
}
