//! How results look: tables for people, one JSON value for programs, both on stdout.

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Row, Table};
use serde::Serialize;
use serde_json::Value;

use super::error::CliError;

/// Prints text and a line end.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(stdout_error)
}

/// Prints a value as JSON, on lines of its own.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut stdout, value)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(stdout))
        .and_then(|()| stdout.flush())
        .map_err(stdout_error)
}

pub(super) fn stdout_error(source: io::Error) -> CliError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => CliError::StdoutClosed,
        _ => CliError::System {
            what: "cannot write to stdout",
            source,
        },
    }
}

/// A table with a header; cells of `right` columns are numbers.
pub(super) struct Grid {
    table: Table,
    right: Vec<bool>,
}

impl Grid {
    /// Column names; one that begins with `>` is aligned to the right.
    pub(super) fn new(columns: &[&str]) -> Self {
        let right: Vec<bool> = columns.iter().map(|name| name.starts_with('>')).collect();
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let mut grid = Grid { table, right };
        let header = grid.cells(
            columns
                .iter()
                .map(|name| name.trim_start_matches('>').to_owned()),
        );
        grid.table.set_header(header);
        grid
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row = self.cells(cells);
        self.table.add_row(row);
    }

    fn cells(&self, cells: impl IntoIterator<Item = String>) -> Row {
        let cells = cells.into_iter().zip(&self.right).map(|(text, right)| {
            let alignment = if *right {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            };
            Cell::new_owned(shown(&text)).set_alignment(alignment)
        });
        Row::from(cells.collect::<Vec<_>>())
    }

    pub(super) fn print(&self) -> Result<(), CliError> {
        line(&self.table.to_string())
    }
}

/// A long list written as it is read: one line a row, or one JSON array with one element a line.
pub(super) struct Rows {
    out: io::BufWriter<io::StdoutLock<'static>>,
    as_json: bool,
    empty: bool,
}

impl Rows {
    pub(super) fn new(as_json: bool) -> Self {
        Rows {
            out: io::BufWriter::new(io::stdout().lock()),
            as_json,
            empty: true,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.as_json
    }

    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    pub(super) fn put_text(&mut self, text: &str) -> Result<(), CliError> {
        self.empty = false;
        writeln!(self.out, "{}", shown(text)).map_err(stdout_error)
    }

    pub(super) fn put_json(&mut self, value: &Value) -> Result<(), CliError> {
        let before = if std::mem::take(&mut self.empty) {
            "[\n"
        } else {
            ",\n"
        };
        write!(self.out, "{before}{value}").map_err(stdout_error)
    }

    pub(super) fn end(mut self) -> Result<(), CliError> {
        let end = match (self.as_json, self.empty) {
            (false, _) => "",
            (true, true) => "[]\n",
            (true, false) => "\n]\n",
        };
        self.out
            .write_all(end.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(stdout_error)
    }
}

/// Text of strangers on a terminal: control characters other than line breaks are shown, not obeyed.
pub(super) fn shown(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n';
    if !text.contains(obeyed) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if obeyed(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// Named facts about one thing: a table of two columns, or a JSON object with these fields.
#[derive(Debug, Default)]
pub(super) struct Facts(Vec<(&'static str, Value)>);

impl Facts {
    pub(super) fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((field, value.into()));
        self
    }

    /// A field that there is only if there is something to say.
    pub(super) fn with_some(self, field: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(field, value),
            None => self,
        }
    }

    /// `field=value` one after the other, for lists with one thing a line.
    pub(super) fn into_line(self) -> String {
        let facts = self.0.into_iter().map(|(field, value)| match value {
            Value::String(text) if !text.contains([' ', '"', '\n']) => format!("{field}={text}"),
            other => format!("{field}={other}"),
        });
        facts.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn into_json(self) -> Value {
        Value::Object(
            self.0
                .into_iter()
                .map(|(field, value)| (field.to_owned(), value))
                .collect(),
        )
    }

    pub(super) fn print(self, as_json: bool) -> Result<(), CliError> {
        if as_json {
            return json(&self.into_json());
        }
        let mut grid = Grid::new(&["what", "value"]);
        for (field, value) in self.0 {
            let value = match value {
                Value::String(text) => text,
                Value::Null => "–".to_owned(),
                other => other.to_string(),
            };
            grid.row([field.replace('_', " "), value]);
        }
        grid.print()
    }
}
