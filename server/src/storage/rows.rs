//! Sets of rows that travel to the database as one JSON value.
//!
//! A statement with a placeholder for every cell has another text for every number of rows, so it is parsed anew each
//! time, and binding thousands of values costs more than storing them. As one JSON array a set of any size is one
//! bound value in one statement that both databases prepare once.

use std::fmt::Write;

use chrono::SecondsFormat;
use sea_orm::{ConnectionTrait, DbErr, ExecResult, QueryResult, Statement};
use uuid::Uuid;

use super::dialect::Dialect;
use crate::model::{Instant, Json};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A UUID.
    Uuid,
    /// Text.
    Text,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    BigInt,
    /// True or false.
    Bool,
    /// An instant.
    Time,
    /// JSON, kept as it is.
    Json,
}

/// The columns of a set, in the order of its cells.
pub type Columns = &'static [(&'static str, Kind)];

/// Rows on their way to the database.
pub struct Rows {
    columns: Columns,
    json: String,
    cell: usize,
}

impl Rows {
    /// An empty set.
    pub fn new(columns: Columns) -> Rows {
        Rows { columns, json: String::from("["), cell: 0 }
    }

    /// Begins the next cell and gives the text it is written to.
    fn next(&mut self) -> &mut String {
        match (self.cell % self.columns.len(), self.cell) {
            (0, 0) => self.json.push('['),
            (0, _) => self.json.push_str(",["),
            _ => self.json.push(','),
        }
        self.cell += 1;
        &mut self.json
    }

    fn end(&mut self) -> &mut Rows {
        if self.cell.is_multiple_of(self.columns.len()) {
            self.json.push(']');
        }
        self
    }

    /// Adds a UUID.
    pub fn uuid(&mut self, id: Uuid) -> &mut Rows {
        let mut buffer = [0; 32];
        let hex = id.simple().encode_lower(&mut buffer);
        let json = self.next();
        json.push('"');
        json.push_str(hex);
        json.push('"');
        self.end()
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) -> &mut Rows {
        quote(self.next(), text);
        self.end()
    }

    /// Adds text that may be absent.
    pub fn text_or_null(&mut self, text: Option<&str>) -> &mut Rows {
        match text {
            Some(text) => quote(self.next(), text),
            None => self.next().push_str("null"),
        }
        self.end()
    }

    /// Adds a number or a truth.
    pub fn plain(&mut self, value: impl std::fmt::Display) -> &mut Rows {
        // Writing to a string does not fail.
        let _ = write!(self.next(), "{value}");
        self.end()
    }

    /// Adds an instant, in the very format the ORM writes.
    pub fn time(&mut self, at: Instant) -> &mut Rows {
        let _ = write!(self.next(), "\"{}\"", at.to_rfc3339_opts(SecondsFormat::AutoSi, false));
        self.end()
    }

    /// Adds an instant that may be absent.
    pub fn time_or_null(&mut self, at: Option<Instant>) -> &mut Rows {
        match at {
            Some(at) => self.time(at),
            None => {
                self.next().push_str("null");
                self.end()
            }
        }
    }

    /// Adds JSON that may be absent.
    pub fn json_or_null(&mut self, json: Option<&Json>) -> &mut Rows {
        match json {
            Some(json) => {
                let _ = write!(self.next(), "{json}");
            }
            None => self.next().push_str("null"),
        }
        self.end()
    }

    /// Runs `INSERT INTO table` for the rows, with what follows it.
    pub async fn insert<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        table: &str,
        rest: &str,
    ) -> Result<(), DbErr> {
        if self.cell == 0 {
            return Ok(());
        }
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        // Without WHERE, SQLite would read ON CONFLICT as the condition of a join.
        let sql = format!("INSERT INTO {table} ({}) {} WHERE true {rest}", names.join(", "), self.select(dialect));
        let done: ExecResult = connection.execute_raw(self.statement(dialect, sql)).await?;
        debug_assert!(done.rows_affected() > 0);
        Ok(())
    }

    /// Runs `query` with the rows as the table `name`.
    pub async fn query<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        name: &str,
        query: &str,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let sql = format!("WITH {name} AS MATERIALIZED ({}) {query}", self.select(dialect));
        connection.query_all_raw(self.statement(dialect, sql)).await
    }

    fn statement(mut self, dialect: Dialect, sql: String) -> Statement {
        self.json.push(']');
        dialect.statement(sql, [self.json.into()])
    }

    /// The rows as a SELECT over the one bound value.
    fn select(&self, dialect: Dialect) -> String {
        let cell = |(at, (name, kind)): (usize, &(&str, Kind))| format!("{} AS {name}", dialect.cell(at, *kind));
        let cells: Vec<String> = self.columns.iter().enumerate().map(cell).collect();
        format!("SELECT {} FROM {}", cells.join(", "), dialect.cells())
    }
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if (control as u32) < 0x20 => {
                let _ = write!(json, "\\u{:04x}", control as u32);
            }
            letter => json.push(letter),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_one_json_array_of_arrays() {
        let mut rows = Rows::new(&[("id", Kind::Uuid), ("name", Kind::Text), ("n", Kind::Int), ("m", Kind::Json)]);
        rows.uuid(Uuid::nil()).text("a \"quoted\"\n\\ näme\u{1}").plain(-5).json_or_null(None);
        rows.uuid(Uuid::nil()).text("' OR 1=1 --").plain(7).json_or_null(Some(&serde_json::json!({ "k": [1, 0.1] })));
        let parsed: serde_json::Value = serde_json::from_str(&format!("{}]", rows.json)).unwrap();
        assert_eq!(parsed[0][1], "a \"quoted\"\n\\ näme\u{1}");
        assert_eq!(parsed[1], serde_json::json!(["0".repeat(32), "' OR 1=1 --", 7, { "k": [1, 0.1] }]));
    }
}
