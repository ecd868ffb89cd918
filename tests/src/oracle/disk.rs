//! The books against a stopped store: what its log says, and its replay.

use tempfile::TempDir;

use super::Oracle;
use crate::store::{SEGMENT_BYTES, Store};

/// What `croupier wal verify` counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReport {
    /// State digest.
    pub digest: String,
    /// Orders issued.
    pub orders: u64,
    /// Cards ever imported.
    pub imported: u64,
    /// Cards issued.
    pub issued: u64,
    /// Cards that can be issued.
    pub free: u64,
    /// Cards that are suspended, or promised to holds.
    pub held: u64,
    /// Bytes of a write that a crash cut short.
    pub torn_bytes: u64,
    /// Records that are in the log and in no checkpoint.
    pub records: u64,
}

impl Oracle {
    /// Verifies a stopped store, replays its log into a new directory, and compares digests. Returns what it found.
    ///
    /// # Panics
    /// If the log, its replay and the copy differ.
    #[track_caller]
    pub fn verify(store: &Store) -> DiskReport {
        let before = store.tree();
        let verified = store.wal("verify", &[]).ok().json();
        let root = TempDir::with_prefix("croupier-replay-").expect("a temporary directory");
        let into = root.path().join("copy");
        let replayed = store
            .wal(
                "replay",
                &[
                    "--into",
                    &into.display().to_string(),
                    "--wal-segment-bytes",
                    &SEGMENT_BYTES.to_string(),
                ],
            )
            .ok()
            .json();
        assert_eq!(store.tree(), before, "verify and replay change nothing");
        assert_eq!(verified["ok"], true);
        assert_eq!(
            verified["digest"], replayed["digest"],
            "a replay comes to the same state"
        );
        let copied = Store::at(into).wal("verify", &[]).ok().json();
        assert_eq!(verified["digest"], copied["digest"], "its copy too");
        for count in ["orders", "imported", "issued", "free", "skus", "slabs"] {
            assert_eq!(verified[count], copied[count], "{count} of the copy");
        }
        let count = |what: &str| {
            verified[what]
                .as_u64()
                .unwrap_or_else(|| panic!("{what}: a number in {verified}"))
        };
        let report = DiskReport {
            digest: verified["digest"].as_str().expect("a text").to_owned(),
            orders: count("orders"),
            imported: count("imported"),
            issued: count("issued"),
            free: count("free"),
            held: count("held"),
            torn_bytes: count("torn_bytes"),
            records: count("records_since_checkpoint"),
        };
        let all = report.free + report.held + report.issued + count("void");
        assert_eq!(all, report.imported, "{report:?}");
        report
    }

    /// As [`Oracle::verify`], and compares with the books; nothing may be in doubt.
    ///
    /// # Panics
    /// If they differ.
    #[track_caller]
    pub fn check_disk(&self, store: &Store) -> DiskReport {
        let report = Self::verify(store);
        let books = self.books();
        let dealt = books
            .orders
            .values()
            .filter(|booked| booked.answer.is_some());
        let (mut orders, mut cards) = dealt.fold((0, 0), |(orders, cards), booked| {
            (orders + 1, cards + booked.cards())
        });
        orders += books.ended_in_two_phases();
        let mut promised = 0;
        // What has waited when it was last seen may have ended since.
        let (mut orders_more, mut cards_more) = (0, 0);
        for order in books.in_two_phases() {
            promised += order.held_least;
            cards += order.dealt;
            orders_more += u64::from(order.wants > 0);
            cards_more += if order.is_issue { order.wants } else { 0 };
        }
        cards -= books.void_of_orders().len() as u64;
        assert!(
            report.held >= promised,
            "{promised} are promised: {report:?}"
        );
        let imported: u64 = books.skus.values().map(|book| book.imported).sum();
        assert_eq!(report.imported, imported, "imported: disk and books");
        let there = [
            (report.orders, orders..=orders + orders_more),
            (report.issued, cards..=cards + cards_more),
        ];
        for (is, may_be) in there {
            assert!(may_be.contains(&is), "{may_be:?} may be: {report:?}");
        }
        report
    }
}
