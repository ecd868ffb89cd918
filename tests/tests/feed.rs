//! The change feed: docs/feed.md, against the log itself, over kills, folds, filters, small pages and long waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use croupier_client::{
    CanarySettings, CardMove, CardRun, CardSelection, Client, DealOrder, Error, FeedEvent,
    FeedFact, FeedKind, FeedOptions, ImportRow, Lsn, Order, OrderId, OrderOutcome, OrderStep,
    Refusal, SkuId, SkuSettings,
};
use croupier_protocol::{Feed, FeedReply, Kind, RefusedBody, encode_control};
use croupier_tests::{Dice, Mint, PATIENCE, Server, Store, Wire, croupier, frame, leaked, scaled};
use serde_json::{Value, json};

use super::stock::import;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Orders for one card each, dealt.
async fn deal(client: &Client, sku: SkuId, count: usize) {
    let orders: Vec<_> = (0..count)
        .map(|_| Order::new(OrderId::new_v7(), sku))
        .collect();
    for some in orders.chunks(1_000) {
        client.issue_many(some).await.expect("answers");
    }
}

/// The LSN behind all that is durable now.
async fn end(client: &Client) -> Lsn {
    let info = client.server_info().await.expect("info is answered");
    Lsn(info.durable_lsn + 1)
}

/// Everything from an LSN on, in pages of at most so many facts.
async fn read_all(client: &Client, from: Lsn, facts_max: u32) -> Vec<FeedFact> {
    let mut options = FeedOptions {
        from,
        facts_max,
        ..FeedOptions::default()
    };
    let mut all = Vec::new();
    loop {
        let page = client.feed(&options).await.expect("a page");
        assert!(page.facts.len() <= facts_max as usize || facts_max == 0);
        assert!(page.next >= options.from);
        all.extend(page.facts);
        options.from = page.next;
        if page.next == page.end {
            return all;
        }
    }
}

fn refusal_of<T: std::fmt::Debug>(answer: Result<T, Error>) -> (Refusal, String) {
    match answer {
        Err(Error::Refused { refusal, text, .. }) => (refusal, text),
        other => panic!("{other:?}"),
    }
}

/// A fact in the words of `wal dump`; `None` for a record that the feed leaves out.
fn of_record(record: &Value) -> Option<Value> {
    let field = |name: &str| record[name].clone();
    let mut fact = json!({ "lsn": field("lsn"), "at": field("at") });
    let mut put = |kind: &str, fields: &[(&str, Value)]| {
        fact["kind"] = kind.into();
        for (name, value) in fields {
            fact[*name] = value.clone();
        }
    };
    let same = |names: &[&'static str]| -> Vec<(&'static str, Value)> {
        names.iter().map(|name| (*name, field(name))).collect()
    };
    match record["kind"].as_str().expect("a kind") {
        "Started" => put("started", &same(&["epoch", "version"])),
        "SkuCreated" => put("sku-created", &same(&["sku_id"])),
        "SkuSet" => put(
            "sku-set",
            &same(&["sku_id", "selection", "hold_share_max_percent"]),
        ),
        "SlabAdded" | "SlabReused" => return None,
        "CardsAdded" => {
            let mut fields = same(&["sku_id", "batch_id"]);
            fields.push(("quantity", field("cards")));
            let run = json!({
                "slab": field("slab"), "slot": field("first"), "count": field("cards"), "generation": 0,
            });
            fields.push(("cards", json!([run])));
            put("cards-added", &fields);
        }
        "BatchSealed" => {
            let mut fields = same(&["sku_id", "batch", "batch_id", "pool"]);
            fields.push(("quantity", field("cards")));
            put("batch-sealed", &fields);
        }
        "Issued" => {
            let mut fields = same(&["sku_id", "order_id", "quantity", "cards"]);
            let way = match record["commit"].as_str() {
                None if record["partial"] == true => "part",
                None => "at-once",
                Some("held") => "commit",
                Some(_) => "late-commit",
            };
            fields.push(("way", way.into()));
            fields.push(("fewer", json!(record["fewer"].as_u64().unwrap_or(0))));
            put("issued", &fields);
        }
        "RoutesLoaded" => put("routes-loaded", &same(&["version"])),
        "ChannelChanged" => put(
            "channel-changed",
            &same(&["channel", "standing", "cause", "ejections"]),
        ),
        "Canary" => put(
            "canary",
            &same(&["version", "deed", "reason", "share_percent"]),
        ),
        "CardsMoved" => {
            let mut fields = same(&["sku_id", "from", "to", "cause", "cards"]);
            let runs = record["cards"].as_array().expect("runs").iter();
            let cards: u64 = runs
                .map(|run| run["count"].as_u64().expect("a count"))
                .sum();
            fields.push(("quantity", cards.into()));
            put("cards-moved", &fields);
        }
        "Reserved" => put(
            "reserved",
            &same(&["sku_id", "order_id", "quantity", "ttl_ms"]),
        ),
        "Backordered" => {
            let fields = same(&["sku_id", "order_id", "quantity", "ends_unix_ms", "ends_at"]);
            put("backordered", &fields);
        }
        "Retried" => put(
            "retried",
            &same(&["sku_id", "order_id", "attempts", "cause", "again_at"]),
        ),
        "Extended" => put(
            "extended",
            &same(&["sku_id", "order_id", "extension", "ttl_ms"]),
        ),
        "Released" => put(
            "released",
            &same(&["sku_id", "order_id", "quantity", "why"]),
        ),
        other => panic!("{other}"),
    }
    Some(fact)
}

/// A fact as the client tells it, in the same words, but for its time.
fn of_fact(fact: &FeedFact) -> Value {
    let mut told = json!({ "lsn": fact.lsn.0, "kind": fact.event.kind().name() });
    if let Some(sku) = fact.event.sku() {
        told["sku_id"] = json!(sku.0);
    }
    let runs = |cards: &[CardRun]| -> Value {
        let runs = cards.iter().map(|run| {
            json!({ "slab": run.slab, "slot": run.slot, "count": run.count, "generation": run.generation })
        });
        runs.collect()
    };
    let mut put = |name: &str, value: Value| told[name] = value;
    match &fact.event {
        FeedEvent::Started { epoch, version } => {
            put("epoch", json!(epoch));
            put("version", json!(version));
        }
        FeedEvent::SkuCreated { .. } => {}
        FeedEvent::SkuSet {
            deal_order,
            hold_share_max_percent,
            ..
        } => {
            put("selection", json!(deal_order.name()));
            put("hold_share_max_percent", json!(hold_share_max_percent));
        }
        FeedEvent::BatchSealed {
            batch,
            label,
            pool,
            cards,
            ..
        } => {
            put("batch", json!(label));
            put("batch_id", json!(batch));
            put("pool", json!(pool));
            put("quantity", json!(cards));
        }
        FeedEvent::CardsAdded {
            batch,
            quantity,
            cards,
            ..
        } => {
            put("batch_id", json!(batch));
            put("quantity", json!(quantity));
            put("cards", runs(cards));
        }
        FeedEvent::Issued {
            order_id,
            quantity,
            cards,
            way,
            fewer,
            ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("quantity", json!(quantity));
            put("cards", runs(cards));
            put("way", json!(way.name()));
            put("fewer", json!(fewer));
        }
        FeedEvent::RoutesLoaded { version } => put("version", json!(version)),
        FeedEvent::ChannelChanged {
            channel,
            standing,
            cause,
            ejections,
            ..
        } => {
            put("channel", json!(channel));
            put("standing", json!(standing.name()));
            put("cause", json!(cause.name()));
            put("ejections", json!(ejections));
        }
        FeedEvent::Canary {
            version,
            deed,
            reason,
            share_percent,
        } => {
            put("version", json!(version));
            put("deed", json!(deed.name()));
            put("reason", json!(reason.name()));
            put("share_percent", json!(share_percent));
        }
        FeedEvent::CardsMoved {
            quantity,
            cards,
            from,
            to,
            cause,
            ..
        } => {
            put("cause", json!(cause.name()));
            put("quantity", json!(quantity));
            put("cards", runs(cards));
            put("from", json!(from.name()));
            put("to", json!(to.name()));
        }
        FeedEvent::Reserved {
            order_id,
            quantity,
            ttl,
            ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("quantity", json!(quantity));
            put("ttl_ms", json!(ttl.as_millis() as u64));
        }
        FeedEvent::Extended {
            order_id, nth, ttl, ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("extension", json!(nth));
            put("ttl_ms", json!(ttl.as_millis() as u64));
        }
        FeedEvent::Released {
            order_id,
            quantity,
            end,
            ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("quantity", json!(quantity));
            put("why", json!(end.name()));
        }
        FeedEvent::Backordered {
            order_id,
            quantity,
            ends_unix_ms,
            ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("quantity", json!(quantity));
            put("ends_unix_ms", json!(ends_unix_ms));
        }
        FeedEvent::Retried {
            order_id,
            attempts,
            cause,
            ..
        } => {
            put("order_id", json!(order_id.to_string()));
            put("attempts", json!(attempts));
            put("cause", json!(cause.map(|cause| cause.name())));
        }
    }
    told
}

fn without(mut value: Value, field: &str) -> Value {
    value.as_object_mut().expect("an object").remove(field);
    value
}

fn in_order(facts: &[FeedFact]) -> bool {
    facts.is_sorted_by(|one, other| one.lsn < other.lsn)
}

/// One who follows the feed over the ends of servers, until it has read up to `until`.
async fn follow(
    url: Arc<Mutex<String>>,
    until: Arc<AtomicU64>,
    options: FeedOptions,
) -> Vec<FeedFact> {
    let (mut all, mut options) = (Vec::new(), options);
    loop {
        let at = url.lock().expect("nobody panics").clone();
        let builder = Client::builder().server(&at).expect("a URL").retries(0);
        let Ok(client) = builder.build().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut feed = client.follow(options.clone());
        loop {
            match feed.next().await {
                Ok(facts) => all.extend(facts),
                Err(Error::Refused { refusal, text, .. }) if refusal != Refusal::ShuttingDown => {
                    panic!("{refusal:?}: {text}")
                }
                Err(_) => break,
            }
            options.from = feed.position();
            if options.from.0 >= until.load(Ordering::SeqCst) {
                return all;
            }
        }
    }
}

/// Of each of three SKUs, in each of three rounds.
fn cards_a_round() -> usize {
    scaled(400, 2_000)
}

/// A bit of everything that the feed tells.
async fn live(client: &Client, dice: &mut Dice, mint: &mut Mint, round: usize) {
    let mut skus = Vec::new();
    for name in ["a", "b", "c"] {
        skus.push(import(client, name, &mint.secrets(cards_a_round(), 20)).await);
    }
    let extra = format!("extra-{round}");
    let empty = client.sku_create(&extra).await.expect("a SKU is made");
    let settings = SkuSettings::default().deal_order(DealOrder::Lifo);
    let settings = settings.hold_share_max_percent(50);
    let set = client.sku_set(&extra, &settings).await;
    set.expect("it is set");
    client.routes_load("[[rule]]\n").await.expect("a table");
    let settings = CanarySettings::default();
    let canary = client.canary_start("# canary\n[[rule]]\n", &settings).await;
    canary.expect("a canary");
    client.canary_abort().await.expect("its end");
    let delivered: Vec<String> = (0..3).map(|n| format!("delivered {round} {n}")).collect();
    let rows = (1..).zip(&delivered);
    let rows: Vec<_> = rows
        .map(|(line, secret)| ImportRow::new(line, secret.as_bytes()))
        .collect();
    let delivered = client.deliver("a", None, &rows).await;
    assert_eq!(delivered.expect("they are new").accepted, 3);
    for nth in 0..scaled(120, 1_000) {
        let sku = skus[dice.within(0..3) as usize];
        let id = OrderId::new_v7();
        let order = Order::new(id, sku).quantity(dice.within(1..4) as u16);
        match nth % 7 {
            6 => {
                let order = Order {
                    sku: empty,
                    ..order
                };
                let waits = client.issue_or_wait(order, LONG).await.expect("no stock");
                assert!(matches!(waits, OrderOutcome::Waiting(_)), "{waits:?}");
                if nth % 2 == 0 {
                    client.cancel(id).await.expect("it waited");
                }
            }
            0 => {
                let expires = OrderStep::reserve(order, Duration::from_millis(3));
                client.steps(&[expires]).await.expect("answers");
            }
            1 => {
                client.reserve(order, LONG).await.expect("a hold");
                client.cancel(id).await.expect("it was held");
            }
            2 => {
                client.reserve(order, LONG).await.expect("a hold");
                client.extend(id, 1, LONG).await.expect("more time");
                client.commit_part(id, 1).await.expect("cards");
            }
            4 => {
                // SKUs of a round may run out.
                let part = OrderStep::issue(order).partial();
                client.steps(&[part]).await.expect("answers");
            }
            3 => {
                let named = client.issue(order).await.expect("cards").cards[0].card;
                let which = CardSelection::Cards(vec![named]);
                let voided = client.move_cards(&which, CardMove::Void, true).await;
                voided.expect("an issued card can be voided");
            }
            _ => drop(client.issue(order).await.expect("cards")),
        }
    }
    let all = CardSelection::Sku("b".into());
    for card_move in [CardMove::Suspend, CardMove::Resume] {
        client
            .move_cards(&all, card_move, false)
            .await
            .expect("free cards move");
    }
    deal(client, skus[2], 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_what_the_log_says_over_kills_and_by_filters() {
    let mut dice = Dice::rolled("a feed beside everything");
    let mut mint = Mint::new(61);
    // Nothing is folded, so that the whole log can be read.
    let store = Store::new().with("--checkpoint-segments", 1_000);
    let mut server = store.serve();
    let url = Arc::new(Mutex::new(server.url()));
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let by = |facts_max, skus: &[u32], kinds: &[FeedKind]| FeedOptions {
        skus: skus.iter().copied().map(SkuId).collect(),
        kinds: kinds.into(),
        facts_max,
        wait: Duration::from_millis(300),
        ..FeedOptions::default()
    };
    let ends = [FeedKind::Issued, FeedKind::Released];
    let choices = [
        by(0, &[], &[]),
        by(7, &[], &[]),
        by(3, &[1, 3], &ends),
        by(0, &[2], &[]),
    ];
    let readers = choices
        .clone()
        .map(|options| tokio::spawn(follow(url.clone(), until.clone(), options)));
    for round in 0..3 {
        let client = server.client().await;
        live(&client, &mut dice, &mut mint, round).await;
        if round < 2 {
            server.kill();
            server = store.serve();
            *url.lock().expect("nobody panics") = server.url();
        }
    }
    let client = server.client().await;
    let end = end(&client).await;
    until.store(end.0, Ordering::SeqCst);
    let mut seen = Vec::new();
    for reader in readers {
        seen.push(
            tokio::time::timeout(PATIENCE, reader)
                .await
                .expect("it ends")
                .expect("no panic"),
        );
    }
    let printed = server.croupier(&["feed", "--json"]).ok();
    let log = server.kill();
    assert_eq!(leaked(&mint_secrets(61), printed.stdout.as_bytes()), None);
    assert_eq!(leaked(&mint_secrets(61), log.as_bytes()), None);

    let records = store.records();
    let expected: Vec<Value> = records.iter().filter_map(of_record).collect();
    let before_end = |value: &Value| value["lsn"].as_u64() < Some(end.0);
    for (facts, options) in seen.iter().zip(&choices) {
        assert!(in_order(facts), "{options:?}");
        let told: Vec<Value> = facts.iter().map(of_fact).filter(before_end).collect();
        let passes = |fact: &Value| {
            let kind = |kind: &FeedKind| fact["kind"] == kind.name();
            let sku = |sku: &SkuId| fact["sku_id"] == sku.0;
            (options.kinds.is_empty() || options.kinds.iter().any(kind))
                && (options.skus.is_empty()
                    || fact["sku_id"].is_null()
                    || options.skus.iter().any(sku))
        };
        let due = expected
            .iter()
            .filter(|fact| passes(fact) && before_end(fact));
        let due: Vec<Value> = due
            .map(|fact| without(without(fact.clone(), "at"), "ends_at"))
            .collect();
        assert!(due.len() > 100, "{options:?}: {}", due.len());
        assert_eq!(told, due, "{options:?}");
    }
    // The command tells the same, with times and names; holds may have expired since.
    let mut names = BTreeMap::new();
    let lines = printed.stdout.lines().map(|line| {
        let fact: Value = serde_json::from_str(line).expect("an object a line");
        if let (Some(id), Some(name)) = (fact["sku_id"].as_u64(), fact["sku"].as_str()) {
            assert_eq!(*names.entry(id).or_insert(name.to_owned()), name);
            return without(fact, "sku");
        }
        fact
    });
    let lines: Vec<Value> = lines.collect();
    assert!(lines.len() >= seen[0].len());
    assert_eq!(lines, expected[..lines.len()]);
    assert_eq!(names[&1], "a");
    let kinds: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["kind"].to_string()).collect();
    // Nothing here is asked of channels that are outside.
    let others = [FeedKind::Retried, FeedKind::ChannelChanged];
    assert_eq!(kinds.len(), FeedKind::ALL.len() - others.len(), "{kinds:?}");
}

/// The first secrets of a mint: what a test has imported.
fn mint_secrets(number: u16) -> Vec<Vec<u8>> {
    Mint::new(number).secrets(9 * cards_a_round(), 20)
}

#[tokio::test]
async fn thousands_of_facts_in_pages_of_any_size() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let count = scaled(3_000, 30_000);
    let sku = import(&client, "s", &Mint::new(62).secrets(count, 20)).await;
    deal(&client, sku, count).await;
    let all = read_all(&client, Lsn(0), 0).await;
    assert!(all.len() >= count && in_order(&all));
    for facts_max in [1, 7, 1_000, u32::MAX] {
        assert_eq!(
            read_all(&client, Lsn(0), facts_max).await,
            all,
            "{facts_max}"
        );
    }
    // From anywhere: an LSN inside a record, too, and by a connection that has never read.
    let other = server.client().await;
    let middle = all[all.len() / 2].lsn;
    for from in (middle.0..middle.0 + 70).chain(1..20) {
        let rest: Vec<_> = all
            .iter()
            .filter(|fact| fact.lsn.0 >= from)
            .cloned()
            .collect();
        assert_eq!(read_all(&other, Lsn(from), 0).await, rest, "{from}");
    }
}

/// A table that is nearly as long as a frame.
fn long_table() -> String {
    "# a comment that fills the log, line by line\n".repeat(1_000) + "[[rule]]\n"
}

async fn load(client: &Client, table: &str, times: usize) {
    for _ in 0..times {
        client.routes_load(table).await.expect("a table");
    }
}

/// Waits until what `lsn` names has been folded; what the server says then.
async fn folded(client: &Client, lsn: Lsn) -> (Refusal, String) {
    let begun = Instant::now();
    let options = FeedOptions {
        from: lsn,
        facts_max: 1,
        ..FeedOptions::default()
    };
    loop {
        match client.feed(&options).await {
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "nothing is folded"),
            refused => return refusal_of(refused),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_behind_a_fold_is_told_from_where_it_goes_on() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = import(&client, "s", &Mint::new(63).secrets(100, 20)).await;
    deal(&client, sku, 50).await;
    let options = FeedOptions {
        facts_max: 5,
        ..FeedOptions::default()
    };
    // One who has begun, and stops in the middle of a block; and one who keeps up.
    let mut late = client.follow(options.clone());
    assert_eq!(late.next().await.expect("facts").len(), 5);
    let until = Arc::new(AtomicU64::new(u64::MAX));
    let keen = FeedOptions {
        wait: Duration::from_millis(300),
        ..FeedOptions::default()
    };
    let keen = tokio::spawn(follow(
        Arc::new(Mutex::new(server.url())),
        until.clone(),
        keen,
    ));
    let (table, times) = (long_table(), 120);
    load(&client, &table, times).await;

    // Several folds may follow each other: what the last one has left is the oldest.
    let mut oldest = Lsn(0);
    loop {
        let (refusal, text) = folded(&client, late.position()).await;
        assert_eq!(refusal, Refusal::FeedTooOld);
        let (_, told) = text.rsplit_once("from LSN ").expect("it names an LSN");
        let told = Lsn(told.parse().expect("a number"));
        if std::mem::replace(&mut oldest, told) == told {
            break;
        }
        // Longer than it takes until the next one would begin.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(oldest > late.position());
    assert_eq!(refusal_of(late.next().await).0, Refusal::FeedTooOld);

    let rest = read_all(&client, oldest, 0).await;
    assert_eq!(rest, read_all(&client, Lsn(0), 3).await);
    assert!(!rest.is_empty() && rest[0].lsn >= oldest);
    let before = croupier(["feed", "--from", "1", "--json", "--server", &server.url()]);
    let told = before
        .fails(1, &["FeedTooOld", &format!("LSN {oldest}")])
        .json();
    assert_eq!(told["error"]["name"], "FeedTooOld");

    until.store(end(&client).await.0, Ordering::SeqCst);
    let seen = tokio::time::timeout(PATIENCE, keen)
        .await
        .expect("it ends")
        .expect("no gap");
    assert!(in_order(&seen));
    let versions = seen.iter().filter_map(|fact| match fact.event {
        FeedEvent::RoutesLoaded { version } => Some(version),
        _ => None,
    });
    assert_eq!(
        versions.collect::<Vec<_>>(),
        (1..=times as u64).collect::<Vec<_>>()
    );

    // A clean stop folds all, and leaves the segment in use: a reader who has kept up goes on.
    let position = Lsn(end(&client).await.0);
    server.stop().ok();
    let server = store.serve();
    let client = server.client().await;
    let since = read_all(&client, position, 0).await;
    assert!(
        matches!(
            since[..],
            [FeedFact {
                event: FeedEvent::Started { epoch: 2, .. },
                ..
            }]
        ),
        "{since:?}"
    );
}

#[tokio::test]
async fn beyond_the_end_is_refused_and_the_end_is_not() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    client.sku_create("s").await.expect("a SKU is made");
    let end = end(&client).await;
    let from = |from| FeedOptions {
        from,
        ..FeedOptions::default()
    };
    let page = client.feed(&from(end)).await.expect("an empty page");
    assert_eq!((page.next, page.end, page.facts.len()), (end, end, 0));
    for beyond in [end.0 + 1, end.0 + 1_000_000, u64::MAX] {
        let (refusal, text) = refusal_of(client.feed(&from(Lsn(beyond))).await);
        assert_eq!(refusal, Refusal::FeedAhead, "{text}");
        assert!(text.contains(&beyond.to_string()), "{text}");
    }
    let url = server.url();
    let asked = croupier(["feed", "--from", "123456", "--server", &url]);
    asked.fails(1, &["FeedAhead", "123456"]);
}

fn feed_frame(request_id: u64, asked: &Feed) -> Vec<u8> {
    frame(Kind::Feed, request_id, 0, |out| encode_control(asked, out))
}

#[tokio::test]
async fn on_the_wire_filters_match_what_there_is_and_limits_hold() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = import(&client, "s", &Mint::new(64).secrets(1_500, 20)).await;
    deal(&client, sku, 1_500).await;
    let (mut wire, _) = Wire::greeted(server.addr());
    let mut ask = |asked: Feed| -> FeedReply {
        wire.send(&feed_frame(9, &asked));
        wire.control(Kind::FeedReply, 9)
    };
    let all = Feed::default;
    let issued = ask(Feed {
        kinds: vec![5],
        ..all()
    });
    assert!(
        issued
            .facts
            .iter()
            .all(|fact| fact.kind == 5 && fact.sku == sku.0)
    );
    let many = ask(Feed {
        facts_max: 5_000,
        ..all()
    });
    assert!(
        (500..=1_000).contains(&many.facts.len()),
        "{}",
        many.facts.len()
    );
    // Neither of them is there: nothing is told but what is of no SKU, and it goes on all the same.
    for (skus, kinds, due) in [
        (vec![99], vec![], vec![1]),
        (vec![0, 99, 98], vec![1, 5], vec![1]),
        (vec![], vec![3], vec![]),
        (vec![], vec![0, 11, 64, 69, u16::MAX], vec![]),
    ] {
        let page = ask(Feed {
            skus,
            kinds,
            ..all()
        });
        let kinds: Vec<u16> = page.facts.iter().map(|fact| fact.kind).collect();
        assert_eq!((kinds, page.next), (due, page.end));
    }
    // A body that is none.
    wire.send(&frame(Kind::Feed, 3, 0, |out| {
        out.extend_from_slice(b"short")
    }));
    assert_eq!(wire.refused(3).refusal, Refusal::Malformed);
    // So many may wait on one connection, and it does everything else meanwhile.
    let waits = Feed {
        from: many.end,
        wait_ms: u32::MAX,
        ..all()
    };
    for request_id in 100..117 {
        wire.send(&feed_frame(request_id, &waits));
    }
    assert_eq!(wire.refused(116).refusal, Refusal::Busy);
    assert!(wire.answers());
    client
        .sku_create("wakes them")
        .await
        .expect("a SKU is made");
    for _ in 100..116 {
        let (header, _) = wire.reply();
        assert_eq!(header.kind, Kind::FeedReply);
    }
    // A stop ends all waits.
    let now = Feed {
        from: end(&client).await.0,
        ..waits
    };
    wire.send(&feed_frame(200, &now));
    let begun = Instant::now();
    server.stop().ok();
    assert!(begun.elapsed() < Duration::from_secs(20));
    if let Some((header, body)) = wire.try_reply() {
        assert_eq!((header.kind, header.request_id), (Kind::Refused, 200));
        let refused = RefusedBody::decode(&body).expect("a Refused");
        assert_eq!(refused.refusal, Refusal::ShuttingDown);
    }
}

#[tokio::test]
async fn a_wait_lasts_as_long_as_it_says_or_until_there_is_a_fact() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let sku = import(&client, "s", &Mint::new(65).secrets(10, 20)).await;
    let other = client.sku_create("t").await.expect("a SKU is made");
    let waits = |from, wait: Duration, skus: &[SkuId]| FeedOptions {
        from,
        wait,
        skus: skus.into(),
        ..FeedOptions::default()
    };
    let begun = Instant::now();
    let from = end(&client).await;
    let half = Duration::from_millis(500);
    let page = client.feed(&waits(from, half, &[])).await.expect("a page");
    assert!(begun.elapsed() >= half && page.facts.is_empty());

    // Longer than a call: the wait is not taken from its time. What the filter leaves out wakes nobody.
    let patient = server.builder().call_timeout(Duration::from_secs(10));
    let patient = patient.build().await.expect("it connects");
    let begun = Instant::now();
    let options = waits(from, Duration::from_secs(25), &[other]);
    let asking = tokio::spawn(async move { patient.feed(&options).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    deal(&client, sku, 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished());
    import(&client, "t", &Mint::new(66).secrets(1, 20)).await;
    let page = asking.await.expect("no panic").expect("a page");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    let kinds: Vec<_> = page.facts.iter().map(|fact| fact.event.kind()).collect();
    assert_eq!(kinds, [FeedKind::BatchSealed]);
    assert!(page.facts[0].lsn > from);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_follows_says_where_to_go_on_and_knows_names() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let mut mint = Mint::new(67);
    let secrets = mint.secrets(200, 40);
    let sku = import(&client, "steam-50", &secrets).await;
    deal(&client, sku, 20).await;

    let lines = |done: &str| done.lines().map(str::to_owned).collect::<Vec<_>>();
    let issued = server
        .croupier(&["feed", "--sku", "steam-50", "--kind", "issued"])
        .ok();
    let issued = lines(&issued.stdout);
    assert_eq!(issued.len(), 20);
    assert!(
        issued[0].contains("kind=issued sku=steam-50"),
        "{}",
        issued[0]
    );
    server
        .croupier(&["feed", "--sku", "nobody"])
        .fails(1, &["UnknownSku", "nobody"]);
    server
        .croupier(&["feed", "--kind", "slab-added"])
        .fails(2, &["slab-added", "batch-sealed"]);

    // Followed until the server is gone; whatever was told by then, the rest begins where it says.
    let url = format!("{}?retries=0", server.url());
    let following =
        std::thread::spawn(move || croupier(["feed", "--follow", "--json", "--server", &url]));
    deal(&client, sku, 20).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill();
    let followed = following.join().expect("no panic");
    assert!(matches!(followed.code, Some(1 | 4)), "{followed}");
    let mut told = lines(&followed.stdout);
    let error: Value = serde_json::from_str(&told.pop().expect("an error")).expect("one line");
    let next = error["error"]["next"].as_u64().expect("an LSN").to_string();
    assert!(
        followed
            .stderr
            .contains(&format!("croupier feed --from {next}")),
        "{followed}"
    );

    let server: Server = store.serve();
    let all = server.croupier(&["feed", "--json"]).ok();
    let rest = server.croupier(&["feed", "--json", "--from", &next]).ok();
    told.extend(lines(&rest.stdout));
    assert_eq!(told, lines(&all.stdout));
    for text in [
        &followed.stdout,
        &followed.stderr,
        &all.stdout,
        &rest.stderr,
    ] {
        assert_eq!(leaked(&secrets, text.as_bytes()), None);
    }
}
