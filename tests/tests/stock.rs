//! Stock for tests that keep no books: imports through the client, and counts that must add up.

use croupier_client::{Client, ImportOptions, ImportRow, SkuId, StockRow};

/// Imports cards of a SKU, which is made if there is none. All must be accepted.
pub(super) async fn import(client: &Client, sku: &str, secrets: &[Vec<u8>]) -> SkuId {
    import_as(client, sku, ImportOptions::default(), secrets).await
}

/// As [`import`], as a batch of this label.
pub(super) async fn import_batch(
    client: &Client,
    sku: &str,
    label: &str,
    secrets: &[Vec<u8>],
) -> SkuId {
    let options = ImportOptions {
        batch: Some(label.into()),
        ..ImportOptions::default()
    };
    import_as(client, sku, options, secrets).await
}

/// As [`import`], into this pool.
pub(super) async fn import_into(
    client: &Client,
    sku: &str,
    pool: &str,
    secrets: &[Vec<u8>],
) -> SkuId {
    let options = ImportOptions {
        pool: Some(pool.into()),
        ..ImportOptions::default()
    };
    import_as(client, sku, options, secrets).await
}

async fn import_as(
    client: &Client,
    sku: &str,
    options: ImportOptions,
    secrets: &[Vec<u8>],
) -> SkuId {
    let options = ImportOptions {
        sku: sku.into(),
        create_sku: true,
        ..options
    };
    let mut import = client.import(options).await.expect("an import begins");
    let id = import.sku();
    for (line, secret) in (1..).zip(secrets) {
        let pushed = import.push(ImportRow::new(line, secret)).await;
        pushed.expect("a row is taken");
    }
    let report = import.finish().await.expect("an import ends");
    assert_eq!(report.accepted, secrets.len() as u64);
    id
}

/// The counts of the first SKU.
pub(super) async fn stock(client: &Client) -> StockRow {
    let mut rows = client.stock(None).await.expect("stock is answered");
    let row = rows.remove(0);
    let sum = row.free + row.held + row.issued + row.void;
    assert_eq!(sum, row.imported, "{row:?}");
    row
}

/// Free, held, issued, void.
pub(super) fn counts(row: &StockRow) -> [u64; 4] {
    [row.free, row.held, row.issued, row.void]
}
