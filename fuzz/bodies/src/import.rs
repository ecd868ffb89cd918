//! Files of cards, as people send them.

use std::io::Read;

use croupier_engine::import::{FileError, Format, Parsed, ReadOptions, RowReader};

/// The first byte chooses the format, the second how many bytes a read gives; the rest is the file.
pub fn import(data: &[u8]) {
    let [choice, step, file @ ..] = data else {
        return;
    };
    let columns = ["secret".to_owned(), "pin".to_owned()];
    let secret_columns: &[String] = match choice >> 4 {
        1 => &columns[..1],
        2 => &columns,
        _ => &[],
    };
    let format = match choice % 4 {
        0 => None,
        1 => Some(Format::Lines),
        2 => Some(Format::Bars),
        _ => Some(Format::Csv),
    };
    let options = ReadOptions {
        name: None,
        format,
        secret_columns,
    };
    let whole = rows(file, &options);
    let in_parts = rows(
        Slow {
            bytes: file,
            step: usize::from(*step) + 1,
        },
        &options,
    );
    assert_eq!(whole, in_parts, "a file means the same however it is read");
}

/// Every row and rejected line, and how reading ended.
fn rows(source: impl Read, options: &ReadOptions<'_>) -> (Vec<String>, Result<u64, String>) {
    let mut found = Vec::new();
    let read = || -> Result<u64, FileError> {
        let mut reader = RowReader::open(source, options)?;
        let reader_is_csv = reader.format() == Format::Csv;
        let mut line_before = 0;
        while let Some(parsed) = reader.next_row()? {
            let line = match &parsed {
                Parsed::Rejected { line, .. } => *line,
                Parsed::Row(row) => {
                    assert!(
                        !row.secret.trim_ascii().is_empty()
                            && std::str::from_utf8(row.secret).is_ok()
                    );
                    row.line
                }
            };
            // Records of a csv file that a bare carriage return divides stand on one line.
            let same_line = reader_is_csv && line == line_before;
            assert!(
                line > line_before || same_line,
                "line {line} comes after line {line_before}"
            );
            line_before = line;
            found.push(match parsed {
                Parsed::Rejected { line, reason } => format!("{line} {reason:?}"),
                Parsed::Row(row) => format!(
                    "{line} {} {:?} {:?} {:?} {:?}",
                    row.expires_at_s, row.premium_e4, row.cost_e4, row.label, row.secret
                ),
            });
        }
        Ok(reader.blank_lines())
    };
    let end = read().map_err(|error| error.to_string());
    (found, end)
}

struct Slow<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.step.min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}
