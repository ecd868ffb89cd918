use std::path::PathBuf;

use bytes::BytesMut;

use super::*;
use crate::slab::fixture::{STORE_ID, Store, row};
use crate::slab::{Slab, SlabError};

const CLASS_BYTES: u32 = 32;

fn identity(slab: u32) -> SlabIdentity {
    SlabIdentity {
        store_id: STORE_ID,
        slab,
        sku: 7,
        batch: 3,
        pool: 2,
        created_unix_ms: 1,
    }
}

fn grower(store: &Store, slab: u32, cards: u32) -> Grower {
    let dir = store.slabs_dir();
    let room = (cards, CLASS_BYTES);
    Grower::create(&Disk::real(), &dir, &store.vault, identity(slab), room).unwrap()
}

fn append(store: &Store, grower: &mut Grower, secrets: &[&str]) -> Added {
    let cards = secrets.iter().map(|secret| NewCard {
        print: store.vault.fingerprint(7, secret.as_bytes()),
        row: ImportRow {
            expires_at_s: secret.len() as u64,
            ..row(1, secret.as_bytes())
        },
    });
    grower.append(&cards.collect::<Vec<_>>()).unwrap()
}

fn grown(added: Added) -> Grown {
    Grown {
        cards: added.first + added.cards,
        crcs: added.crcs,
    }
}

fn secret(slab: &Slab, slot: u32) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    slab.open_secret(slot, &mut out).ok().map(|_| out.to_vec())
}

fn flip(path: &PathBuf, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_slab_grows_while_it_is_mapped_and_tells_only_of_what_it_was_told() {
    let store = Store::new();
    let mut grower = grower(&store, 1, 100);
    let slab = Slab::open(grower.path(), &store.vault, None).unwrap();
    assert!(slab.grows() && slab.filled() == 0 && slab.cards() == 100);
    assert_eq!(slab.header_hash(), grower.header_hash());
    slab.verify_grown(&Grown::default()).unwrap();
    let first = append(&store, &mut grower, &["one", "two!"]);
    assert_eq!((first.first, first.cards, grower.room()), (0, 2, 98));
    assert_eq!(secret(&slab, 0), None, "no record says that it is there");
    slab.grow_to(2);
    assert_eq!(secret(&slab, 0).unwrap(), b"one");
    assert_eq!((slab.expires_at_s(1), slab.expires_from_s()), (4, 3));
    let second = append(&store, &mut grower, &["three"]);
    assert_eq!((second.first, second.cards), (2, 1));
    slab.verify_grown(&grown(first)).unwrap();
    slab.grow_to(3);
    assert_eq!(secret(&slab, 2).unwrap(), b"three");
    assert_eq!(secret(&slab, 3), None);
    slab.verify_grown(&grown(second)).unwrap();
    assert!(slab.verify_grown(&grown(first)).is_err());
    let print = store.vault.fingerprint(7, b"two!");
    assert_eq!(slab.find(print), Some(1));
    assert_eq!(slab.find(store.vault.fingerprint(7, b"four")), None);
    assert_eq!(slab.entry(0).unwrap().label, "");
}

#[test]
fn a_changed_bit_of_what_is_filled_is_told_and_of_the_rest_is_not() {
    let store = Store::new();
    let mut grower = grower(&store, 1, 70);
    let added = append(&store, &mut grower, &["a", "b"]);
    let (path, layout) = (grower.path().to_owned(), grower.layout);
    let check = |path: &PathBuf| {
        let slab = Slab::open(path, &store.vault, None)?;
        slab.grow_to(2);
        slab.verify_grown(&grown(added))
    };
    check(&path).unwrap();
    for section in GROWING {
        let part = layout.part(section, 2);
        for offset in [part.start, part.end - 1] {
            flip(&path, offset);
            assert!(matches!(
                check(&path),
                Err(SlabError::SectionDamaged { .. })
            ));
            let room = (70, CLASS_BYTES);
            assert!(!holds(&Disk::real(), &path, room, &grown(added)).unwrap());
            flip(&path, offset);
        }
        // Half of a write that no record tells of.
        flip(&path, part.end);
        check(&path).unwrap();
        flip(&path, part.end);
    }
    flip(&path, layout.claims_offset);
    assert!(check(&path).is_err());
}

#[test]
fn a_slab_is_made_once_and_filled_to_its_end() {
    let store = Store::new();
    let mut first = grower(&store, 5, 3);
    let dir = store.slabs_dir();
    let again = Grower::create(&Disk::real(), &dir, &store.vault, identity(5), (3, 32));
    assert!(matches!(again, Err(IngestError::SlabExists { .. })));
    append(&store, &mut first, &["x", "y", "z"]);
    assert_eq!(first.room(), 0);
    assert_eq!(growing_cards_max(32), GROWING_SLAB_CARDS_MAX);
    assert_eq!(growing_cards_max(4112), 1016);
}
