//! Cards that are dealt more than once: docs/cards.md. Each goes to as many orders as it may, over crashes and folds, and moves,
//! look-ups, picks and expiry mean its uses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use croupier_client::{
    CardMove, CardPick, CardRef, CardRow, CardSelection, CardStatus, Client, Error, ImportOptions,
    ImportReport, ImportRow, IssuedOrder, MaxUses, Order, OrderId, OrderOutcome, Refusal,
    RejectReason, SkuId,
};
use croupier_tests::{Mint, PATIENCE, Server, Store, unix_ms};

use super::moves::refusal_of;
use super::stock::{counts, stock};

const LONG: Duration = Duration::from_secs(3600);

/// Imports cards of the SKU `s` that may be dealt so often; each with when it expires, in Unix seconds.
async fn import_expiring(
    client: &Client,
    secrets: &[Vec<u8>],
    max_uses: MaxUses,
    expires_at_s: u64,
) -> Result<(SkuId, ImportReport), Error> {
    let options = ImportOptions {
        sku: "s".into(),
        create_sku: true,
        max_uses,
        ..ImportOptions::default()
    };
    let mut import = client.import(options).await?;
    let sku = import.sku();
    for (line, secret) in (1..).zip(secrets) {
        let row = ImportRow {
            expires_at_s,
            label: if line == 1 { b"first" } else { b"" },
            ..ImportRow::new(line, secret)
        };
        import.push(row).await?;
    }
    Ok((sku, import.finish().await?))
}

async fn import(client: &Client, secrets: &[Vec<u8>], max_uses: MaxUses) -> SkuId {
    let done = import_expiring(client, secrets, max_uses, 0).await;
    let (sku, report) = done.expect("it is imported");
    assert_eq!(report.accepted, secrets.len() as u64, "cards, not uses");
    sku
}

fn at(slab: u32, slot: u32) -> CardRef {
    CardRef {
        slab,
        slot,
        generation: 0,
    }
}

async fn issue(client: &Client, sku: SkuId, quantity: u16) -> Result<IssuedOrder, Refusal> {
    let order = Order::new(OrderId::new_v7(), sku).quantity(quantity);
    let outcome = client.issue_many(&[order]).await.expect("an answer").pop();
    match outcome.expect("one answer") {
        OrderOutcome::Issued(issued) => Ok(issued),
        OrderOutcome::Refused { refusal, .. } => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// What orders have got: every use at most once.
#[derive(Default)]
struct Dealt {
    orders: Vec<IssuedOrder>,
    uses: BTreeSet<CardRef>,
    by_secret: BTreeMap<Vec<u8>, u64>,
}

impl Dealt {
    fn keep(&mut self, order: IssuedOrder) {
        for card in &order.cards {
            assert!(self.uses.insert(card.card), "{} goes twice", card.card);
            *self
                .by_secret
                .entry(card.secret.as_bytes().to_vec())
                .or_default() += 1;
        }
        self.orders.push(order);
    }

    /// Every order has what it had.
    async fn check(&self, client: &Client) {
        for known in &self.orders {
            let found = client.order(known.order_id).await.expect("an answer");
            let found = found.and_then(OrderOutcome::into_issued);
            assert_eq!(found.expect("it stands").cards, known.cards);
        }
    }
}

/// A server that has begun once more, after a crash or a stop in good order.
async fn again(store: &Store, server: Server, crash: bool) -> (Server, Client) {
    match crash {
        true => drop(server.kill()),
        false => drop(server.stop().ok()),
    }
    let server = store.serve();
    let client = server.client().await;
    (server, client)
}

#[tokio::test]
async fn every_card_is_dealt_as_often_as_it_may_be_over_crashes_and_folds() {
    let store = Store::new();
    let mut server = store.serve();
    let mut client = server.client().await;
    let mut mint = Mint::new(90);
    let secrets = mint.secrets(70, 20);
    let sku = import(&client, &secrets, MaxUses::Times(3)).await;
    assert_eq!(stock(&client).await.imported, 210);
    let mut dealt = Dealt::default();
    for round in 0..3 {
        // An order of several cards gets different ones.
        let order = issue(&client, sku, 30).await.expect("there are uses");
        let different: BTreeSet<_> = order
            .cards
            .iter()
            .map(|card| card.secret.as_bytes())
            .collect();
        assert_eq!(different.len(), 30);
        dealt.keep(order);
        for _ in 0..7 {
            dealt.keep(issue(&client, sku, 1).await.expect("there are uses"));
        }
        (server, client) = again(&store, server, round != 1).await;
        dealt.check(&client).await;
        let left = 210 - 37 * (round + 1);
        assert_eq!(counts(&stock(&client).await), [left, 0, 210 - left, 0]);
    }
    while let Ok(order) = issue(&client, sku, 1).await {
        dealt.keep(order);
    }
    assert_eq!(
        issue(&client, sku, 1).await.err(),
        Some(Refusal::OutOfStock)
    );
    assert_eq!(dealt.by_secret.len(), 70);
    assert!(secrets.iter().all(|secret| dealt.by_secret[secret] == 3));
    assert_eq!(counts(&stock(&client).await), [0, 0, 210, 0]);
    (server, client) = again(&store, server, true).await;
    dealt.check(&client).await;
    server.stop().ok();
    let verified = store.wal("verify", &[]).ok().json();
    assert_eq!(verified["issued"], 210, "{verified}");
    drop(client);

    // The copy that a replay makes has them all, too.
    let copy = store.path("../copy");
    let into = copy.display().to_string();
    store.wal("replay", &["--into", &into]).ok();
    let copy = Store::at(copy);
    let verified = copy.wal("verify", &[]).ok().json();
    assert_eq!(verified["issued"], 210, "{verified}");
}

#[tokio::test]
async fn the_log_tells_views_and_what_they_count() {
    let store = Store::new();
    let server = store.serve();
    let file = store.path("../seats.txt");
    std::fs::write(&file, "one\ntwo\nthree\n").expect("a file");
    let file = file.display().to_string();
    let import = [
        "import",
        "--sku",
        "s",
        "--create-sku",
        &file,
        "--max-uses",
        "5",
    ];
    let done = server
        .croupier(&[&import[..], &["--json"]].concat())
        .ok()
        .json();
    assert_eq!((&done["accepted"], &done["slabs"]), (&3.into(), &1.into()));
    let batches = server.croupier(&["batches", "--json"]).ok().json();
    assert_eq!(
        (&batches[0]["cards"], &batches[0]["free"]),
        (&15.into(), &15.into())
    );
    server.kill();
    let records = store.records();
    let of_kind = |kind: &str| {
        let found = records.iter().find(|record| record["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in {records:?}"))
    };
    let view = of_kind("SlabReused");
    let told = ["slab", "of", "first", "cards", "uses"].map(|name| view[name].as_u64());
    assert_eq!(told, [2, 1, 0, 3, 4].map(Some));
    assert_eq!(view["unlimited"], false);
    let sealed = of_kind("BatchSealed");
    assert_eq!(
        (&sealed["cards"], &sealed["slabs"]),
        (&15.into(), &2.into())
    );
}

async fn moved(
    client: &Client,
    cards: &[CardRef],
    card_move: CardMove,
    issued: bool,
) -> Result<u64, Refusal> {
    let which = CardSelection::Cards(cards.to_vec());
    match client.move_cards(&which, card_move, issued).await {
        Ok(done) => Ok(done.moved),
        Err(Error::Refused { refusal, .. }) => Err(refusal),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_move_of_a_card_means_all_its_uses() {
    let store = Store::new();
    let mut server = store.serve();
    let mut client = server.client().await;
    let mut mint = Mint::new(91);
    // Slab 1 with three cards, and slab 2, the view, with two uses more of each; slab 3 with cards that are dealt once.
    let sku = import(&client, &mint.secrets(3, 20), MaxUses::Times(3)).await;
    import(&client, &mint.secrets(2, 20), MaxUses::default()).await;
    let first = issue(&client, sku, 1).await.expect("a use");
    assert_eq!(first.cards[0].card, at(1, 0));
    use CardMove::{Resume, Suspend, Void};
    use Refusal::{CardIssued, CardNotInState, UnknownCard};

    assert_eq!(
        moved(&client, &[at(1, 0)], Suspend, false).await,
        Ok(2),
        "all but the issued one"
    );
    assert_eq!(counts(&stock(&client).await), [8, 2, 1, 0]);
    // Named by a use in the view, after a restart.
    (server, client) = again(&store, server, true).await;
    assert_eq!(moved(&client, &[at(2, 3)], Resume, false).await, Ok(2));
    assert_eq!(
        moved(&client, &[at(2, 3)], Resume, false).await,
        Err(CardNotInState)
    );
    assert_eq!(
        moved(&client, &[at(1, 0)], Resume, false).await,
        Err(CardIssued),
        "it was named"
    );
    // Together with a card that is dealt once: that goes, or nothing does.
    assert_eq!(moved(&client, &[at(3, 0)], Void, false).await, Ok(1));
    let before = counts(&stock(&client).await);
    assert_eq!(
        moved(&client, &[at(1, 1), at(3, 0)], Suspend, false).await,
        Err(CardNotInState)
    );
    assert_eq!(
        moved(&client, &[at(1, 3), at(1, 1)], Suspend, false).await,
        Err(UnknownCard)
    );
    assert_eq!(
        moved(&client, &[at(2, 6)], Suspend, false).await,
        Err(UnknownCard)
    );
    assert_eq!(counts(&stock(&client).await), before);
    assert_eq!(
        moved(&client, &[at(2, 1), at(3, 1), at(1, 1)], Suspend, false).await,
        Ok(4)
    );
    assert_eq!(moved(&client, &[at(3, 1)], Resume, false).await, Ok(1));
    // Of free and suspended ones, both go; issued ones only if it is said.
    assert_eq!(
        moved(&client, &[at(1, 0), at(1, 1)], Void, false).await,
        Ok(5)
    );
    assert_eq!(
        moved(&client, &[at(1, 0)], Void, false).await,
        Err(CardIssued)
    );
    assert_eq!(
        moved(&client, &[at(2, 0)], Void, false).await,
        Err(CardNotInState)
    );
    assert_eq!(moved(&client, &[at(2, 0)], Void, true).await, Ok(1));
    assert_eq!(counts(&stock(&client).await), [4, 0, 0, 7]);
    // A hold's promise is kept.
    let hold = Order::new(OrderId::new_v7(), sku).quantity(4);
    client.reserve(hold, LONG).await.expect("four are free");
    assert_eq!(
        moved(&client, &[at(1, 2)], Void, false).await,
        Err(CardIssued)
    );
    client.cancel(hold.order_id).await.expect("it holds");
    (server, client) = again(&store, server, false).await;
    assert_eq!(moved(&client, &[at(1, 2)], Void, false).await, Ok(3));
    assert_eq!(counts(&stock(&client).await), [1, 0, 0, 10]);
    // Where others go, uses that a hold is promised stay and are no refusal; these are of another SKU.
    let options = ImportOptions {
        sku: "t".into(),
        create_sku: true,
        max_uses: MaxUses::Times(2),
        ..ImportOptions::default()
    };
    let mut other = client.import(options).await.expect("it is open");
    let row = ImportRow::new(1, b"twice");
    other.push(row).await.expect("it goes out");
    let hold = Order::new(OrderId::new_v7(), other.sku()).quantity(2);
    other.finish().await.expect("it is imported");
    client.reserve(hold, LONG).await.expect("two are free");
    assert_eq!(
        moved(&client, &[at(3, 1), at(4, 0)], Void, false).await,
        Ok(1)
    );
    assert_eq!(counts(&stock(&client).await), [0, 0, 0, 11]);
    client.commit(hold.order_id).await.expect("it was held");
    // What an order has seen stays its answer.
    let known = client.order(first.order_id).await.expect("an answer");
    let known = known
        .and_then(OrderOutcome::into_issued)
        .expect("it stands");
    assert_eq!(known.cards, first.cards);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

async fn all(client: &Client, which: &CardSelection, status: Option<CardStatus>) -> Vec<CardRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = client.list_cards(which, status, after).await;
        let (page, next) = page.expect("a page");
        rows.extend(page);
        let Some(next) = next else { return rows };
        assert!(after < Some(next), "pages go on");
        after = Some(next);
    }
}

fn places(rows: &[CardRow]) -> Vec<CardRef> {
    rows.iter().map(|row| at(row.slab, row.slot)).collect()
}

#[tokio::test]
async fn look_ups_tell_every_use() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(92);
    let few = mint.secrets(2, 20);
    let sku = import(&client, &few, MaxUses::Times(3)).await;
    let many = mint.secrets(2, 20);
    import(&client, &many, MaxUses::Times(150)).await;
    let order = issue(&client, sku, 5).await.expect("five uses");
    // A card with few uses: all are told at once, by place or by secret.
    let uses = [at(1, 1), at(2, 1), at(2, 3)];
    for named in uses {
        let rows = all(&client, &CardSelection::Cards(vec![named]), None).await;
        assert_eq!(places(&rows), uses, "named by {named}");
    }
    let slot_of = |secret: &[u8]| {
        let cards = order.cards.iter();
        let mut ours = cards.filter(|card| card.card.slab == 1 && card.secret.as_bytes() == secret);
        ours.next().expect("both first uses are dealt").card.slot
    };
    for secret in &few {
        let slot = slot_of(secret);
        let found = client.find_secret(Some(sku), secret).await.expect("found");
        assert_eq!(places(&found), [at(1, slot), at(2, slot), at(2, slot + 2)]);
        for row in &found {
            let has = order
                .cards
                .iter()
                .any(|card| card.card == at(row.slab, row.slot));
            let told = row.order.map(OrderId::from_bytes);
            assert_eq!(told, has.then_some(order.order_id), "{row:?}");
        }
    }
    // One with many: page by page.
    let (first, has_more) = client
        .find_secret_page(Some(sku), &many[0])
        .await
        .expect("found");
    assert!(
        has_more && first.len() == 1 && first[0].slab == 3,
        "{first:?}"
    );
    let card = CardSelection::Cards(places(&first));
    let rows = all(&client, &card, None).await;
    assert_eq!(rows.len(), 150);
    let slot = first[0].slot;
    assert!(
        rows[1..]
            .iter()
            .all(|row| row.slab == 4 && row.slot % 2 == slot)
    );
    assert_eq!(all(&client, &card, Some(CardStatus::Free)).await.len(), 150);
    assert_eq!(all(&client, &card, Some(CardStatus::Void)).await.len(), 0);
    let both = CardSelection::Cards(vec![at(3, 0), at(3, 1), at(4, 7), at(1, 0)]);
    let rows = all(&client, &both, None).await;
    assert_eq!(rows.len(), 303);
    assert!(places(&rows).is_sorted());
    let sku_rows = all(&client, &CardSelection::Sku("s".into()), None).await;
    assert_eq!(sku_rows.len(), 306);

    let file = store.path("../secrets.txt");
    std::fs::write(&file, [&many[1][..], b"\n", &few[0]].concat()).expect("a file");
    let file = file.display().to_string();
    let told = server
        .croupier(&["cards", "--secret-file", &file, "--json"])
        .ok()
        .json();
    let lines: Vec<u64> = told
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["line"].as_u64())
        .collect();
    assert_eq!(
        (lines.len(), lines.iter().filter(|&&line| line == 1).count()),
        (153, 150)
    );
}

async fn eventually_issued(client: &Client, sku: SkuId) -> IssuedOrder {
    let begun = std::time::Instant::now();
    loop {
        match issue(client, sku, 1).await {
            Ok(order) => return order,
            Err(refusal) => assert!(begun.elapsed() < PATIENCE, "{refusal:?} does not end"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Of a card that is dealt out just now nothing can be moved until there is more.
async fn moved_in_time(client: &Client, cards: &[CardRef], card_move: CardMove) -> u64 {
    let begun = std::time::Instant::now();
    loop {
        match moved(client, cards, card_move, false).await {
            Ok(moved) => return moved,
            Err(refusal) => assert_eq!(refusal, Refusal::CardIssued),
        }
        assert!(begun.elapsed() < PATIENCE, "none of {cards:?} is free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_unlimited_card_outlives_its_views_until_it_is_void() {
    let store = Store::new()
        .with("--uses-ahead", 4)
        .with("--uses-ahead-max", 64);
    let mut server = store.serve();
    let mut client = server.client().await;
    let mut mint = Mint::new(93);
    let secrets = mint.secrets(2, 20);
    let sku = import(&client, &secrets, MaxUses::Unlimited).await;
    assert_eq!(stock(&client).await.imported, 2 * 5);
    let mut dealt = Dealt::default();
    for round in 0..4 {
        for _ in 0..60 {
            dealt.keep(eventually_issued(&client, sku).await);
        }
        (server, client) = again(&store, server, round % 2 == 0).await;
        dealt.check(&client).await;
    }
    assert!(
        dealt
            .by_secret
            .keys()
            .eq(secrets.iter().collect::<BTreeSet<_>>())
    );
    let row = stock(&client).await;
    assert!(row.imported > 240 && row.issued == 240, "{row:?}");

    // Suspended, it gets no more uses; resumed, it does.
    let cards = [at(1, 0), at(1, 1)];
    let out = moved_in_time(&client, &cards, CardMove::Suspend).await;
    assert_eq!(stock(&client).await.held, out);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = stock(&client).await.imported;
    assert_eq!(
        issue(&client, sku, 1).await.err(),
        Some(Refusal::OutOfStock)
    );
    assert_eq!(
        moved(&client, &cards, CardMove::Resume, false).await,
        Ok(out)
    );
    while stock(&client).await.imported == before {
        dealt.keep(eventually_issued(&client, sku).await);
    }
    // Void is for good, over crashes and folds.
    moved_in_time(&client, &cards, CardMove::Void).await;
    let last = stock(&client).await;
    assert_eq!((last.free, last.issued), (0, dealt.uses.len() as u64));
    for crash in [false, true] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(stock(&client).await, last);
        assert_eq!(
            issue(&client, sku, 1).await.err(),
            Some(Refusal::OutOfStock)
        );
        (server, client) = again(&store, server, crash).await;
    }
    dealt.check(&client).await;
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn uses_expire_with_their_card() {
    let store = Store::new()
        .with("--uses-ahead", 50)
        .with("--uses-ahead-max", 50);
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(94);
    let soon = unix_ms() / 1000 + 4;
    let import = async |secrets: &[Vec<u8>], max_uses, expires_at_s| {
        let done = import_expiring(&client, secrets, max_uses, expires_at_s).await;
        done.expect("it is imported").0
    };
    let sku = import(&mint.secrets(2, 20), MaxUses::Times(40), soon).await;
    import(&mint.secrets(1, 20), MaxUses::Unlimited, soon).await;
    import(&mint.secrets(1, 20), MaxUses::Times(3), 0).await;
    let first = issue(&client, sku, 1).await.expect("a use");
    assert_eq!(first.cards[0].card.slab, 1);
    assert_eq!(stock(&client).await.imported, 80 + 51 + 3);
    let begun = std::time::Instant::now();
    while counts(&stock(&client).await) != [3, 0, 1, 130] {
        assert!(begun.elapsed() < PATIENCE, "{:?}", stock(&client).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..3 {
        let order = issue(&client, sku, 1).await.expect("what never expires");
        assert!(order.cards[0].card.slab >= 5, "{order:?}");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        issue(&client, sku, 1).await.err(),
        Some(Refusal::OutOfStock)
    );
    assert_eq!(
        stock(&client).await.imported,
        134,
        "what has expired gets no more"
    );
    let (server, client) = again(&store, server, true).await;
    assert_eq!(counts(&stock(&client).await), [0, 0, 4, 130]);
    server.stop().ok();
    store.wal("verify", &[]).ok();
}

#[tokio::test]
async fn a_pick_gets_any_free_use() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(95);
    let sku = import(&client, &mint.secrets(2, 20), MaxUses::Times(3)).await;
    let take = async |pick: &CardPick| {
        let order = Order::new(OrderId::new_v7(), sku);
        let taken = client.issue_card(order, pick).await;
        taken.map(|order| order.cards[0].card)
    };
    let card = CardPick::Card(at(1, 1));
    assert_eq!(take(&card).await.expect("the first use"), at(1, 1));
    // Its first use is taken, so another one is bound; the same ask again tells the same.
    let order = Order::new(OrderId::new_v7(), sku);
    let held = client
        .reserve_card(order, LONG, &card)
        .await
        .expect("a use");
    assert!(!held.repeat);
    let held = client
        .reserve_card(order, LONG, &card)
        .await
        .expect("a use");
    assert!(held.repeat);
    let got = client.commit(order.order_id).await.expect("it is bound");
    assert_eq!(got.cards[0].card, at(2, 1));
    assert_eq!(
        take(&CardPick::Card(at(2, 1))).await.expect("the last"),
        at(2, 3)
    );
    assert_eq!(refusal_of(take(&card).await), Refusal::CardIssued);
    // By label: the three uses of the other card, or of this one if it has the label.
    let label = CardPick::Label("first".into());
    let mut uses = 0;
    while take(&label).await.is_ok() {
        uses += 1;
    }
    assert!(uses == 3 || uses == 0, "{uses} uses of one card");
    assert_eq!(refusal_of(take(&label).await), Refusal::OutOfStock);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(96);
    let many = mint.secrets(1025, 20);
    let check = async |secrets: &[Vec<u8>], max_uses| {
        let done = import_expiring(&client, secrets, max_uses, 0).await;
        assert_eq!(refusal_of(done), Refusal::MaxUsesInvalid, "{max_uses}");
    };
    check(&many[..1], MaxUses::Times(0)).await;
    check(&many[..1], MaxUses::Times(65_537)).await;
    check(&many[..65], MaxUses::Unlimited).await;
    check(&many, MaxUses::Times(65_536)).await;
    assert_eq!(store.files("slabs", ""), Vec::<std::path::PathBuf>::new());
    // Those that just may be; what was refused is no duplicate.
    let sku = import(&client, &many[..64], MaxUses::Unlimited).await;
    import(&client, &many[64..66], MaxUses::Times(65_536)).await;
    assert_eq!(
        stock(&client).await.imported,
        64 * (1 + (1 << 20)) + 2 * 65_536
    );
    issue(&client, sku, 100).await.expect("there are uses");
    // A duplicate is one, however often it may be dealt.
    let twice = [
        many[0].clone(),
        many[65].clone(),
        many[66].clone(),
        many[66].clone(),
    ];
    let (_, report) = import_expiring(&client, &twice, MaxUses::Times(9), 0)
        .await
        .expect("one is new");
    assert_eq!(report.accepted, 1);
    let count_of = |reason| {
        let mut counts = report.counts.iter();
        counts
            .find(|count| count.reason == reason)
            .map_or(0, |count| count.count)
    };
    assert_eq!(count_of(RejectReason::DuplicateInStock), 2);
    assert_eq!(count_of(RejectReason::DuplicateInFile), 1);

    let file = store.path("../one.txt");
    std::fs::write(&file, "one\n").expect("a file");
    let file = file.display().to_string();
    for uses in ["0", "65537", "-1", "many"] {
        let uses = format!("--max-uses={uses}");
        server
            .croupier(&["import", "--sku", "s", &file, &uses])
            .fails(2, &["1 to 65536 times, or \"unlimited\""]);
    }
    server.stop().ok();
    store.wal("verify", &[]).ok();
}
