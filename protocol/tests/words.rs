//! The words print, parse and refuse as DESIGN says people see them.

use croupier_protocol::*;

#[test]
fn order_ids_are_uuid_text() {
    let text = "01890a5d-ac96-774b-bcce-b302099a8057";
    let id: OrderId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("{id:?}"), text);
    assert_eq!(id.to_bytes()[..4], [0x01, 0x89, 0x0a, 0x5d]);
    assert_eq!(OrderId::from_bytes(id.to_bytes()), id);
    assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    assert!(OrderId::default().is_zero() && !id.is_zero());
    let error = "order-17".parse::<OrderId>().unwrap_err().to_string();
    assert!(error.contains("write it as a UUID"), "{error}");
}

#[test]
fn new_order_ids_sort_by_time() {
    let ids: Vec<_> = (0..1000).map(|_| OrderId::new_v7()).collect();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(ids[0].as_u128() >> 76 & 0xf, 7, "the version digit");
}

#[test]
fn priorities_have_names_and_numbers() {
    for (index, priority) in Priority::ALL.into_iter().enumerate() {
        assert_eq!(priority.as_index(), index);
        assert_eq!(Priority::try_from(index as u8), Ok(priority));
        assert_eq!(priority.to_string().parse(), Ok(priority));
    }
    assert_eq!(Priority::default(), Priority::Standard);
    assert_eq!(
        Priority::try_from(4).unwrap_err().to_string(),
        "`4` is no priority: use vip (0), standard (1), bulk (2) or background (3)"
    );
    assert!("VIP".parse::<Priority>().is_err());
}

#[test]
fn names() {
    let table = [
        ("gift-50", Ok(())),
        ("王者 点券", Ok(())),
        (&"x".repeat(64), Ok(())),
        ("", Err(NameError::Empty)),
        (&"x".repeat(65), Err(NameError::TooLong { bytes: 65 })),
        ("a\tb", Err(NameError::ControlCharacter { offset: 1 })),
        ("a\u{85}b", Err(NameError::ControlCharacter { offset: 1 })),
        (" a", Err(NameError::EdgeWhitespace)),
        ("a\u{3000}", Err(NameError::EdgeWhitespace)),
    ];
    for (text, expect) in table {
        assert_eq!(
            Name::new(text).map(|name| assert_eq!(name.as_str(), text)),
            expect,
            "{text:?}"
        );
    }
}

#[test]
fn scalars_print_plainly() {
    assert_eq!(SkuId(7).to_string(), "7");
    assert_eq!(Lsn(42).to_string(), "42");
    assert_eq!(
        CardRef {
            slab: 3,
            slot: 1000,
            generation: 1
        }
        .to_string(),
        "3:1000.1"
    );
}

#[test]
fn only_passing_refusals_are_worth_another_try() {
    let retryable: Vec<_> = Refusal::ALL
        .into_iter()
        .filter(|refusal| refusal.retryable())
        .collect();
    assert_eq!(
        retryable,
        [
            Refusal::Busy,
            Refusal::ShuttingDown,
            Refusal::TooManyImports
        ]
    );
}

#[test]
fn versions_are_negotiated() {
    let hello = |version_min, version_max| Hello {
        version_min,
        version_max,
        features: 0,
    };
    assert_eq!(hello(1, 1).common_version(), Some(1));
    assert_eq!(hello(0, 9).common_version(), Some(1));
    assert_eq!(hello(2, 9).common_version(), None);
    assert_eq!(hello(1, 0).common_version(), None);
}
