//! The command line as a table: what parses, what it prints, what it exits with.

use std::io;

use clap::{CommandFactory, Parser};
use croupier_protocol::{
    Card, CardRef, HeldOrder, Hold, IssuedOrder, Lsn, OrderId, Refusal, Secret, SkuId,
};
use serde_json::json;

use super::*;
use crate::config::{Config, Cores};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("croupier").chain(line.split_whitespace()))
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} has no help");
        let leaf = command.get_subcommands().next().is_none();
        let example = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            !leaf || example.contains(path.trim_start()),
            "{path} has no example of itself"
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{path}: {} has no help",
                argument.get_id()
            );
        }
        command
            .get_subcommands()
            .for_each(|command| visit(command, &path));
    }
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    visit(&cli, "");
}

#[test]
fn command_lines() {
    for line in [
        "quickstart",
        "feed",
        "feed --from 812 --follow --json --sku a --sku b --kind issued --kind cards-moved",
        "quickstart --data d --listen 127.0.0.1:0",
        "init --data d --key-file k",
        "serve --data d --listen 127.0.0.1:0 --ops [::1]:0 --cores all --config f --unsafe-no-sync",
        "sku create name --server croupier://h:1",
        "sku list --json",
        "--json sku list",
        "import --sku s f",
        "import --sku s - --format csv --secret a,b --batch b --pool p --create-sku --rejects r",
        "issue --sku s --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --quantity 2 --priority vip",
        "order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10",
        "reserve --sku s",
        "reserve --sku s --order 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --quantity 2 --ttl 1h30m --priority vip",
        "issue --sku s --card 3:17",
        "issue --sku s --label VIP-0001 --priority vip",
        "reserve --sku s --card 3:17 --bind now --ttl 5m",
        "reserve --sku s --bind commit",
        "commit 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10",
        "commit 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --quantity 2 --only-held --json",
        "cancel 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10",
        "extend 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --nth 65535 --ttl 90s",
        "stock --sku s",
        "routes check f",
        "routes load f",
        "routes load f --expect 7",
        "routes show",
        "routes show --version 0",
        "routes history --json",
        "routes rollback",
        "routes rollback 7 --expect 9",
        "routes replay --table f",
        "routes replay --table f --latency alpha=250 --latency beta=0",
        "routes replay --data d --key-file k --table f --from 7 --until 2026-11-11T00:05:00Z --json",
        "ping",
        "info --log debug",
        "wal dump --data d --from 1 --until 2",
        "wal verify --data d",
        "wal replay --data d --until 2026-11-11T00:05:00Z --into e",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "sku",
        "import f",
        "import --sku s",
        "import --sku s f --format xlsx",
        "issue",
        "issue --sku s --order 7",
        "issue --sku s --quantity 65536",
        "issue --sku s --priority urgent",
        "order",
        "serve --cores none",
        "serve --listen 7733",
        "wal replay --until yesterday",
        "routes load f --expect newest",
        "routes rollback -1",
        "routes replay",
        "routes replay --table f --from yesterday",
        "routes replay --table f --latency alpha",
        "routes replay --table f --latency alpha=fast",
        "routes replay --table f --latency alpha=-1",
        "routes replay --table f --latency alpha=3600001",
        "routes replay --table f --latency =5",
        "routes show --version latest",
        "reserve",
        "reserve --sku s --ttl 0s",
        "reserve --sku s --ttl soon",
        "reserve --sku s --only-held",
        "reserve --sku s --bind later",
        "issue --sku s --card 3",
        "issue --sku s --card 3:17 --label VIP-0001",
        "issue --sku s --card 3:17 --wait 1h",
        "issue --sku s --label x --partial",
        "commit",
        "commit 7",
        "commit 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --ttl 1m",
        "cancel",
        "extend 01997b5c-1f3a-7c54-9d0e-6f6e2b1f4a10 --nth 0",
        "wait --sku s",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} parses"));
        assert_eq!(error.exit_code(), i32::from(error::USAGE), "{line}");
    }
}

#[test]
fn flags_reach_the_configuration() {
    let Command::Serve(args) = parse("serve --data d --cores 2 --quantity-max 9 --unsafe-no-sync")
        .expect("valid")
        .command
    else {
        panic!("another command")
    };
    let expect = Config {
        cores: Cores::N(2),
        quantity_max: 9,
        unsafe_no_sync: true,
        ..Config::new("d")
    };
    assert_eq!(args.load().expect("valid"), expect);
}

#[test]
fn exit_codes() {
    use croupier_client::Error as ClientError;

    let order_id = OrderId::from_u128(7);
    let unreachable = || ClientError::Unreachable {
        addr: "h:1".to_owned(),
        source: io::Error::other("no"),
    };
    let refused = ClientError::Refused {
        order_id: Some(order_id),
        refusal: Refusal::OutOfStock,
        retry_after_ms: 5,
        text: "none left".to_owned(),
    };
    let unknown = ClientError::OutcomeUnknown {
        count: 1,
        first: order_id,
        cause: Box::new(unreachable()),
    };
    let unknown = CliError::of_step(unknown, order_id, || format!("cancel {order_id}"));
    assert!(unknown.to_string().ends_with(
        "Ask again; it is done at most once:\n  croupier cancel 00000000-0000-0000-0000-000000000007"
    ));
    let expired = ClientError::Refused {
        order_id: Some(order_id),
        refusal: Refusal::Expired,
        retry_after_ms: 0,
        text: "too late".to_owned(),
    };
    let expired = CliError::of_step(expired, order_id, || unreachable!("its outcome is known"));
    for (error, exit_code, name) in [
        (CliError::from(unreachable()), 4, "Unreachable"),
        (refused.into(), 1, "OutOfStock"),
        (unknown, 1, "OutcomeUnknown"),
        (expired, 1, "Expired"),
        (CliError::NoSuchOrder(order_id), 1, "OrderNotFound"),
        (CliError::Usage("no".to_owned()), 2, "Usage"),
        (CliError::StdoutClosed, 0, "StdoutClosed"),
    ] {
        let json = error.to_json();
        assert_eq!(
            (error.exit_code(), &json["error"]["name"]),
            (exit_code, &json!(name))
        );
        assert_eq!(json["error"]["exit_code"], json!(exit_code));
        let about_an_order = !matches!(name, "Unreachable" | "Usage" | "StdoutClosed");
        assert_eq!(
            json["error"]["order_id"].is_string(),
            about_an_order,
            "{name}"
        );
    }
}

#[test]
fn an_order_as_json() {
    let card = |slot, secret: &[u8]| Card {
        card: CardRef {
            slab: 3,
            slot,
            generation: 0,
        },
        secret: Secret::from(secret.to_vec()),
    };
    let order = IssuedOrder {
        order_id: OrderId::from_u128(7),
        lsn: Lsn(12),
        sku: SkuId(4),
        repeat: true,
        cards: vec![card(0, "密-1".as_bytes()), card(1, b"\xff\x00")],
    };
    let expect = json!({
        "order_id": "00000000-0000-0000-0000-000000000007", "state": "issued", "lsn": 12, "sku": "s", "sku_id": 4,
        "repeat": true, "quantity": 2,
        "cards": [
            { "card": order.cards[0].card.to_string(), "secret": "密-1" },
            { "card": order.cards[1].card.to_string(), "secret_hex": "ff00" },
        ],
    });
    assert_eq!(order::order_json(&order, "s"), expect);
}

#[test]
fn a_held_order_as_json_and_for_people() {
    let order = HeldOrder {
        order_id: OrderId::from_u128(7),
        lsn: Lsn(12),
        sku: SkuId(4),
        quantity: 3,
        repeat: false,
        hold: Some(Hold {
            ends_unix_ms: 1_846_022_399_050,
            extensions: 2,
        }),
    };
    let expect = json!({
        "order_id": "00000000-0000-0000-0000-000000000007", "state": "held", "lsn": 12, "sku": "s", "sku_id": 4,
        "quantity": 3, "repeat": false, "ends_at": "2028-06-30T23:59:59.050Z", "ends_unix_ms": 1_846_022_399_050_u64,
        "extensions": 2,
    });
    let held = |as_json| order::held_facts(order::HELD, &order, "s", as_json);
    assert_eq!(held(true).into_json(), expect);
    assert_eq!(
        held(false).into_line(),
        "order_id=00000000-0000-0000-0000-000000000007 state=held lsn=12 sku=s quantity=3 repeat=false \
         ends_at=2028-06-30T23:59:59.050Z extensions=2"
    );
    let ended = HeldOrder {
        hold: None,
        ..order
    };
    assert_eq!(
        order::held_facts(order::CANCELLED, &ended, "s", true).into_json(),
        json!({
            "order_id": "00000000-0000-0000-0000-000000000007", "state": "cancelled", "lsn": 12, "sku": "s", "sku_id": 4,
            "quantity": 3, "repeat": false,
        })
    );
}

#[test]
fn how_long_a_hold_lasts() {
    use std::time::Duration;

    for (text, ms) in [
        ("500ms", 500),
        ("90s", 90_000),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("4294967295ms", u64::from(u32::MAX)),
    ] {
        assert_eq!(hold::ttl(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for text in [
        "",
        "15",
        "soon",
        "0s",
        "-5m",
        "10us",
        "50 days",
        "4294967296ms",
    ] {
        assert!(hold::ttl(text).is_err(), "{text}");
    }
}

#[test]
fn a_terminal_does_not_obey_strangers() {
    for (text, expect) in [
        ("密 a\nb", "密 a\nb"),
        ("\u{1b}[2J", "\\u{1b}[2J"),
        ("a\rb\tc", "a\\rb\\tc"),
    ] {
        assert_eq!(print::shown(text), expect);
    }
}
