//! Who got this card: look-ups by secret, by place, by batch. docs/cards.md.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use croupier_client::{
    CardMove, CardRef, CardRow, CardSelection, CardStatus, Client, IssuedOrder, Order, OrderId,
    Refusal, SkuId,
};
use croupier_tests::{Mint, Store, leaked};

use super::moves::refusal_of;
use super::stock::import_batch;

async fn all(client: &Client, which: &CardSelection, status: Option<CardStatus>) -> Vec<CardRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = client
            .list_cards(which, status, after)
            .await
            .expect("a page");
        assert!(page.len() <= 100, "a page");
        rows.extend(page);
        let Some(next) = next else { return rows };
        assert!(after < Some(next), "pages go on");
        after = Some(next);
    }
}

fn place(row: &CardRow) -> CardRef {
    CardRef {
        slab: row.slab,
        slot: row.slot,
        generation: row.generation,
    }
}

/// Which order has which card, and the LSN of its record.
type Owners = HashMap<CardRef, (OrderId, u64)>;

fn keep(owners: &mut Owners, order: &IssuedOrder) {
    for card in &order.cards {
        let before = owners.insert(card.card, (order.order_id, order.lsn.0));
        assert_eq!(before, None, "{} goes to two orders", card.card);
    }
}

/// What the look-ups must say of every card: its order, if one has it.
async fn check(client: &Client, sku: SkuId, secrets: &[Vec<u8>], owners: &Owners) {
    let rows = all(client, &CardSelection::Sku("s".into()), None).await;
    assert_eq!(rows.len(), secrets.len());
    assert!(
        rows.windows(2)
            .all(|pair| place(&pair[0]) < place(&pair[1]))
    );
    for row in &rows {
        let owner = owners.get(&place(row));
        let told = row.order.map(|id| (OrderId::from_bytes(id), row.lsn));
        assert_eq!(told, owner.copied(), "{row:?}");
        assert_eq!(
            owner.is_some(),
            row.status == CardStatus::Issued.as_u16(),
            "{row:?}"
        );
    }
    // By secret: each is exactly one card, and it is the one that the order got.
    let mut seen = BTreeMap::new();
    for secret in secrets.iter().step_by(7) {
        let found = client
            .find_secret(Some(sku), secret)
            .await
            .expect("answered");
        let [row] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(rows.contains(row), "{row:?}");
        seen.insert(place(row), secret.clone());
    }
    assert_eq!(seen.len(), secrets.iter().step_by(7).count());
}

#[tokio::test]
async fn every_card_is_found_by_place_and_secret_with_the_order_that_got_it() {
    let store = Store::new();
    let mut server = store.serve();
    let mut client = server.client().await;
    let mut mint = Mint::new(71);
    let secrets = mint.secrets(700, 24);
    let sku = import_batch(&client, "s", "first", &secrets[..400]).await;
    import_batch(&client, "s", "second", &secrets[400..]).await;
    import_batch(&client, "other", "third", &secrets[..3]).await;
    let mut owners = Owners::new();
    for quantity in [1u16, 3, 40, 1] {
        let order = Order::new(OrderId::new_v7(), sku).quantity(quantity);
        let issued = client.issue(order).await.expect("there is stock");
        // The card that an order got is the card that its secret finds.
        let card = &issued.cards[0];
        let found = client
            .find_secret(None, card.secret.as_bytes())
            .await
            .expect("answered");
        let of_sku = found
            .iter()
            .find(|row| row.sku == sku.0)
            .expect("in its SKU");
        assert_eq!(place(of_sku), card.card);
        assert_eq!(of_sku.order, Some(issued.order_id.to_bytes()));
        keep(&mut owners, &issued);
    }
    // A hold has no card; its commit has, and a late commit too.
    let held = OrderId::new_v7();
    let ttl = Duration::from_secs(60);
    client
        .reserve(Order::new(held, sku).quantity(5), ttl)
        .await
        .expect("held");
    assert_eq!(all(&client, &CardSelection::Order(held), None).await, []);
    let late = OrderId::new_v7();
    let short = Duration::from_millis(1);
    client
        .reserve(Order::new(late, sku).quantity(2), short)
        .await
        .expect("held");
    check(&client, sku, &secrets, &owners).await;
    let committed = client.commit_part(held, 4).await.expect("committed");
    keep(&mut owners, &committed);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let committed = client.commit(late).await.expect("committed late");
    keep(&mut owners, &committed);
    check(&client, sku, &secrets, &owners).await;
    // The same after a kill, and after a stop with a fold.
    for kill in [true, false] {
        if kill {
            server.kill();
        } else {
            server.stop().ok();
        }
        server = store.serve();
        client = server.client().await;
        check(&client, sku, &secrets, &owners).await;
    }
}

#[tokio::test]
async fn batches_and_statuses_are_told_apart_and_what_cannot_be_meant_is_refused() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let secrets = Mint::new(72).secrets(300, 24);
    let sku = import_batch(&client, "s", "a", &secrets[..200]).await;
    import_batch(&client, "s", "b", &secrets[200..]).await;
    let (a, b) = (batch("a"), batch("b"));
    let issued = client
        .issue(Order::new(OrderId::new_v7(), sku).quantity(30))
        .await;
    issued.expect("there is stock");
    let ten: Vec<CardRef> = all(&client, &b, Some(CardStatus::Free)).await[..10]
        .iter()
        .map(place)
        .collect();
    let ten = CardSelection::Cards(ten);
    client
        .move_cards(&ten, CardMove::Suspend, false)
        .await
        .expect("free cards");
    client
        .move_cards(&a, CardMove::Void, false)
        .await
        .expect("a batch");
    let count =
        async |which: &CardSelection, status| all(&client, which, status).await.len() as u64;
    for row in client.batches(Some("s")).await.expect("answered") {
        let which = batch(&row.label);
        let told = [row.free, row.issued, row.suspended, row.void];
        for (status, told) in CardStatus::ALL.into_iter().zip(told) {
            assert_eq!(
                count(&which, Some(status)).await,
                told,
                "{status:?} of {row:?}"
            );
        }
        assert_eq!(told.iter().sum::<u64>(), row.cards);
        assert_eq!(count(&which, None).await, row.cards);
        assert_eq!(row.pool, "main");
    }
    assert_eq!(count(&ten, Some(CardStatus::Suspended)).await, 10);
    assert_eq!(client.batches(None).await.expect("answered").len(), 2);
    let nobody = CardRef {
        slab: 99,
        slot: 0,
        generation: 0,
    };
    for (which, refusal) in [
        (CardSelection::Sku("none".into()), Refusal::UnknownSku),
        (batch("none"), Refusal::UnknownBatch),
        (CardSelection::Cards(vec![nobody]), Refusal::UnknownCard),
        (CardSelection::Cards(Vec::new()), Refusal::SelectionInvalid),
        (
            CardSelection::Cards(vec![nobody; 1001]),
            Refusal::SelectionInvalid,
        ),
    ] {
        let answer = client.list_cards(&which, None, None).await;
        assert_eq!(refusal_of(answer), refusal, "{which:?}");
    }
    assert_eq!(
        client
            .find_secret(None, b"no card has this")
            .await
            .expect("answered"),
        []
    );
    for (sku, secret, refusal) in [
        (None, Vec::new(), Refusal::SelectionInvalid),
        (None, vec![b'x'; 4097], Refusal::SelectionInvalid),
        (Some(SkuId(9)), vec![b'x'], Refusal::UnknownSku),
    ] {
        assert_eq!(refusal_of(client.find_secret(sku, &secret).await), refusal);
    }
    assert_eq!(
        refusal_of(client.batches(Some("none")).await),
        Refusal::UnknownSku
    );
}

fn batch(label: &str) -> CardSelection {
    CardSelection::Batch {
        sku: "s".into(),
        label: label.into(),
    }
}

/// The command: secrets come from a file, and none comes out again.
#[tokio::test]
async fn the_command_tells_who_got_a_secret_and_never_the_secret() {
    let store = Store::new();
    let server = store.serve();
    let client = server.client().await;
    let secrets = Mint::new(73).secrets(50, 24);
    let sku = import_batch(&client, "s", "a", &secrets).await;
    let id = OrderId::new_v7();
    let issued = client
        .issue(Order::new(id, sku))
        .await
        .expect("there is stock");
    let asked = [
        issued.cards[0].secret.as_bytes(),
        &secrets[49],
        b"no card has this",
    ]
    .join(&b'\n');
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), asked).expect("it is written");
    let path = file.path().to_str().expect("a plain path");
    let done = server
        .croupier(&["cards", "--secret-file", path, "--json"])
        .ok();
    assert_eq!(leaked(&secrets, done.stdout.as_bytes()), None);
    let rows = done.json();
    assert_eq!(rows[0]["order_id"], id.to_string());
    assert_eq!(rows[0]["line"], 1);
    assert_eq!(rows[1]["status"], "free");
    assert_eq!(rows[2]["card"], serde_json::Value::Null);
    let listed = server
        .croupier(&["cards", "--sku", "s", "--status", "issued"])
        .ok();
    assert!(listed.stdout.contains(&id.to_string()), "{}", listed.stdout);
    let batches = server.croupier(&["batches"]).ok();
    assert!(batches.stdout.contains("main"), "{}", batches.stdout);
}
