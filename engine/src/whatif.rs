//! What another route table would have made of the orders that a store has recorded.
//!
//! A [`Tally`] is told of orders one by one, asks the table about each, and counts. What records say of channels that are outside is
//! [`observed`], and [`compare`] runs who waits for them through [`queues`]. All that is pure. Where the orders come from is in
//! [`walk`]; docs/routes-history.md says what the counts mean.

pub mod compare;
pub mod figures;
mod log;
pub mod observed;
pub mod queues;
pub mod tables;
pub mod walk;

use std::collections::BTreeMap;

use croupier_protocol::Priority;

use crate::route::{Asked, RouteTable, Target, ToAsk};

/// An order as it was recorded.
#[derive(Clone, Debug)]
pub struct Recorded<'a> {
    /// Name of its SKU.
    pub sku: &'a str,
    /// Its cards are those that were asked for, which may be more than it got; its tag is 0 if none was recorded.
    pub asked: Asked,
    /// When it was recorded, in Unix milliseconds.
    pub unix_ms: u64,
    /// Cards that it got, was promised, or waited for.
    pub cards: u64,
    /// The lane that it was dealt from.
    pub lane: Priority,
    /// Pools of its SKU, in the order they were made.
    pub pools: &'a [String],
    /// Its cards by pool, as an index in `pools`. Nothing of one that waited.
    pub from: &'a [(u16, u64)],
}

/// Orders, and the cards of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub orders: u64,
    pub cards: u64,
}

impl Count {
    fn add(&mut self, cards: u64) {
        self.orders += 1;
        self.cards += cards;
    }
}

/// As it was recorded, and as it would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub before: Count,
    pub after: Count,
}

/// The counts of a what-if.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub all: Count,
    /// By the number of the rule.
    pub rules: BTreeMap<usize, Count>,
    /// By priority.
    pub lanes: [Change; 4],
    /// By name. Before: where cards came from. After: the pool that is tried first, with all cards of the order.
    pub pools: BTreeMap<String, Change>,
    /// Would wait in another lane.
    pub other_lane: Count,
    /// Got cards from pools in which the table does not look for them; so many cards.
    pub other_pools: Count,
    /// Would be sent to pools of which their SKU has none, and to no channel that is outside.
    pub no_pool: Count,
    /// No rule takes them.
    pub no_route: Count,
    /// The same by SKU and priority.
    pub no_route_by: BTreeMap<(String, Priority), Count>,
}

/// Where an order gets its cards by a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// From stock, as it did.
    AtOnce { lane: Priority },
    /// From channels that are outside.
    Asks { lane: Priority, to_ask: ToAsk },
    /// From stock that comes.
    ForStock,
    /// It gets none.
    Nowhere,
}

impl Tally {
    /// Counts an order, as at its time while the load is low: records do not tell the load. Tells where its cards are from.
    pub fn add(&mut self, table: &RouteTable, order: &Recorded<'_>) -> Sent {
        let cards = order.cards;
        self.all.add(cards);
        self.lanes[order.lane.as_index()].before.add(cards);
        for &(pool, cards) in order.from {
            if let Some(name) = order.pools.get(usize::from(pool)) {
                self.pool(name).before.add(cards);
            }
        }
        let moment = table.moment(order.unix_ms);
        match table.route(order.sku, &order.asked, moment) {
            Some(target) => self.add_sent(table, order, &target),
            None => {
                self.no_route.add(cards);
                let key = (order.sku.to_owned(), order.asked.priority);
                self.no_route_by.entry(key).or_default().add(cards);
                Sent::Nowhere
            }
        }
    }

    fn add_sent(&mut self, table: &RouteTable, order: &Recorded<'_>, sent: &Target) -> Sent {
        let cards = order.cards;
        self.rules.entry(sent.rule).or_default().add(cards);
        self.lanes[sent.lane.as_index()].after.add(cards);
        if sent.lane != order.lane {
            self.other_lane.add(cards);
        }
        let has = |name: &&String| order.pools.contains(*name);
        let first = match &sent.pools {
            None => order.pools.first(),
            Some(some) => some.iter().find(has),
        };
        let lane = sent.lane;
        let has_waited = order.from.is_empty();
        let asks = || {
            let moment = table.moment(order.unix_ms);
            let to_ask = table.to_ask(order.sku, &order.asked, moment)?;
            Some(Sent::Asks { lane, to_ask })
        };
        let Some(first) = first else {
            // A pool of a channel is there when it has delivered.
            return asks().unwrap_or_else(|| {
                self.no_pool.add(cards);
                Sent::Nowhere
            });
        };
        self.pool(first).after.add(cards);
        let is_tried = |pool: u16| {
            let name = order.pools.get(usize::from(pool));
            let is_named = |pools: &Vec<String>| name.is_some_and(|name| pools.contains(name));
            sent.pools.as_ref().is_none_or(is_named)
        };
        let elsewhere = order.from.iter().filter(|(pool, _)| !is_tried(*pool));
        let elsewhere: u64 = elsewhere.map(|(_, cards)| cards).sum();
        if elsewhere > 0 {
            self.other_pools.add(elsewhere);
        }
        match (has_waited, elsewhere) {
            (true, _) => asks().unwrap_or(Sent::ForStock),
            (false, 0) => Sent::AtOnce { lane },
            (false, _) => asks().unwrap_or(Sent::Nowhere),
        }
    }

    fn pool(&mut self, name: &str) -> &mut Change {
        if !self.pools.contains_key(name) {
            self.pools.insert(name.to_owned(), Change::default());
        }
        self.pools.get_mut(name).expect("it is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(orders: u64, cards: u64) -> Count {
        Count { orders, cards }
    }

    fn change(before: (u64, u64), after: (u64, u64)) -> Change {
        Change {
            before: count(before.0, before.1),
            after: count(after.0, after.1),
        }
    }

    /// An order of a SKU that has the pools main and vip, with its cards by pool.
    fn tell(
        tally: &mut Tally,
        table: &RouteTable,
        sku: &str,
        priority: Priority,
        from: &[(u16, u64)],
    ) {
        let pools = ["main", "vip"].map(str::to_owned);
        let order = Recorded {
            sku,
            asked: Asked {
                id: 1,
                holder: 0,
                sku: 1,
                priority,
                quantity: 9,
                tag: 0,
            },
            unix_ms: 1,
            cards: from.iter().map(|(_, cards)| cards).sum(),
            lane: priority,
            pools: &pools,
            from,
        };
        tally.add(table, &order);
    }

    #[test]
    fn orders_are_counted_as_they_were_and_as_they_would_be() {
        let text = "[[rule]]\nsku = \"a*\"\nlane = \"bulk\"\npools = [\"gone\", \"vip\"]\n\
                    [[rule]]\nsku = \"b\"\npools = [\"gone\"]\n\
                    [[rule]]\npriority = [\"vip\"]\n";
        let table = RouteTable::parse(1, text).unwrap();
        let mut tally = Tally::default();
        let mut tell =
            |sku, priority, from: &[(u16, u64)]| tell(&mut tally, &table, sku, priority, from);
        // The vip pool is the first there is, and main is not looked in.
        tell("a1", Priority::Standard, &[(0, 2), (1, 3)]);
        tell("a2", Priority::Bulk, &[(1, 1)]);
        tell("b", Priority::Vip, &[(0, 1)]);
        tell("c", Priority::Vip, &[(1, 4)]);
        tell("c", Priority::Standard, &[(0, 1)]);
        tell("c", Priority::Standard, &[]);
        assert_eq!(tally.all, count(6, 12));
        let rules = [(0, count(2, 6)), (1, count(1, 1)), (2, count(1, 4))];
        assert_eq!(tally.rules, rules.into());
        let [vip, standard, bulk, background] = tally.lanes;
        assert_eq!(vip, change((2, 5), (2, 5)));
        assert_eq!(standard, change((3, 6), (0, 0)));
        assert_eq!(bulk, change((1, 1), (2, 6)));
        assert_eq!(background, Change::default());
        let pools = [
            ("main".to_owned(), change((3, 4), (1, 4))),
            ("vip".to_owned(), change((3, 8), (2, 6))),
        ];
        assert_eq!(tally.pools, pools.into());
        assert_eq!(tally.other_lane, count(1, 5));
        assert_eq!(tally.other_pools, count(1, 2));
        assert_eq!(tally.no_pool, count(1, 1));
        assert_eq!(tally.no_route, count(2, 1));
        let by = [(("c".to_owned(), Priority::Standard), count(2, 1))];
        assert_eq!(tally.no_route_by, by.into());
    }
}
