use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::*;
use crate::slab::fixture::{STORE_ID, Store, secrets_of};
use crate::slab::layout::PRINT_ENTRY_BYTES;
use crate::slab::vault::KeyFile;

const SECRETS: [&str; 4] = [
    "ABCD-EFGH-1234",
    "\u{5361}\u{5bc6}",
    "x",
    "thirty bytes of a secret .....",
];

/// A slab on disk whose bytes a test may change.
struct Victim {
    store: Store,
    path: PathBuf,
    expect: ExpectSlab,
    header: SlabHeader,
}

impl Victim {
    fn new() -> Self {
        let store = Store::new();
        let slab = store.slab(&SECRETS);
        let expect = ExpectSlab {
            id: slab.id(),
            header_hash: slab.header_hash(),
        };
        Self {
            path: slab.path().to_owned(),
            expect,
            header: slab.header().clone(),
            store,
        }
    }

    fn open(&self) -> Result<Slab, SlabError> {
        Slab::open(&self.path, &self.store.vault, Some(self.expect))
    }

    fn flip(&self, offset: u64) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }
}

/// The vault of the golden slabs: its key file, written into `dir`, is as `golden/make.py` says.
fn golden_vault(dir: &Path) -> Vault {
    let mut key_file = Vec::from(*b"CRPRKEY1");
    key_file.extend((0x10..0x20).chain(0x40..0x60).chain([0; 4]));
    key_file.extend(crc32c(&key_file).to_le_bytes());
    let key_path = dir.join("store.key");
    crate::slab::durable::write_new(&key_path, &key_file, 0o600).unwrap();
    Vault::new(&KeyFile::load(&key_path).unwrap())
}

#[test]
fn a_golden_slab_of_version_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    let vault = golden_vault(dir.path());
    let path = dir.path().join("slab-0000002a.slab");
    fs::write(&path, include_bytes!("../golden/slab-0000002a.slab")).unwrap();

    let slab = Slab::open(&path, &vault, None).unwrap();
    slab.verify_sections().unwrap();
    assert_eq!(
        (
            slab.id(),
            slab.sku(),
            slab.batch(),
            slab.pool(),
            slab.cards()
        ),
        (42, 7, 3, 2, 3)
    );
    assert_eq!(&slab.header_hash()[..4], [0x45, 0xa6, 0x95, 0x27]);
    let secrets: [&[u8]; 3] = [
        b"ABCD-EFGH-1234",
        "\u{5361}\u{5bc6}".as_bytes(),
        &[b'x'; 30],
    ];
    assert_eq!(secrets_of(&slab), secrets);
    let entries = [
        SlotEntry {
            expires_at_s: 0,
            premium_e4: None,
            cost_e4: None,
            label: "spring",
        },
        SlotEntry {
            expires_at_s: 1_900_000_000,
            premium_e4: Some(12_500),
            cost_e4: Some(-1),
            label: "",
        },
        SlotEntry {
            expires_at_s: 0,
            premium_e4: Some(0),
            cost_e4: Some(990_000),
            label: "\u{fc}ber",
        },
    ];
    for (slot, expect) in (0..).zip(entries) {
        assert_eq!(slab.entry(slot).unwrap(), expect);
        assert_eq!(slab.expires_at_s(slot), expect.expires_at_s);
        assert_eq!(
            slab.find(vault.fingerprint(7, secrets[slot as usize])),
            Some(slot)
        );
    }
    assert_eq!(
        slab.find(vault.fingerprint(8, secrets[0])),
        None,
        "a card of another SKU"
    );
}

#[test]
fn a_golden_slab_that_grows_opens_as_far_as_it_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let vault = golden_vault(dir.path());
    let path = dir.path().join("slab-0000002c.slab");
    fs::write(&path, include_bytes!("../golden/slab-0000002c.slab")).unwrap();

    let slab = Slab::open(&path, &vault, None).unwrap();
    assert!(slab.grows());
    assert_eq!((slab.cards(), slab.filled()), (5, 0));
    assert_eq!(&slab.header_hash()[..4], [0xc9, 0x5c, 0x97, 0x24]);
    slab.verify_grown(&Grown::default()).unwrap();
    slab.grow_to(3);
    let grown = Grown {
        cards: 3,
        crcs: [0x6f68_fb94, 0xbc43_dfad, 0x9cb3_76c4],
    };
    slab.verify_grown(&grown).unwrap();
    let secret = "\u{5361}\u{5bc6}".as_bytes();
    assert_eq!(slab.find(vault.fingerprint(7, secret)), Some(1));
    let mut out = BytesMut::new();
    slab.open_secret(1, &mut out).unwrap();
    assert_eq!(&out[..], secret);
    assert!(slab.open_secret(3, &mut out).is_err());
    let expires_s = 1_900_000_000;
    assert_eq!(
        (slab.expires_at_s(1), slab.expires_from_s()),
        (expires_s, expires_s)
    );
    let header = slab.header().to_bytes();
    assert_eq!(header[..], fs::read(&path).unwrap()[..HEADER_BYTES]);
}

/// Slot 1 of both golden slabs expires; only the second's header says so, and it may not say anything else.
#[test]
fn a_slab_knows_when_its_first_card_expires() {
    let dir = tempfile::tempdir().unwrap();
    let vault = golden_vault(dir.path());
    let golden: [(&str, &[u8]); 2] = [
        (
            "slab-0000002a.slab",
            include_bytes!("../golden/slab-0000002a.slab"),
        ),
        (
            "slab-0000002b.slab",
            include_bytes!("../golden/slab-0000002b.slab"),
        ),
    ];
    for (name, bytes) in golden {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let slab = Slab::open(&path, &vault, None).unwrap();
        assert_eq!(slab.expires_from_s(), 1_900_000_000, "{name}");
        slab.verify_sections().unwrap();
    }

    let mut bytes = golden[1].1.to_vec();
    bytes[212..220].copy_from_slice(&2_000_000_000u64.to_le_bytes());
    let crc = crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    let path = dir.path().join(golden[1].0);
    fs::write(&path, bytes).unwrap();
    let error = Slab::open(&path, &vault, None).unwrap().verify_sections();
    assert!(matches!(
        error,
        Err(SlabError::ExpiryDiffers {
            told: 2_000_000_000,
            found: 1_900_000_000,
            ..
        })
    ));
}

#[test]
fn an_undamaged_slab_is_in_order() {
    let victim = Victim::new();
    let slab = victim.open().unwrap();
    slab.verify_sections().unwrap();
    assert_eq!(
        secrets_of(&slab),
        SECRETS.map(|secret| secret.as_bytes().to_vec())
    );
    assert_eq!(slab.fingerprints().len() * PRINT_ENTRY_BYTES, 96);
    assert_eq!(slab.claim_words().len(), 1);
    (0..5).for_each(|slot| slab.prefetch(slot));
    let text = format!("{slab:?}");
    assert!(text.starts_with("Slab(1, 4 cards, "), "{text}");
}

#[test]
fn claims_are_private_to_the_mapping() {
    let victim = Victim::new();
    let (one, two) = (victim.open().unwrap(), victim.open().unwrap());
    one.claim_words()[0].store(u64::MAX, Ordering::SeqCst);
    assert_eq!(two.claim_words()[0].load(Ordering::SeqCst), 0);
    one.verify_sections().unwrap();
}

#[test]
fn another_length_is_refused() {
    let victim = Victim::new();
    let whole = fs::read(&victim.path).unwrap();
    for length in [
        0,
        1,
        4095,
        4096,
        whole.len() - 4096,
        whole.len() - 1,
        whole.len() + 1,
        whole.len() + 4096,
    ] {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        fs::write(&victim.path, &bytes).unwrap();
        let error = victim.open().unwrap_err();
        match length < HEADER_BYTES {
            true => assert!(
                matches!(error, SlabError::Header { .. }),
                "{length}: {error}"
            ),
            false => assert!(
                matches!(error, SlabError::WrongLength { .. }),
                "{length}: {error}"
            ),
        }
        assert!(error.to_string().contains("slab-00000001.slab"), "{error}");
    }
}

#[test]
fn a_damaged_header_is_refused_wherever_it_is_damaged() {
    let victim = Victim::new();
    for offset in (0..HEADER_BYTES as u64).step_by(13) {
        victim.flip(offset);
        let error = victim.open().unwrap_err();
        assert!(
            matches!(error, SlabError::Header { .. }),
            "{offset}: {error}"
        );
        victim.flip(offset);
    }
    victim.open().unwrap();
}

#[test]
fn a_damaged_section_is_named_with_its_place() {
    let victim = Victim::new();
    let layout = victim.header.layout;
    for section in [Section::Slots, Section::Sealed, Section::Prints] {
        let range = layout.section(section);
        for offset in [range.start, (range.start + range.end) / 2, range.end - 1] {
            victim.flip(offset);
            match victim.open().unwrap().verify_sections().unwrap_err() {
                SlabError::SectionDamaged {
                    section: name,
                    range: told,
                    ..
                } => {
                    assert_eq!((name, told), (section.name(), range.clone()));
                }
                other => panic!("{offset}: {other}"),
            }
            victim.flip(offset);
        }
    }
    let zeros = [
        layout.claims_offset,
        layout.slots_offset - 1,
        layout.sealed_offset - 1,
    ]
    .into_iter()
    .chain([layout.section(Section::Prints).end, layout.file_bytes - 1]);
    for offset in zeros {
        victim.flip(offset);
        // Claim words that are not zero are refused at once: recovery would take them for sold cards.
        let found = victim.open().and_then(|slab| slab.verify_sections());
        match found.unwrap_err() {
            SlabError::NotZero { offset: told, .. } => assert_eq!(told, offset),
            other => panic!("{offset}: {other}"),
        }
        victim.flip(offset);
    }
    victim.open().unwrap().verify_sections().unwrap();
}

#[test]
fn a_damaged_slot_harms_no_other() {
    let victim = Victim::new();
    let slot_bytes = victim.header.layout.slot_bytes() as u64;
    victim.flip(victim.header.layout.sealed_offset + 2 * slot_bytes + 5);
    let slab = victim.open().unwrap();
    let mut out = BytesMut::new();
    for slot in [0, 1, 3] {
        slab.open_secret(slot, &mut out).unwrap();
    }
    let length = out.len();
    assert_eq!(
        slab.open_secret(2, &mut out),
        Err(SealError::Damaged { slab: 1, slot: 2 })
    );
    for slot in [4, 5, 64, u32::MAX] {
        let expect = Err(SealError::NoSuchSlot {
            slab: 1,
            slot,
            cards: 4,
        });
        assert_eq!(slab.open_secret(slot, &mut out), expect);
        assert!(matches!(
            slab.entry(slot),
            Err(SlabError::EntryDamaged { .. })
        ));
    }
    assert_eq!(out.len(), length);
}

#[test]
fn a_damaged_label_is_an_error_and_not_a_panic() {
    let victim = Victim::new();
    let label_offset = victim.header.layout.slots_offset + 24;
    victim.flip(label_offset);
    let slab = victim.open().unwrap();
    assert!(matches!(
        slab.entry(0),
        Err(SlabError::EntryDamaged { slot: 0, .. })
    ));
    slab.entry(1).unwrap();
}

#[test]
fn a_renamed_slab_is_refused() {
    let victim = Victim::new();
    for name in [
        "slab-00000002.slab",
        "slab-1.slab",
        "slab-00000001.slab.partial",
        "x",
    ] {
        let renamed = victim.path.with_file_name(name);
        fs::copy(&victim.path, &renamed).unwrap();
        let error = Slab::open(&renamed, &victim.store.vault, None).unwrap_err();
        assert!(
            matches!(error, SlabError::WrongName { slab: 1, .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn another_slab_than_the_logs_is_refused() {
    let victim = Victim::new();
    let mut other_hash = victim.expect;
    other_hash.header_hash[31] ^= 1;
    for expect in [
        other_hash,
        ExpectSlab {
            id: 2,
            ..victim.expect
        },
    ] {
        let error = Slab::open(&victim.path, &victim.store.vault, Some(expect)).unwrap_err();
        assert!(matches!(error, SlabError::NotTheLogs { .. }), "{error}");
    }
}

#[test]
fn other_stores_and_keys_are_refused() {
    let victim = Victim::new();
    let vault_of = |name: &str, store_id| {
        let path = victim.path.with_file_name(name);
        Vault::new(&KeyFile::create(&path, store_id).unwrap())
    };
    let error = Slab::open(&victim.path, &vault_of("a.key", [1; 16]), None).unwrap_err();
    assert!(matches!(error, SlabError::OtherStore { .. }), "{error}");
    let error = Slab::open(&victim.path, &vault_of("b.key", STORE_ID), None).unwrap_err();
    assert!(matches!(error, SlabError::WrongKey { .. }), "{error}");
}

#[test]
fn a_slab_that_is_not_there_is_an_io_fault_with_its_path() {
    let victim = Victim::new();
    fs::remove_file(&victim.path).unwrap();
    let error = victim.open().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot open ") && error.contains("slab-00000001.slab"),
        "{error}"
    );
}

#[test]
fn names_and_numbers_agree() {
    let cases = [
        ("slab-00000000.slab", Some(0)),
        ("slab-0000002a.slab", Some(0x2A)),
        ("slab-ffffffff.slab", Some(u32::MAX)),
        ("slab-0000002A.slab", None),
        ("slab-2a.slab", None),
        ("slab-+000002a.slab", None),
        ("slab-100000000.slab", None),
        ("slab-0000002a.slab.partial", None),
        ("slab-.slab", None),
        ("", None),
    ];
    for (name, expect) in cases {
        assert_eq!(slab_of_file_name(name), expect, "{name}");
    }
}
