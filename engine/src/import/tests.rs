//! Every format against tables, then against arbitrary bytes.

use std::io::Read;
use std::path::Path;

use croupier_protocol::RejectReason;
use proptest::prelude::*;

use super::*;

/// Gives at most `bytes` at a time, so that lines, quotes and characters are cut anywhere.
struct Drip<'a> {
    rest: &'a [u8],
    bytes: usize,
}

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.rest.len().min(self.bytes).min(buf.len());
        buf[..bytes].copy_from_slice(&self.rest[..bytes]);
        self.rest = &self.rest[bytes..];
        Ok(bytes)
    }
}

/// A row as text: `line secret`, then what else is given; a rejected line is `line !reason`.
fn show(parsed: &Parsed<'_>) -> String {
    match parsed {
        Parsed::Rejected { line, reason } => format!("{line} !{}", reason.name()),
        Parsed::Row(row) => {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("rows are text");
            let mut shown = format!("{} {}", row.line, text(row.secret));
            if !row.label.is_empty() {
                shown += &format!(" ({})", text(row.label));
            }
            for (sign, e4) in [('+', row.premium_e4), ('-', row.cost_e4)] {
                shown += &e4.map(|e4| format!(" {sign}{e4}")).unwrap_or_default();
            }
            if row.expires_at_s != 0 {
                shown += &format!(" @{}", row.expires_at_s);
            }
            shown
        }
    }
}

struct Seen {
    shown: Vec<String>,
    rows: usize,
    rejects: usize,
    blanks: usize,
}

fn read_dripping(input: &[u8], options: &ReadOptions<'_>, bytes: usize) -> Result<Seen, FileError> {
    let mut reader = RowReader::open(Drip { rest: input, bytes }, options)?;
    let mut seen = Seen {
        shown: Vec::new(),
        rows: 0,
        rejects: 0,
        blanks: 0,
    };
    while let Some(parsed) = reader.next_row()? {
        match parsed {
            Parsed::Row(_) => seen.rows += 1,
            Parsed::Rejected { .. } => seen.rejects += 1,
        }
        seen.shown.push(show(&parsed));
    }
    assert!(reader.next_row()?.is_none(), "the end stays the end");
    seen.blanks = reader.blank_lines() as usize;
    Ok(seen)
}

fn options(format: Format, secret_columns: &[String]) -> ReadOptions<'_> {
    ReadOptions {
        name: None,
        format: Some(format),
        secret_columns,
    }
}

#[track_caller]
fn check_with(input: &[u8], options: &ReadOptions<'_>, expect: &[&str]) {
    for bytes in [usize::MAX, 1, 3, 7] {
        let seen = read_dripping(input, options, bytes).expect("a readable file");
        assert_eq!(seen.shown, expect, "{bytes} bytes a read");
    }
}

#[track_caller]
fn check(format: Format, input: &str, expect: &[&str]) {
    check_with(input.as_bytes(), &options(format, &[]), expect);
}

#[track_caller]
fn check_columns(secret: &[&str], input: &str, expect: &[&str]) {
    let secret: Vec<String> = secret.iter().map(|name| name.to_string()).collect();
    check_with(input.as_bytes(), &options(Format::Csv, &secret), expect);
}

#[track_caller]
fn check_error(options: &ReadOptions<'_>, input: &[u8], expect: &str) {
    let error = read_dripping(input, options, 5).err().expect("an error");
    assert_eq!(error.to_string(), expect);
}

#[test]
fn lines() {
    let check = |input, expect| check(Format::Lines, input, expect);
    check("", &[]);
    check("\n\r\n \t\n", &[]);
    check("A\nB", &["1 A", "2 B"]);
    check("\u{feff}A\r\n\r\nB\r\n", &["1 A", "3 B"]);
    check("\u{feff}", &[]);
    check(" A \nB\r\r\n", &["1  A ", "2 B\r"]);
    check("账号:u1----密码:x\n", &["1 账号:u1----密码:x"]);
    check_with(
        b"A\nB\xff\nC\n\xe8\xb4",
        &options(Format::Lines, &[]),
        &["1 A", "2 !invalid_utf8", "3 C", "4 !invalid_utf8"],
    );
}

#[test]
fn long_lines() {
    let of = |bytes: usize| "x".repeat(bytes);
    let fits = of(SECRET_BYTES_MAX);
    let input = format!("{fits}\n{fits}x\nA\n", fits = fits);
    check(
        Format::Lines,
        &input,
        &[&format!("1 {fits}"), "2 !too_long", "3 A"],
    );
    for bytes in [
        LINE_BYTES_MAX - 1,
        LINE_BYTES_MAX,
        LINE_BYTES_MAX + 1,
        5 * LINE_BYTES_MAX,
    ] {
        for end in ["\n", "\r\n"] {
            let input = format!("A{end}{}{end}{end}B", of(bytes));
            let seen = read_dripping(input.as_bytes(), &options(Format::Lines, &[]), 60_000)
                .expect("readable");
            assert_eq!(seen.shown, ["1 A", "2 !too_long", "4 B"], "{bytes} bytes");
            let input = format!("secret,label{end}A,{end}{},y{end}{end}B,{end}", of(bytes));
            let seen = read_dripping(input.as_bytes(), &options(Format::Csv, &[]), 60_000)
                .expect("readable");
            assert_eq!(seen.shown, ["2 A", "3 !too_long", "5 B"], "{bytes} bytes");
        }
    }
}

#[test]
fn bars() {
    let check = |input, expect| check(Format::Bars, input, expect);
    check("A║靓号 1║20.00║1.4\n", &["1 A (靓号 1) +200000 -14000"]);
    check("\u{feff}A║║║\r\n\r\nB║x║0║\r\n", &["1 A", "3 B (x) +0"]);
    check(
        "A║x║1\nA\nA║x║1║2║\n",
        &[
            "1 !wrong_column_count",
            "2 !wrong_column_count",
            "3 !wrong_column_count",
        ],
    );
    check("║x║1║2\n ║x║y║z\n", &["1 !empty_secret", "2 !empty_secret"]);
    check(
        "A║x║one║2\nA║x║1║2,5\n",
        &["1 !bad_amount", "2 !bad_amount"],
    );
    check(
        &format!("A║{}║1║2", "x".repeat(LABEL_BYTES_MAX + 1)),
        &["1 !label_too_long"],
    );
    let damaged = "A║x\u{1}║1║2\nB║\u{1}\n".replace('\u{1}', "?").into_bytes();
    let damaged: Vec<u8> = damaged
        .into_iter()
        .map(|byte| if byte == b'?' { 0xff } else { byte })
        .collect();
    check_with(
        &damaged,
        &options(Format::Bars, &[]),
        &["1 !invalid_utf8", "2 !wrong_column_count"],
    );
}

#[test]
fn csv_columns() {
    let check = |input, expect| check(Format::Csv, input, expect);
    check("secret\nA\nB", &["2 A", "3 B"]);
    check(
        "\u{feff}secret,expires_at\r\nA,2028-01-01\r\n\r\nB,\r\n",
        &["2 A @1830383999", "4 B"],
    );
    check("\n\nlabel, Secret ,n\n\n\nx,A,1\n", &["6 A (x)"]);
    check(
        "expires,secret\n2028-06-30T23:59:59Z,A\n",
        &["2 A @1846022399"],
    );
    check("expires,expires_at,secret\nnonsense,,A\n", &["2 A"]);
    check(
        "secret\n   \n\"  \"\n\"\"\n",
        &["3 !empty_secret", "4 !empty_secret"],
    );
    check_columns(
        &["number", " pin"],
        "number,pin,label\n1,2,x\n",
        &["2 1 2 (x)"],
    );
    check_columns(&["pin", "number"], "number,pin\n1,2\n", &["2 2 1"]);
    check_columns(
        &["number", "pin"],
        "number,pin\n1,\n,2\n, \n",
        &["2 1", "3 2", "4 !empty_secret"],
    );
    check_columns(&["label"], "label,expires\nA,\n", &["2 A"]);
    check_columns(&["expires"], "label,expires\nx,A\n", &["2 A (x)"]);
}

#[test]
fn csv_quotes() {
    let check = |input, expect| check(Format::Csv, input, expect);
    check(
        "secret,label\n\"a,b\",\"6\"\" screen\"\n",
        &["2 a,b (6\" screen)"],
    );
    check(
        "secret,label\n\"a\r\nb\",x\nc,6\" y\n",
        &["2 a\r\nb (x)", "4 c (6\" y)"],
    );
    check("\"secret\",\"label\"\r\n\"\"\"\",\"\"\r\n", &["2 \""]);
    // A stray quote: every line that may have been a card is named, and the lines after it are read.
    check(
        "secret,label\nA,\"x\nB,y\nC,\"z\"\nD,\n",
        &["2 !bad_quoting", "3 !bad_quoting", "4 !bad_quoting", "5 D"],
    );
    check(
        "secret,label\nA,x\n\"B,y\nC,z\n",
        &["2 A (x)", "3 !bad_quoting", "4 !bad_quoting"],
    );
    check(
        "secret,label\n\"A\" ,x\nA, \"x\"\nB,\"x\"y\n",
        &["2 !bad_quoting", "3 !bad_quoting", "4 !bad_quoting"],
    );
    check(
        "secret,label\n\"A\nB\"\nC,\n",
        &["2 !wrong_column_count", "3 !wrong_column_count", "4 C"],
    );
}

#[test]
fn csv_quote_that_never_closes_is_bounded() {
    let mut input = b"secret,label\nA,\nB,\"".to_vec();
    let lines = 300_000;
    input.extend(b"0123456789,x\n".repeat(lines));
    let seen = read_dripping(&input, &options(Format::Csv, &[]), 60_000).expect("readable");
    assert_eq!((seen.rows, seen.rejects), (1, lines));
    assert_eq!(
        seen.shown.last().expect("a last line"),
        &format!("{} !bad_quoting", lines + 2)
    );
}

#[test]
fn csv_precedence() {
    let long = "x".repeat(SECRET_BYTES_MAX + 1);
    let label = "y".repeat(LABEL_BYTES_MAX + 1);
    let input = format!(
        "secret,expires,label\n\"A\"x,\n,bad\n{long},bad\n,bad,{label}\n{long},bad,{label}\nA,bad,{label}\nA,,{label}\nA,,\n"
    );
    let expect = [
        "2 !bad_quoting",
        "3 !wrong_column_count",
        "4 !wrong_column_count",
        "5 !empty_secret",
        "6 !too_long",
        "7 !bad_expiry",
        "8 !label_too_long",
        "9 A",
    ];
    check(Format::Csv, &input, &expect);
    let input = b"secret,expires\nA\xff\n\xff,bad\n,\xff\n";
    let expect = [
        "2 !wrong_column_count",
        "3 !invalid_utf8",
        "4 !invalid_utf8",
    ];
    check_with(input, &options(Format::Csv, &[]), &expect);
}

#[test]
fn csv_headers_that_do_not_serve() {
    let csv = options(Format::Csv, &[]);
    check_error(
        &csv,
        b"",
        "the csv file is empty; its first line must name the columns",
    );
    check_error(
        &csv,
        b"number,pin\n1,2\n",
        "no column is called \"secret\"; the columns are: number, pin. Choose with --secret COL[,COL]",
    );
    check_error(
        &csv,
        b"secret,Secret\n",
        "the header row names the column \"Secret\" twice; rename one of them",
    );
    check_error(
        &csv,
        b"\n\nsecret\xff\n",
        "line 3: the header row is not valid UTF-8; its columns cannot be told apart",
    );
    let wanted = ["code".to_owned()];
    check_error(
        &options(Format::Csv, &wanted),
        b"number,pin\n1,2\n",
        "there is no column \"code\"; the columns are: number, pin. Choose with --secret COL[,COL]",
    );
    assert!(matches!(
        read_dripping(b"\"secret\n", &csv, 1).err(),
        Some(FileError::BadHeader { line: 1, .. })
    ));
    let wide = vec!["c"; csv::COLUMNS_MAX + 1].join(",");
    assert!(matches!(
        read_dripping(wide.as_bytes(), &csv, 100).err(),
        Some(FileError::TooManyColumns { .. })
    ));
}

#[test]
fn more_columns_than_any_header() {
    let wide = "x,".repeat(3 * csv::COLUMNS_MAX);
    let input = format!("secret,label\n{wide}\nA,\n");
    check(Format::Csv, &input, &["2 !wrong_column_count", "3 A"]);
}

#[test]
fn formats_are_guessed() {
    let check = |name: &str, secret: &[&str], input: &str, expect: Format| {
        let secret: Vec<String> = secret.iter().map(|name| name.to_string()).collect();
        let options = ReadOptions {
            name: Some(Path::new(name)),
            format: None,
            secret_columns: &secret,
        };
        let reader = RowReader::open(
            Drip {
                rest: input.as_bytes(),
                bytes: 2,
            },
            &options,
        )
        .expect("readable");
        assert_eq!(reader.format(), expect, "{name} {input:?}");
    };
    check("cards.csv", &[], "secret\n", Format::Csv);
    check("CARDS.CSV", &[], "secret,║\n", Format::Csv);
    check("cards.txt", &[], "A\nB║\n", Format::Lines);
    check("cards.txt", &[], "\u{feff}\n A║x║║\n", Format::Bars);
    check("-", &["secret"], "secret\n", Format::Csv);
    check("-", &[], "", Format::Lines);
    let secret = ["pin".to_owned()];
    let explicit = options(Format::Lines, &secret);
    check_error(
        &explicit,
        b"A\n",
        "secret columns are for csv files; this one is read as lines. Leave --secret out or give --format csv",
    );
}

#[test]
fn files_that_are_no_text() {
    let any = ReadOptions::default();
    assert!(matches!(
        read_dripping(b"\xff\xfeA\0", &any, 1).err(),
        Some(FileError::Utf16)
    ));
    assert!(matches!(
        read_dripping(b"PK\x03\x04....", &any, 1).err(),
        Some(FileError::Workbook)
    ));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the cable"))
        }
    }
    let error = RowReader::open(Broken, &any).err().expect("no reader");
    assert_eq!(error.to_string(), "reading failed: the cable");
}

/// Bytes that look like files: the marks that parsers turn on, and anything else.
fn file_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "\n", "\r\n", "\r", ",", "\"", "\"\"", "║", "A", " ", "2028-01-01", "1.5", "x,y", "\u{feff}", "密",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn physical_lines(input: &[u8]) -> usize {
    input.split_inclusive(|byte| *byte == b'\n').count()
}

#[test]
fn halves_of_a_character_on_both_sides_of_a_comma_are_no_text() {
    let input = b"secret,label\nAB\xc2,\x80C\n\xc2,\x80\nGOOD,label\n";
    let seen = read_dripping(input, &options(Format::Csv, &[]), usize::MAX).expect("readable");
    assert_eq!((seen.rows, seen.rejects), (1, 2), "{:?}", seen.shown);
}

proptest! {
    #[test]
    fn every_line_is_a_row_a_reject_or_blank(input in file_bytes(), bytes in 1_usize..9) {
        for format in [Format::Lines, Format::Bars] {
            let options = options(format, &[]);
            // Nothing but a byte order mark is no line.
            let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&input);
            match (read_dripping(&input, &options, bytes), read_dripping(&input, &options, usize::MAX)) {
                (Ok(seen), Ok(whole)) => {
                    prop_assert_eq!(&seen.shown, &whole.shown);
                    prop_assert_eq!(seen.rows + seen.rejects + seen.blanks, physical_lines(text));
                }
                (Err(_), Err(_)) => {}
                _ => prop_assert!(false, "the outcome depends on how the bytes arrive"),
            }
        }
    }

    #[test]
    fn csv_does_not_depend_on_how_bytes_arrive(input in file_bytes(), bytes in 1_usize..9) {
        let input = [b"secret,label\n".as_slice(), &input].concat();
        let options = options(Format::Csv, &[]);
        let whole = read_dripping(&input, &options, usize::MAX).expect("readable");
        let seen = read_dripping(&input, &options, bytes).expect("readable");
        prop_assert_eq!(&seen.shown, &whole.shown);
        prop_assert!(seen.rows + seen.rejects <= physical_lines(&input) + input.iter().filter(|b| **b == b'\r').count());
    }

    #[test]
    fn csv_without_line_breaks_in_fields_counts_every_line(
        lines in prop::collection::vec("[ -~é]{0,12}", 0..40),
        end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let body: String = lines.iter().map(|line| line.replace('"', "'") + end).collect();
        let input = format!("secret,label{end}{body}");
        let seen = read_dripping(input.as_bytes(), &options(Format::Csv, &[]), 11).expect("readable");
        prop_assert_eq!(1 + seen.rows + seen.rejects + seen.blanks, physical_lines(input.as_bytes()));
    }

    #[test]
    fn what_a_csv_writer_writes_is_read_back(
        cards in prop::collection::vec(("[ -~\n\r密]{0,9}x", "[ -~\n密]{0,9}"), 0..40),
    ) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["secret", "label"]).expect("memory");
        for (secret, label) in &cards {
            writer.write_record([secret, label]).expect("memory");
        }
        let input = writer.into_inner().expect("memory");
        let mut reader = RowReader::open(Drip { rest: &input, bytes: 5 }, &options(Format::Csv, &[])).expect("readable");
        for (secret, label) in &cards {
            let Some(Parsed::Row(row)) = reader.next_row().expect("readable") else { panic!("a row was lost") };
            prop_assert_eq!((row.secret, row.label), (secret.as_bytes(), label.as_bytes()));
        }
        prop_assert!(reader.next_row().expect("readable").is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        for format in [Format::Lines, Format::Csv, Format::Bars] {
            let _ = read_dripping(&input, &options(format, &[]), 13);
        }
        let input = [b"secret,expires\n".as_slice(), &input].concat();
        let _ = read_dripping(&input, &options(Format::Csv, &[]), 13);
    }
}

/// Lines a second on one core: `cargo test --release -p croupier-engine import_speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, for release builds"]
fn import_speed() {
    let lines = 4_000_000;
    for (format, header, line) in [
        (Format::Lines, "", "MTYFX-EAMLZ-YLLZ3\r\n"),
        (
            Format::Bars,
            "",
            "PN6TU-E7ZMF-JDUMV║靓号 107185║20.00║1.40\n",
        ),
        (
            Format::Csv,
            "secret,expires_at\n",
            "GOOD-J9AGC-CE46Y-HMRL6,2028-01-01\n",
        ),
        (
            Format::Csv,
            "secret,expires_at,label\n",
            "GOOD-J9AGC-CE46Y-HMRL6,2028-01-01,\"Spring, 2026\"\n",
        ),
    ] {
        let input = [header.as_bytes(), &line.as_bytes().repeat(lines)].concat();
        let begin = std::time::Instant::now();
        let mut reader =
            RowReader::open(input.as_slice(), &options(format, &[])).expect("readable");
        let (mut rows, mut bytes) = (0, 0);
        while let Some(parsed) = reader.next_row().expect("readable") {
            let Parsed::Row(row) = parsed else {
                panic!("a row was rejected")
            };
            rows += 1;
            bytes += row.secret.len();
        }
        assert_eq!(rows, lines);
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{format}: {:.1} M lines/s ({bytes} bytes of secrets)",
            lines as f64 / seconds / 1e6
        );
    }
}

/// The reasons a parser gives are the ones that the wire page says a parser finds, and the secret's own.
#[test]
fn reasons_left_to_the_server() {
    let ours = [
        RejectReason::EmptySecret,
        RejectReason::TooLong,
        RejectReason::InvalidUtf8,
        RejectReason::WrongColumnCount,
        RejectReason::BadExpiry,
        RejectReason::BadAmount,
        RejectReason::LabelTooLong,
        RejectReason::BadQuoting,
    ];
    let servers = [
        RejectReason::DuplicateInFile,
        RejectReason::DuplicateInStock,
        RejectReason::Expired,
    ];
    assert_eq!(ours.len() + servers.len(), RejectReason::ALL.len());
}
