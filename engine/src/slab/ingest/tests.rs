//! What an import accepts, what it rejects, and that it leaves nothing behind when it does not finish.

use std::collections::BTreeSet;

use croupier_protocol::REJECTIONS_LISTED_MAX;
use proptest::prelude::*;

use super::*;
use crate::slab::file::SlotEntry;
use crate::slab::fixture::{NOW_S, Store, row, secrets_of};
use crate::slab::slab_file_name;

fn codes(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("CODE-{number:08}")).collect()
}

fn stock(done: Ingested) -> Vec<Arc<Slab>> {
    done.slabs.into_iter().map(Arc::new).collect()
}

#[test]
fn rows_become_slabs_that_give_them_back_in_order() {
    let store = Store::new();
    let long = [b'x'; 4096];
    let secrets: [&[u8]; 5] = [b"one", &long, "\u{5361}\u{5bc6}".as_bytes(), b"a", b"three"];
    let done = store.import(store.plan(), &[], &secrets);
    assert_eq!(done.accepted, 5);
    assert!(done.rejections.is_empty() && done.counts.is_empty());
    assert_eq!(store.files(), ["slab-00000001.slab", "slab-00000002.slab"]);
    assert_eq!(
        done.slabs.iter().map(Slab::class_bytes).collect::<Vec<_>>(),
        [32, 4112]
    );
    assert_eq!(
        secrets_of(&done.slabs[0]),
        [secrets[0], secrets[2], secrets[3], secrets[4]]
    );
    assert_eq!(secrets_of(&done.slabs[1]), [secrets[1]]);
    for slab in &done.slabs {
        assert_eq!((slab.sku(), slab.batch(), slab.pool()), (7, 3, 2));
        assert_eq!(slab.header().identity.created_unix_ms, NOW_S * 1000);
        slab.verify_sections().unwrap();
        let reopened = Slab::open(slab.path(), &store.vault, None).unwrap();
        assert_eq!(reopened.header_hash(), slab.header_hash());
    }
}

#[test]
fn no_secret_stands_in_the_file() {
    let store = Store::new();
    let slab = store.slab(&["A-SECRET-ONE-COULD-SEE"]);
    let bytes = std::fs::read(slab.path()).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"A-SECRET"));
}

#[test]
fn each_row_is_accepted_or_has_its_reason() {
    use RejectReason::*;
    let (fits, too_long) = (vec![b's'; 4096], vec![b's'; 4097]);
    let (label, long_label) = (vec![b'l'; 256], vec![b'l'; 257]);
    /// Secret, label, expiry, what becomes of it.
    type Case<'a> = (&'a [u8], &'a [u8], u64, Option<RejectReason>);
    let cases: [Case<'_>; 14] = [
        (b"ok", b"", 0, None),
        (b"", b"", 0, Some(EmptySecret)),
        (&fits, b"", 0, None),
        (&too_long, b"", 0, Some(TooLong)),
        (b"\xFF\xFE", b"", 0, Some(InvalidUtf8)),
        (b"cut \xE5\x8D", b"", 0, Some(InvalidUtf8)),
        (b"label of 256", &label, 0, None),
        (b"label of 257", &long_label, 0, Some(LabelTooLong)),
        (b"label", b"\xC3\x28", 0, Some(InvalidUtf8)),
        (b"ok", b"", 0, Some(DuplicateInFile)),
        (b"expired", b"", NOW_S - 1, Some(Expired)),
        (b"expires now", b"", NOW_S, Some(Expired)),
        (b"expires next", b"", NOW_S + 1, None),
        (b"", b"\xFF", 1, Some(EmptySecret)),
    ];
    let store = Store::new();
    let mut ingest = store.begin(store.plan(), &[]);
    for (line, &(secret, label, expires_at_s, _)) in (1..).zip(&cases) {
        ingest
            .push(ImportRow {
                label,
                expires_at_s,
                ..row(line, secret)
            })
            .unwrap();
    }
    let done = ingest.finish().unwrap();
    let rejections = (1..)
        .zip(&cases)
        .filter_map(|(line, case)| Some((line, case.3?)));
    assert_eq!(done.rejections, rejections.collect::<Vec<_>>());
    assert_eq!(done.accepted, 4);
    assert_eq!(done.counts[&InvalidUtf8], 3);
    assert_eq!(done.counts[&Expired], 2);
    assert_eq!(done.counts.values().sum::<u64>(), 10);
}

#[test]
fn what_stands_beside_the_secret_is_kept_when_others_go() {
    let store = Store::new();
    let mut ingest = store.begin(store.plan(), &[]);
    /// Secret, label, expiry, premium, cost.
    type Row<'a> = (&'a str, &'a str, u64, Option<i64>, Option<i64>);
    let rows: [Row<'_>; 8] = [
        ("a", "gone with nobody", NOW_S + 9, None, None),
        ("a", "dropped", 0, Some(1), Some(1)),
        ("b", "same", 0, Some(i64::MAX), Some(-5)),
        ("a", "dropped too", 0, None, None),
        ("c", "same", 0, None, Some(0)),
        ("c", "", 0, None, None),
        ("d", "", NOW_S * 2, Some(0), None),
        ("e", "\u{5e74}\u{5361}", 0, None, None),
    ];
    for (line, &(secret, label, expires_at_s, premium_e4, cost_e4)) in (1..).zip(&rows) {
        let label = label.as_bytes();
        let row = ImportRow {
            label,
            expires_at_s,
            premium_e4,
            cost_e4,
            ..row(line, secret.as_bytes())
        };
        ingest.push(row).unwrap();
    }
    let done = ingest.finish().unwrap();
    let slab = &done.slabs[0];
    slab.verify_sections().unwrap();
    assert_eq!(
        secrets_of(slab),
        ["a", "b", "c", "d", "e"].map(|secret| secret.as_bytes().to_vec())
    );
    for (slot, &kept) in (0..).zip(&[0usize, 2, 4, 6, 7]) {
        let (_, label, expires_at_s, premium_e4, cost_e4) = rows[kept];
        let expect = SlotEntry {
            expires_at_s,
            premium_e4,
            cost_e4,
            label,
        };
        assert_eq!(slab.entry(slot).unwrap(), expect);
    }
    let labels = "gone with nobodysame\u{5e74}\u{5361}";
    assert_eq!(
        slab.header().layout.labels_bytes,
        labels.len() as u64,
        "one of each in a row"
    );
}

#[test]
fn duplicates_are_found_wherever_the_first_one_is() {
    use RejectReason::{DuplicateInFile, DuplicateInStock};
    let store = Store::new();
    let mut other_pool = store.plan();
    other_pool.pool = 5;
    let existing = stock(store.import(other_pool, &[], &["old", "older"]));
    // Chunks of three rows: 1-3, 4-6, 7-9, 10.
    let secrets = ["a", "b", "a", "c", "old", "b", "old", "c", "d", "a"];
    let done = store.import(store.plan_of(3), &existing, &secrets);
    let expect = [
        (3, DuplicateInFile),
        (5, DuplicateInStock),
        (6, DuplicateInFile),
        (7, DuplicateInStock),
        (8, DuplicateInFile),
        (10, DuplicateInFile),
    ];
    assert_eq!(done.rejections, expect);
    let kept: Vec<_> = done.slabs.iter().map(secrets_of).collect();
    assert_eq!(kept, [vec![b"a", b"b"], vec![b"c"], vec![b"d"]]);

    let existing = [existing, stock(done)].concat();
    let done = store.import(store.plan(), &existing, &["a", "new", "older", "new"]);
    let expect = [
        (1, DuplicateInStock),
        (3, DuplicateInStock),
        (4, DuplicateInFile),
    ];
    assert_eq!(done.rejections, expect);
}

#[test]
fn the_same_secret_of_another_sku_is_no_duplicate() {
    let store = Store::new();
    store.import(store.plan(), &[], &["one"]);
    let mut other_sku = store.plan();
    other_sku.sku = 8;
    // The caller gives the slabs of the SKU only.
    assert_eq!(store.import(other_sku, &[], &["one"]).accepted, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Against a set, whatever the sizes of chunks and however many work on them.
    #[test]
    fn reasons_do_not_depend_on_chunks_or_workers(
        in_stock in prop::collection::btree_set(0u32..30, 0..20),
        rows in prop::collection::vec(0u32..40, 0..60),
        slab_cards_max in 1u32..9,
        workers in 1usize..4,
    ) {
        let store = Store::new();
        let code = |number: &u32| format!("CODE-{number}");
        let before: Vec<String> = in_stock.iter().map(code).collect();
        let existing = stock(store.import(store.plan_of(7), &[], &before));
        let mut plan = store.plan_of(slab_cards_max);
        plan.limits.workers = workers;
        let secrets: Vec<String> = rows.iter().map(code).collect();
        let done = store.import(plan, &existing, &secrets);

        let (mut seen, mut accepted, mut rejected) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (line, number) in (1..).zip(&rows) {
            if in_stock.contains(number) {
                rejected.push((line, RejectReason::DuplicateInStock));
            } else if !seen.insert(*number) {
                rejected.push((line, RejectReason::DuplicateInFile));
            } else {
                accepted.push(code(number).into_bytes());
            }
        }
        prop_assert_eq!(done.rejections, rejected);
        prop_assert_eq!(done.accepted, accepted.len() as u64);
        let kept: Vec<Vec<u8>> = done.slabs.iter().flat_map(secrets_of).collect();
        prop_assert_eq!(kept, accepted);
    }
}

#[test]
fn many_rows_are_shared_by_workers_and_come_out_in_order() {
    let store = Store::new();
    let codes = codes(0..30_000);
    let mut rows = codes.clone();
    rows.extend_from_slice(&codes[..9_000]);
    let mut plan = store.plan_of(20_000);
    plan.limits.workers = 3;
    let done = store.import(plan, &[], &rows);
    assert_eq!(
        done.slabs.iter().map(Slab::cards).collect::<Vec<_>>(),
        [20_000, 10_000]
    );
    assert_eq!(done.counts[&RejectReason::DuplicateInFile], 9_000);
    let lines = done.rejections.iter().map(|&(line, _)| line);
    assert!(lines.eq(30_001..39_001));
    let kept = done.slabs.iter().flat_map(secrets_of);
    assert!(kept.eq(codes.iter().map(|code| code.clone().into_bytes())));
    for slab in &done.slabs {
        slab.verify_sections().unwrap();
        assert!(
            slab.fingerprints()
                .is_sorted_by_key(|entry| entry.fingerprint)
        );
    }
    for (slot, code) in (0..20_000).zip(&codes).step_by(97) {
        let fingerprint = store.vault.fingerprint(7, code.as_bytes());
        assert_eq!(done.slabs[0].find(fingerprint), Some(slot));
        assert_eq!(done.slabs[1].find(fingerprint), None);
    }
}

#[test]
fn a_slab_is_closed_at_whatever_limit_comes_first() {
    type Change = fn(&mut IngestLimits);
    let cases: [(Change, &[u32]); 5] = [
        (|_| (), &[10]),
        (|limits| limits.slab_cards_max = 4, &[4, 4, 2]),
        (
            |limits| limits.slab_sealed_bytes_max = 3 * 48,
            &[3, 3, 3, 1],
        ),
        (|limits| limits.slab_sealed_bytes_max = 1, &[1; 10]),
        (|limits| limits.slab_labels_bytes_max = 256 + 40, &[6, 4]),
    ];
    for (change, expect) in cases {
        let store = Store::new();
        let mut plan = store.plan();
        change(&mut plan.limits);
        let mut ingest = store.begin(plan, &[]);
        for line in 0..10 {
            let (secret, label) = (format!("{line}"), format!("label {line:02}"));
            ingest
                .push(ImportRow {
                    label: label.as_bytes(),
                    ..row(line, secret.as_bytes())
                })
                .unwrap();
        }
        let done = ingest.finish().unwrap();
        assert_eq!(
            done.slabs.iter().map(Slab::cards).collect::<Vec<_>>(),
            expect
        );
    }
}

#[test]
fn memory_is_bounded_across_size_classes() {
    let store = Store::new();
    let mut plan = store.plan();
    plan.limits.buffered_bytes_max = 2 << 20;
    let mut ingest = store.begin(plan, &[]);
    for line in 0..3000u64 {
        let secret = format!(
            "{line:0>width$}",
            width = [20, 40, 200, 900, 4000][line as usize % 5]
        );
        ingest.push(row(line, secret.as_bytes())).unwrap();
        assert!(ingest.buffered_bytes <= 2 << 20);
    }
    let counted: u64 = ingest.chunks.iter().map(Chunk::buffered_bytes).sum();
    assert_eq!(ingest.buffered_bytes, counted);
    let done = ingest.finish().unwrap();
    assert_eq!(done.accepted, 3000);
    assert!(done.slabs.len() > 5, "it had to write early");
}

#[test]
fn an_import_of_nothing_writes_nothing() {
    let store = Store::new();
    for secrets in [vec![], vec!["", ""]] {
        let done = store.import(store.plan(), &[], &secrets);
        assert!(done.slabs.is_empty() && done.accepted == 0);
        assert_eq!(done.rejections.len(), secrets.len());
    }
    let existing = stock(store.import(store.plan(), &[], &["a"]));
    let done = store.import(store.plan(), &existing, &["a", "a"]);
    assert!(done.slabs.is_empty());
    assert_eq!(done.counts[&RejectReason::DuplicateInStock], 2);
    assert_eq!(store.files(), ["slab-00000001.slab"]);
    assert_eq!(
        store.slab_ids.load(Ordering::Relaxed),
        2,
        "no number was used up"
    );
}

#[test]
fn an_unfinished_import_leaves_nothing_behind() {
    let store = Store::new();
    let mut ingest = store.begin(store.plan_of(2), &[]);
    for (line, code) in (1..).zip(&codes(0..5)) {
        ingest.push(row(line, code.as_bytes())).unwrap();
    }
    assert_eq!(
        store.files(),
        ["slab-00000001.slab.partial", "slab-00000002.slab.partial"]
    );
    drop(ingest);
    assert!(store.files().is_empty());
}

#[test]
fn a_failed_import_leaves_nothing_behind_and_stays_failed() {
    let store = Store::new();
    let in_the_way = store.slabs_dir().join(slab_file_name(2));
    std::fs::write(&in_the_way, "of someone else").unwrap();
    let mut ingest = store.begin(store.plan_of(1), &[]);
    ingest.push(row(1, b"a")).unwrap();
    let error = ingest.push(row(2, b"b")).unwrap_err();
    assert!(
        matches!(&error, IngestError::SlabExists { path } if *path == in_the_way),
        "{error}"
    );
    assert_eq!(
        store.files(),
        ["slab-00000002.slab"],
        "only what was there before"
    );
    assert!(matches!(
        ingest.push(row(3, b"c")),
        Err(IngestError::Failed)
    ));
    assert!(matches!(ingest.finish(), Err(IngestError::Failed)));
    assert_eq!(std::fs::read(in_the_way).unwrap(), b"of someone else");
}

#[test]
fn a_name_that_is_taken_at_the_end_undoes_all() {
    let store = Store::new();
    let mut ingest = store.begin(store.plan_of(1), &[]);
    for (line, secret) in [(1, b"a"), (2, b"b"), (3, b"c")] {
        ingest.push(row(line, secret)).unwrap();
    }
    std::fs::write(store.slabs_dir().join(slab_file_name(2)), "late").unwrap();
    let error = ingest.finish().unwrap_err();
    assert!(matches!(error, IngestError::Io(_)), "{error}");
    assert_eq!(store.files(), ["slab-00000002.slab"]);
}

#[test]
fn a_missing_directory_is_told_with_its_path() {
    let store = Store::new();
    let mut plan = store.plan();
    plan.dir.push("missing");
    let mut ingest = store.begin(plan, &[]);
    ingest.push(row(1, b"a")).unwrap();
    let error = ingest.finish().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot create ") && error.contains("missing/slab-"),
        "{error}"
    );
}

#[test]
fn a_finished_import_can_be_discarded() {
    let store = Store::new();
    let kept = store.slab(&["kept"]);
    let done = store.import(store.plan_of(1), &[], &["a", "b"]);
    assert_eq!(store.files().len(), 3);
    done.discard().unwrap();
    assert_eq!(store.files(), ["slab-00000001.slab"]);
    store.import(store.plan(), &[], &[""]).discard().unwrap();
    kept.verify_sections().unwrap();
}

#[test]
fn leftovers_of_a_crash_are_removed_and_nothing_else() {
    let store = Store::new();
    for name in [
        "slab-00000001.slab",
        "slab-00000002.slab",
        "slab-00000003.slab.partial",
    ] {
        std::fs::write(store.slabs_dir().join(name), "").unwrap();
    }
    for name in ["notes.txt", "slab-4.slab", "x.partial"] {
        std::fs::write(store.slabs_dir().join(name), "").unwrap();
    }
    let removed = remove_leftovers(&crate::disk::Disk::real(), &store.slabs_dir(), |slab| {
        slab == 1
    })
    .unwrap();
    let names = ["slab-00000002.slab", "slab-00000003.slab.partial"];
    assert_eq!(removed, names.map(|name| store.slabs_dir().join(name)));
    assert_eq!(
        store.files(),
        [
            "notes.txt",
            "slab-00000001.slab",
            "slab-4.slab",
            "x.partial"
        ]
    );
    assert!(
        remove_leftovers(&crate::disk::Disk::real(), &store.slabs_dir(), |slab| slab
            == 1)
        .unwrap()
        .is_empty()
    );
}

#[test]
fn rejections_are_all_counted_and_listed_up_to_a_limit() {
    let store = Store::new();
    let mut ingest = store.begin(store.plan(), &[]);
    let rows = REJECTIONS_LISTED_MAX as u64 + 10;
    for line in (1..=rows).rev() {
        ingest.push(row(line, b"")).unwrap();
    }
    let done = ingest.finish().unwrap();
    assert_eq!(done.counts[&RejectReason::EmptySecret], rows);
    assert_eq!(done.rejections.len(), REJECTIONS_LISTED_MAX);
    assert!(done.rejections.is_sorted());
}

#[test]
fn an_import_may_move_between_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Ingest>();
    is_shared::<Slab>();
    is_shared::<Vault>();
}

#[test]
fn a_damaged_fingerprint_ends_the_import_and_never_hides_a_duplicate() {
    let store = Store::new();
    let made = store.slab(&["AAAA-BBBB-1", "AAAA-BBBB-2"]);
    let (path, at) = (made.path().to_owned(), made.header().layout.prints_offset);
    drop(made);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at as usize] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let existing = Arc::new(Slab::open(&path, &store.vault, None).unwrap());
    let mut ingest = store.begin(store.plan(), &[existing]);
    ingest.push(row(1, b"AAAA-BBBB-1")).unwrap();
    let error = ingest.finish().unwrap_err();
    assert!(matches!(error, IngestError::Slab(_)), "{error}");
    assert!(error.to_string().contains("fingerprints"), "{error}");
    assert_eq!(store.files().len(), 1, "nothing is left of it");
}
