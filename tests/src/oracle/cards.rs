//! Cards and their secrets: what imports have brought, and which order has got it.
//!
//! A million orders fit in here, so a secret is kept once and an answer keeps places of cards only.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash as _, Hasher as _};

use croupier_client::{Card, CardRef, Lsn, OrderId};

/// The cards of an order, as they were first told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) lsn: Lsn,
    /// Which secret each has, is known by the card: see [`CardBook::give`].
    pub(super) cards: Box<[CardRef]>,
}

impl Answer {
    pub(super) fn new(lsn: Lsn, cards: &[Card]) -> Self {
        let cards = cards.iter().map(|card| card.card).collect();
        Self { lsn, cards }
    }
}

/// A secret that an import may have made sellable.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Which of `names`.
    sku: u16,
    /// The card that was told with it.
    card: Option<CardRef>,
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    by: OrderId,
    /// Of its secret.
    hash: u32,
}

/// A secret that may be dealt more than once.
#[derive(Debug, Clone)]
struct Uses {
    /// How often at most; `None`: on without end.
    max: Option<u32>,
    /// Where it was, as orders were told.
    told: BTreeSet<CardRef>,
}

/// Every card and every secret of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct CardBook {
    /// Those that may be dealt more than once, besides.
    uses: HashMap<Box<[u8]>, Uses>,
    by_secret: HashMap<Box<[u8]>, Known>,
    owners: HashMap<CardRef, Owned>,
    /// Names of SKUs.
    names: Vec<String>,
}

impl CardBook {
    /// Books secrets that may be sold from now on.
    pub(super) fn sellable(&mut self, sku: &str, secrets: &[Vec<u8>]) {
        let known = self.names.iter().position(|name| name == sku);
        let nth = known.unwrap_or_else(|| {
            self.names.push(sku.to_owned());
            self.names.len() - 1
        });
        let sku = u16::try_from(nth).expect("a test has a few SKUs");
        for secret in secrets {
            // One that was sent before may be an order's already.
            let known = self.by_secret.entry(secret.as_slice().into());
            known.or_insert(Known { sku, card: None }).sku = sku;
        }
    }

    /// Books that these secrets may be dealt more than once: so often at most, or on without end.
    pub(super) fn reusable(&mut self, secrets: &[Vec<u8>], max: Option<u32>) {
        for secret in secrets {
            let told = BTreeSet::new();
            self.uses
                .insert(secret.as_slice().into(), Uses { max, told });
        }
    }

    /// Gives a card to an order, which may have it already.
    ///
    /// # Panics
    /// If it is no imported card of the SKU, another order has it, or it had another secret.
    pub(super) fn give(&mut self, id: OrderId, sku: Option<&str>, card: &Card) {
        let (place, secret) = (card.card, card.secret.as_bytes());
        let known = self.by_secret.get_mut(secret);
        let known = known.filter(|known| Some(self.names[usize::from(known.sku)].as_str()) == sku);
        let Some(known) = known else {
            panic!("{id}: {place} is no imported card of its SKU");
        };
        if let Some(uses) = self.uses.get_mut(secret) {
            uses.told.insert(place);
            let often = uses.told.len();
            assert!(
                uses.max.is_none_or(|max| often <= max as usize),
                "{id}: {place} is dealt {often} times, and may be {:?} times",
                uses.max
            );
        } else {
            let told = *known.card.get_or_insert(place);
            assert_eq!(
                told, place,
                "{id}: one secret in two cards, so one card for two orders"
            );
        }
        let hash = hash_of(secret);
        match self.owners.entry(place) {
            Entry::Vacant(vacant) => {
                vacant.insert(Owned { by: id, hash });
            }
            Entry::Occupied(owned) => {
                let Owned { by, hash: before } = *owned.get();
                assert_eq!(by, id, "one card for two orders: {place}");
                assert_eq!(before, hash, "{id}: {place} had another secret before");
            }
        }
    }

    /// The order that has a card.
    pub(super) fn owner(&self, card: CardRef) -> Option<OrderId> {
        self.owners.get(&card).map(|owned| owned.by)
    }

    /// Cards that orders have got.
    pub(super) fn owned(&self) -> usize {
        self.owners.len()
    }

    /// Every secret that was ever sent to the store.
    pub(super) fn secrets(&self) -> Vec<Vec<u8>> {
        self.by_secret
            .keys()
            .map(|secret| secret.to_vec())
            .collect()
    }

    /// How many of them are of each SKU.
    pub(super) fn sent(&self) -> BTreeMap<&str, u64> {
        let mut sent = BTreeMap::new();
        for known in self.by_secret.values() {
            let name = self.names[usize::from(known.sku)].as_str();
            *sent.entry(name).or_default() += 1;
        }
        sent
    }

    /// The secrets of this book and the owners of an earlier one.
    pub(super) fn owned_as_in(mut self, before: Self) -> Self {
        for (secret, known) in &mut self.by_secret {
            let earlier = before.by_secret.get(secret);
            known.card = earlier.and_then(|earlier| earlier.card);
        }
        for (secret, uses) in &mut self.uses {
            let earlier = before.uses.get(secret);
            uses.told = earlier.map_or_else(BTreeSet::new, |earlier| earlier.told.clone());
        }
        self.owners = before.owners;
        self
    }
}

fn hash_of(secret: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    secret.hash(&mut hasher);
    hasher.finish() as u32
}
