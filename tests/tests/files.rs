//! Files of cards: every format with everything that real ones have in them, counted line by line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use croupier_client::{Order, OrderId, OrderOutcome, SkuId};
use croupier_tests::{Mint, Oracle, Server, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A file and what must become of it.
struct Sample {
    name: &'static str,
    bytes: Vec<u8>,
    flags: &'static [&'static str],
    /// Fields of the summary that must be there; every other count must not.
    expect: Value,
    /// Accepted secrets; `None` where only their number is known.
    secrets: Option<Vec<Vec<u8>>>,
}

const REASONS: [&str; 11] = [
    "empty_secret",
    "too_long",
    "invalid_utf8",
    "wrong_column_count",
    "bad_expiry",
    "duplicate_in_file",
    "duplicate_in_stock",
    "expired",
    "bad_amount",
    "label_too_long",
    "bad_quoting",
];

#[track_caller]
fn import(server: &Server, sku: &str, file: &Path, flags: &[&str]) -> Value {
    let file = file.display().to_string();
    let args = ["import", "--json", "--create-sku", "--sku", sku, &file];
    server.croupier(&[&args, flags].concat()).ok().json()
}

#[track_caller]
fn check_summary(name: &str, summary: &Value, expect: &Value) {
    for (field, value) in expect.as_object().expect("an object") {
        assert_eq!(summary[field], *value, "{name}: {field}\n{summary:#}");
    }
    for reason in REASONS {
        assert!(
            expect.get(reason).is_some() || summary.get(reason).is_none(),
            "{name}: {reason}\n{summary:#}"
        );
    }
    let counted: u64 = REASONS
        .iter()
        .filter_map(|reason| summary.get(reason)?.as_u64())
        .sum();
    assert_eq!(
        summary["rejected"].as_array().map(Vec::len),
        Some(counted as usize),
        "{name}: each line is listed"
    );
    let accepted = summary["accepted"].as_u64().expect("a number");
    assert_eq!(
        summary["lines"],
        accepted + counted,
        "{name}: every line is one or the other"
    );
}

/// One card bought and looked up by commands, all others by the client: byte for byte what the file had.
async fn check_sold(server: &Server, sample: &Sample, summary: &Value) {
    let name = sample.name;
    let bought = server
        .croupier(&["issue", "--json", "--sku", name, "--quantity", "2"])
        .ok()
        .json();
    let id = bought["order_id"].as_str().expect("an id").to_owned();
    let found = server.croupier(&["order", "--json", &id]).ok().json();
    assert_eq!(bought, found, "{name}: issue and order");
    let repeated = server
        .croupier(&[
            "issue",
            "--json",
            "--sku",
            name,
            "--quantity",
            "2",
            "--order",
            &id,
        ])
        .ok()
        .json();
    assert_eq!(
        (&repeated["cards"], &repeated["repeat"]),
        (&bought["cards"], &json!(true)),
        "{name}: a repeat"
    );

    let text = |card: &Value| card["secret"].as_str().expect("UTF-8").to_owned();
    let mut sold: Vec<_> = bought["cards"]
        .as_array()
        .expect("cards")
        .iter()
        .map(text)
        .collect();
    let shown = server.croupier(&["order", &id]).ok().stdout;
    assert!(
        sold.iter().all(|secret| shown.contains(secret.as_str())),
        "{name}: people see the same"
    );

    let client = server.client().await;
    let sku = SkuId(summary["sku_id"].as_u64().expect("a number") as u32);
    let left = summary["accepted"].as_u64().expect("a number") as usize - sold.len();
    let orders: Vec<_> = (0..left)
        .map(|_| Order::new(OrderId::new_v7(), sku))
        .collect();
    for outcome in client
        .issue_many(&orders)
        .await
        .expect("a server that lives")
    {
        let OrderOutcome::Issued(issued) = outcome else {
            panic!("{name}: {outcome:?}")
        };
        let secret = issued.cards[0].secret.as_bytes();
        sold.push(String::from_utf8(secret.to_vec()).expect("UTF-8"));
    }
    let last = client.issue(Order::new(OrderId::new_v7(), sku)).await;
    assert!(last.is_err(), "{name}: all are sold");
    let distinct: BTreeSet<_> = sold.iter().map(String::as_bytes).collect();
    assert_eq!(distinct.len(), sold.len(), "{name}: each card once");
    if let Some(secrets) = &sample.secrets {
        let expect: BTreeSet<_> = secrets.iter().map(Vec::as_slice).collect();
        let strange = distinct.symmetric_difference(&expect).count();
        assert_eq!(strange, 0, "{name}: what was sold is what the file had");
    }
}

fn joined(lines: &[Vec<u8>], end: &str) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_slice(), end.as_bytes()].concat())
        .collect()
}

/// Lines with a BOM, with CRLF, with blank lines and without a last line end.
fn lines() -> Sample {
    let secrets = Mint::new(101).secrets(500, 20);
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(joined(&secrets[..250], "\r\n"));
    bytes.extend(b"\r\n   \n\n");
    bytes.extend(joined(&secrets[250..], "\n"));
    bytes.pop();
    let expect = json!({ "accepted": 500, "blank_lines": 3, "format": "lines" });
    Sample {
        name: "lines",
        bytes,
        flags: &[],
        expect,
        secrets: Some(secrets),
    }
}

/// Lines of text that is not English, one of them as long as a secret may be.
fn chinese() -> Sample {
    let mut mint = Mint::new(102);
    let mut secrets: Vec<Vec<u8>> = (0..300)
        .map(|_| {
            let own = String::from_utf8(mint.secret(16)).expect("letters");
            format!("账号:u{own}----密码:R$s4{own}----备注:首次登录请改密,勿绑定手机 🎴")
                .into_bytes()
        })
        .collect();
    secrets.push(mint.secret(4096));
    let expect = json!({ "accepted": 301, "format": "lines" });
    Sample {
        name: "账号",
        bytes: joined(&secrets, "\n"),
        flags: &["--format", "lines"],
        expect,
        secrets: Some(secrets),
    }
}

/// Two secret columns, quoted labels with commas in them, two kinds of expiry.
fn csv() -> Sample {
    let mut bytes = b"number,pin,face_value,expires_at,label\r\n".to_vec();
    let mut secrets = Vec::new();
    for (nth, number) in Mint::new(103).secrets(400, 18).into_iter().enumerate() {
        let number = String::from_utf8(number).expect("letters");
        let rest = [
            "100.00,2999-06-30T23:59:59Z,双十一 批次",
            "50.00,,",
            "10.00,2999-12-31,\"Spring, 2026\"",
            "1.00,,\"a \"\"quoted\"\" word\"",
        ];
        bytes.extend(format!("{number},{nth:04},{}\r\n", rest[nth % rest.len()]).into_bytes());
        secrets.push(format!("{number} {nth:04}").into_bytes());
    }
    let expect = json!({ "accepted": 400, "format": "csv" });
    Sample {
        name: "gift cards",
        bytes,
        flags: &["--secret", "number,pin"],
        expect,
        secrets: Some(secrets),
    }
}

/// secret║label║premium║cost
fn bars() -> Sample {
    let mut bytes = Vec::new();
    let secrets = Mint::new(104).secrets(400, 17);
    for (nth, secret) in secrets.iter().enumerate() {
        bytes.extend_from_slice(secret);
        bytes.extend(format!("║靓号 {nth:06}║{}.00║1.4{}\n", nth % 30, nth % 10).into_bytes());
    }
    let expect = json!({ "accepted": 400, "format": "bars" });
    Sample {
        name: "pickable",
        bytes,
        flags: &[],
        expect,
        secrets: Some(secrets),
    }
}

/// One line of every kind that is rejected, with its number.
fn dirty() -> Sample {
    let mut mint = Mint::new(105);
    let good = mint.secrets(40, 22);
    let mut bytes = b"secret,expires_at,label\n".to_vec();
    let mut line = 1;
    let mut rejected = Vec::new();
    let mut put = |row: &[u8], reason: Option<&str>| {
        bytes.extend_from_slice(row);
        bytes.push(b'\n');
        line += 1;
        if let Some(reason) = reason {
            rejected.push(json!({ "line": line, "reason": reason }));
        }
    };
    for secret in &good {
        put(&[secret, &b",2999-01-01,"[..]].concat(), None);
    }
    put(
        &[&good[0], &b",2999-01-01,"[..]].concat(),
        Some("duplicate_in_file"),
    );
    put(
        &[&good[7], &b",,other label"[..]].concat(),
        Some("duplicate_in_file"),
    );
    put(b",2999-01-01,", Some("empty_secret"));
    put(b"   ,2999-01-01,", Some("empty_secret"));
    put(&[&mint.secret(4097), &b",,"[..]].concat(), Some("too_long"));
    put(&[&mint.secret(9000), &b",,"[..]].concat(), Some("too_long"));
    put(b"BAD\xff\xfeUTF8-IN-HERE,,", Some("invalid_utf8"));
    put(b"BAD-EXPIRY-000000001,2999-13-01,", Some("bad_expiry"));
    put(b"BAD-EXPIRY-000000002,soon,", Some("bad_expiry"));
    put(b"LONG-GONE-0000000001,2001-01-01,", Some("expired"));
    put(b"TOO-FEW-COLUMNS-0001", Some("wrong_column_count"));
    put(b"TOO-MANY-COLUMNS-001,,,x", Some("wrong_column_count"));
    put(
        &[b"LABEL-TOO-LONG-00001,,", "长".repeat(86).as_bytes()].concat(),
        Some("label_too_long"),
    );
    put(&[&mint.secret(24), &b",,"[..]].concat(), None);
    let expect = json!({
        "accepted": 41, "format": "csv", "duplicate_in_file": 2, "empty_secret": 2, "too_long": 2, "invalid_utf8": 1,
        "bad_expiry": 2, "expired": 1, "wrong_column_count": 2, "label_too_long": 1, "rejected": rejected,
    });
    Sample {
        name: "dirty",
        bytes,
        flags: &[],
        expect,
        secrets: None,
    }
}

#[tokio::test]
async fn every_format_is_sold_byte_for_byte_as_it_was_written() {
    let (store, dir) = (Store::new(), TempDir::new().expect("a temporary directory"));
    let server = store.serve();
    let samples = [lines(), chinese(), csv(), bars(), dirty()];
    let mut imported = 0;
    for sample in &samples {
        let end = if sample.expect["format"] == "csv" {
            "csv"
        } else {
            "txt"
        };
        let file = dir.path().join(format!("sample.{end}"));
        fs::write(&file, &sample.bytes).expect("a file can be written");
        let summary = import(&server, sample.name, &file, sample.flags);
        check_summary(sample.name, &summary, &sample.expect);
        imported += summary["accepted"].as_u64().expect("a number");
        check_sold(&server, sample, &summary).await;

        // The same file again brings nothing, and says why for every line.
        let path = file.display().to_string();
        let args = ["import", "--json", "--sku", sample.name, &path];
        let again = server
            .croupier(&[&args, sample.flags].concat())
            .fails(1, &[])
            .json();
        assert_eq!((&again["accepted"], &again["lsn"]), (&json!(0), &json!(0)));
        // What was twice in the file is in stock twice now.
        let count = |field: &str| sample.expect[field].as_u64().unwrap_or(0);
        let known = count("accepted") + count("duplicate_in_file");
        assert_eq!(again["duplicate_in_stock"], known, "{}", sample.name);
    }
    server.stop().ok();
    let report = Oracle::verify(&store);
    assert_eq!((report.imported, report.free), (imported, 0));
}

/// The files that shops really have, where they lie beside the repository.
#[tokio::test]
async fn the_shared_samples_are_imported_with_the_right_counts() {
    let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
    if !samples.is_dir() {
        eprintln!("SKIPPED: there is no {}", samples.display());
        return;
    }
    let store = Store::new();
    let server = store.serve();
    let read = |name: &str| fs::read(samples.join(name)).expect("a sample can be read");
    let rows = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let lines = bytes
            .split(|&byte| byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let column = |row: &Vec<u8>, separator: &str, columns: usize| {
        let text = String::from_utf8(row.clone()).expect("UTF-8");
        text.split(separator)
            .take(columns)
            .collect::<Vec<_>>()
            .join(" ")
            .into_bytes()
    };
    let expected: Value = serde_json::from_slice(&read("dirty.expected.json")).expect("JSON");
    let plain = |name, format: &str, secrets: Vec<Vec<u8>>| Sample {
        name,
        bytes: Vec::new(),
        flags: &[],
        expect: json!({ "accepted": secrets.len(), "format": format }),
        secrets: Some(secrets),
    };
    let table = [
        plain("accounts.txt", "lines", rows(&read("accounts.txt"))),
        plain("game-keys.txt", "lines", rows(&read("game-keys.txt"))),
        plain("links.txt", "lines", rows(&read("links.txt"))),
        plain(
            "pickable.txt",
            "bars",
            rows(&read("pickable.txt"))
                .iter()
                .map(|row| column(row, "║", 1))
                .collect(),
        ),
        Sample {
            flags: &["--secret", "number,pin"],
            ..plain(
                "gift-cards.csv",
                "csv",
                rows(&read("gift-cards.csv"))[1..]
                    .iter()
                    .map(|row| column(row, ",", 2))
                    .collect(),
            )
        },
        Sample {
            secrets: None,
            expect: expected,
            ..plain("dirty.csv", "csv", Vec::new())
        },
    ];
    for sample in &table {
        let summary = import(
            &server,
            sample.name,
            &samples.join(sample.name),
            sample.flags,
        );
        check_summary(sample.name, &summary, &sample.expect);
        check_sold(&server, sample, &summary).await;
    }
    server.stop().ok();
    assert_eq!(Oracle::verify(&store).free, 0);
}

#[test]
fn a_file_that_cannot_be_imported_is_refused_and_leaves_nothing() {
    let (store, dir) = (Store::new(), TempDir::new().expect("a temporary directory"));
    let server = store.serve();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file can be written");
        path.display().to_string()
    };
    let good = file("good.csv", b"secret,label\nAAAA-BBBB-CCCC,x\n");
    let empty = file("empty.txt", b"");
    let blank = file("blank.txt", b"\xef\xbb\xbf\r\n\r\n");
    let header = file("header.csv", b"secret,label\n");
    let directory = dir.path().display().to_string();
    let none = dir.path().join("none.txt").display().to_string();
    let table: [(&str, i32, &[&str], &[&str]); 8] = [
        (&good, 2, &["--secret", "pin"], &["pin", "secret, label"]),
        (&good, 2, &["--format", "xml"], &["xml"]),
        (&empty, 1, &[], &[]),
        (&blank, 1, &[], &[]),
        (&header, 1, &[], &[]),
        (&directory, 1, &[], &["directory"]),
        (&none, 1, &[], &["none.txt", "No such file"]),
        (&good, 1, &["--batch", " padded "], &["white space"]),
    ];
    for (path, code, flags, words) in table {
        let args = ["import", "--sku", "s", "--create-sku", path];
        server.croupier(&[&args, flags].concat()).fails(code, words);
    }
    server
        .croupier(&["import", "--sku", "unknown", &good])
        .fails(1, &["UnknownSku", "unknown", "create"]);
    server
        .croupier(&["stock", "--sku", "unknown"])
        .fails(1, &["UnknownSku"]);
    server
        .croupier(&["issue", "--sku", "unknown"])
        .fails(1, &["UnknownSku"]);
    server
        .croupier(&["order", "01890a5d-ac96-774b-bcce-b302099a8057"])
        .fails(1, &["no order"]);
    server.croupier(&["order", "seven"]).fails(2, &["seven"]);
    let stock = server.croupier(&["stock", "--json"]).ok().json();
    for row in stock.as_array().expect("rows") {
        assert_eq!(row["imported"], 0, "{row}");
    }
    assert!(
        store.files("slabs", "").is_empty(),
        "{:?}",
        store.files("slabs", "")
    );
    let url = server.url();
    server.stop().ok();
    croupier_tests::croupier(["stock", "--server", &url]).fails(4, &["cannot reach"]);
}
