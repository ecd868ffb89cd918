//! The numbers in `docs/wire-format.md` are the numbers of the enums: the page is the specification.

use croupier_protocol::*;

const PAGE: &str = include_str!("../../docs/wire-format.md");

/// The text between a heading and the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("the page has `{heading}`"));
    rest.split("\n#").next().unwrap()
}

/// The cells of each row of the tables in a section.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let lines = section(heading)
        .lines()
        .filter(|line| line.starts_with('|'));
    lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// `| number | name | …` rows.
fn numbered_rows(heading: &str) -> Vec<(u16, &'static str)> {
    rows(heading)
        .into_iter()
        .filter_map(|cells| Some((cells[0].parse().ok()?, cells[1])))
        .collect()
}

#[test]
fn refusals() {
    let page = numbered_rows("### Refusals (permanent numbers)");
    let code: Vec<_> = Refusal::ALL
        .iter()
        .map(|refusal| (refusal.as_u16(), refusal.name()))
        .collect();
    assert_eq!(page, code);
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::try_from(refusal.as_u16()), Ok(refusal));
    }
    assert_eq!(
        Refusal::try_from(0),
        Err(UnknownNumber {
            what: "refusal",
            found: 0
        })
    );
}

#[test]
fn faults() {
    let page = numbered_rows("### Faults (permanent numbers; the connection closes)");
    let code: Vec<_> = FaultCode::ALL
        .iter()
        .map(|fault| (fault.as_u16(), fault.name()))
        .collect();
    assert_eq!(page, code);
    for fault in FaultCode::ALL {
        assert_eq!(FaultCode::try_from(fault.as_u16()), Ok(fault));
    }
}

#[test]
fn reject_reasons() {
    let list = section("### Reasons of rejected lines (permanent numbers)").trim_start();
    let (list, _) = list.split_once("\n\n").unwrap();
    let page: Vec<(u16, &str)> = list
        .split('·')
        .map(|entry| entry.trim().split_once(' ').expect("number, then name"))
        .map(|(number, name)| (number.parse().unwrap(), name))
        .collect();
    let code: Vec<_> = RejectReason::ALL
        .iter()
        .map(|reason| (reason.as_u16(), reason.name()))
        .collect();
    assert_eq!(page, code);
    for reason in RejectReason::ALL {
        assert_eq!(RejectReason::try_from(reason.as_u16()), Ok(reason));
    }
}

#[test]
fn kinds() {
    let mut page = Vec::new();
    for cells in rows("## Kinds") {
        let [request, request_number, _, reply, reply_number] = cells[..] else {
            panic!("five cells: {cells:?}")
        };
        if let Ok(number) = request_number.parse::<u8>() {
            page.push((number, request.to_owned()));
            let kind = Kind::try_from(number).unwrap();
            assert!(kind.is_request());
            assert_eq!(kind.reply_of() as u8, number | 0x80, "{request}");
        }
        if let Ok(number) = reply_number.parse::<u8>() {
            let name: String = reply
                .chars()
                .take_while(char::is_ascii_alphabetic)
                .collect();
            page.push((number, name));
            let kind = Kind::try_from(number).unwrap();
            assert!(!kind.is_request());
            assert_eq!(kind.reply_of(), kind);
        }
    }
    page.sort();
    let code: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| (*kind as u8, format!("{kind:?}")))
        .collect();
    assert_eq!(page, code);
}

#[test]
fn kinds_of_facts() {
    let page = include_str!("../../docs/feed.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        Some((*cells.get(1)?, cells.get(2)?.parse().ok()?))
    });
    let code = FeedKind::ALL.map(|kind| (kind.name(), kind.as_u16()));
    assert_eq!(rows.collect::<Vec<(&str, u16)>>(), code);
}

#[test]
fn sizes_of_fixed_bodies() {
    let sizes = [
        ("Hello ", Hello::BYTES),
        ("HelloReply ", HelloReply::BYTES),
        ("StepItem ", StepItem::BYTES),
        ("OrderItem ", OrderItemHead::BYTES),
        ("Hold ", Hold::BYTES),
        ("ImportRowsReply ", ImportRowsReply::BYTES),
    ];
    for (name, bytes) in sizes {
        let (_, layout) = PAGE
            .split_once(&format!("\n{name}"))
            .unwrap_or_else(|| panic!("the page lays out {name}"));
        let (_, size) = layout.split_once("= ").unwrap();
        assert!(size.starts_with(&format!("{bytes} bytes")), "{name}");
    }
}
