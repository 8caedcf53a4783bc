//! Sets of rows that travel to the database in as few statements as it takes.
//!
//! A statement with a placeholder for every cell has another text for every number of rows, and parsing one costs
//! more than storing its rows. So a set has one of few texts, which the database prepares once and keeps:
//!
//! - PostgreSQL is sent an array for each column, so one text does for any number of rows.
//! - SQLite has no arrays. It is sent `VALUES` with room for 2ⁿ rows and told how many of them there are; the
//!   placeholders of the others are never looked at. Each statement is a trip to the driver's thread and back, which
//!   on a busy machine costs as much as dozens of rows.

use std::fmt::Write as _;

use sea_orm::sea_query::ArrayType;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use uuid::Uuid;

use super::dialect::Dialect;
use crate::model::{Instant, JsonText};

/// Rows of the largest `VALUES`. Times 16 columns it is far below what SQLite binds (32,766).
const MOST_VALUES: usize = 256;

/// Rows on their way to the database.
#[derive(Clone)]
pub struct Rows {
    columns: &'static [&'static str],
    cells: Vec<Value>,
    /// Which columns hold JSON, a bit for each: it travels as text, and PostgreSQL is told what the text is.
    json: u64,
}

impl Rows {
    /// An empty set of rows with these columns; cells are added in their order.
    pub fn new(columns: &'static [&'static str], expected: usize) -> Rows {
        Rows { columns, cells: Vec::with_capacity(columns.len() * expected), json: 0 }
    }

    fn add(&mut self, cell: impl Into<Value>) -> &mut Rows {
        self.cells.push(cell.into());
        self
    }

    /// Adds a UUID.
    pub fn uuid(&mut self, id: Uuid) -> &mut Rows {
        self.add(id)
    }

    /// Adds a UUID that may be absent.
    pub fn uuid_or_null(&mut self, id: Option<Uuid>) -> &mut Rows {
        self.add(id)
    }

    /// Adds text.
    pub fn text(&mut self, text: impl Into<String>) -> &mut Rows {
        self.add(text.into())
    }

    /// Adds text that may be absent.
    pub fn text_or_null(&mut self, text: Option<String>) -> &mut Rows {
        self.add(text)
    }

    /// Adds a whole number of 32 bits.
    pub fn int(&mut self, value: i32) -> &mut Rows {
        self.add(value)
    }

    /// Adds a whole number of 32 bits that may be absent.
    pub fn int_or_null(&mut self, value: Option<i32>) -> &mut Rows {
        self.add(value)
    }

    /// Adds a whole number of 64 bits.
    pub fn bigint(&mut self, value: i64) -> &mut Rows {
        self.add(value)
    }

    /// Adds a truth.
    pub fn bool(&mut self, value: bool) -> &mut Rows {
        self.add(value)
    }

    /// Adds an instant that may be absent.
    pub fn time(&mut self, at: impl Into<Option<Instant>>) -> &mut Rows {
        self.add(at.into())
    }

    /// Adds JSON that may be absent.
    pub fn json(&mut self, json: Option<impl Into<JsonText>>) -> &mut Rows {
        self.json |= 1 << (self.cells.len() % self.columns.len());
        self.add(json.map(|json| json.into().as_str().to_owned()))
    }

    /// Runs `INSERT INTO table` for the rows, with what follows it.
    pub async fn insert<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        table: &str,
        rest: &str,
    ) -> Result<(), DbErr> {
        let columns = self.columns.join(", ");
        for Piece { select, values } in dialect.pieces(self.columns.len(), self.cells, self.json) {
            let sql = format!("INSERT INTO {table} ({columns}) {select} {rest}");
            connection.execute_raw(dialect.statement(sql, values)).await?;
        }
        Ok(())
    }

    /// Runs `statement`, which asks for nothing, with the rows as the table `name`, piece by piece; says how many rows it
    /// wrote. Where that is all that has to be known it is cheaper than [`Rows::query`]: each row that SQLite's driver hands
    /// over may wake a thread.
    pub async fn execute<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        name: &str,
        statement: &str,
    ) -> Result<u64, DbErr> {
        let columns = self.columns.join(", ");
        let mut written = 0;
        for Piece { select, values } in dialect.pieces(self.columns.len(), self.cells, self.json) {
            let sql = format!("WITH {name} ({columns}) AS ({select}) {statement}");
            written += connection.execute_raw(dialect.statement(sql, values)).await?.rows_affected();
        }
        Ok(written)
    }

    /// Runs `query` with the rows as the table `name`, piece by piece.
    pub async fn query<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        name: &str,
        query: &str,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let columns = self.columns.join(", ");
        let mut found = Vec::new();
        for Piece { select, values } in dialect.pieces(self.columns.len(), self.cells, self.json) {
            let sql = format!("WITH {name} ({columns}) AS ({select}) {query}");
            found.extend(connection.query_all_raw(dialect.statement(sql, values)).await?);
        }
        Ok(found)
    }
}

/// Rows that travel in one statement.
pub(super) struct Piece {
    /// A `SELECT` that has them.
    select: String,
    /// What is bound to it.
    values: Vec<Value>,
}

/// The rows as one piece of an array per column.
///
/// The driver's arrays have no nulls. A column with one carries any value in its place and has a second array that
/// says which values are there.
pub(super) fn arrays(width: usize, cells: Vec<Value>, json: u64) -> Vec<Piece> {
    debug_assert_eq!(cells.len() % width, 0, "a row is not complete");
    let count = cells.len() / width;
    if count == 0 {
        return Vec::new();
    }
    let mut columns: Vec<Vec<Value>> = (0..width).map(|_| Vec::with_capacity(count)).collect();
    for (place, cell) in cells.into_iter().enumerate() {
        columns[place % width].push(cell);
    }
    let (mut select, mut values, mut present) = ("SELECT ".to_owned(), Vec::with_capacity(width), Vec::new());
    for (column, mut cells) in columns.into_iter().enumerate() {
        let separator = if column == 0 { "" } else { ", " };
        let cast = if json & (1 << column) != 0 { "::jsonb" } else { "" };
        if cells.iter().all(is_present) {
            // Writing to a string cannot fail.
            let _ = write!(select, "{separator}c{column}{cast}");
        } else {
            let _ = write!(select, "{separator}CASE WHEN p{column} THEN c{column}{cast} END");
            let presence = cells.iter().map(|cell| Value::from(is_present(cell))).collect();
            present.push((column, Value::Array(ArrayType::Bool, Some(Box::new(presence)))));
            cells.iter_mut().filter(|cell| !is_present(cell)).for_each(|cell| *cell = cell.dummy_value());
        }
        values.push(Value::Array(cells[0].array_type(), Some(Box::new(cells))));
    }
    select.push_str(" FROM unnest(");
    for place in 1..=width + present.len() {
        let _ = write!(select, "{}${place}", if place == 1 { "" } else { ", " });
    }
    select.push_str(") AS row (");
    for column in 0..width {
        let _ = write!(select, "{}c{column}", if column == 0 { "" } else { ", " });
    }
    for (column, presence) in present {
        let _ = write!(select, ", p{column}");
        values.push(presence);
    }
    select.push(')');
    vec![Piece { select, values }]
}

fn is_present(cell: &Value) -> bool {
    *cell != cell.as_null()
}

/// The rows as pieces of `VALUES`, each with room for 2ⁿ rows and the number of those it has.
///
/// SQLite takes `$1` for a name and looks each up among all others, which makes a large statement sixteen times slower
/// than `?`. What is not bound is null, and the limit, which comes first, keeps it out.
pub(super) fn values(width: usize, cells: Vec<Value>) -> impl Iterator<Item = Piece> {
    debug_assert_eq!(cells.len() % width, 0, "a row is not complete");
    let mut left = cells.len() / width;
    let mut cells = cells.into_iter();
    std::iter::from_fn(move || {
        let count = left.min(MOST_VALUES);
        if count == 0 {
            return None;
        }
        left -= count;
        let mut select = "WITH count (n) AS (SELECT ?) SELECT * FROM (VALUES ".to_owned();
        let row = format!("({}?)", "?, ".repeat(width - 1));
        select.push_str(&row);
        (1..count.next_power_of_two()).for_each(|_| {
            select.push_str(", ");
            select.push_str(&row);
        });
        // Without a condition, SQLite would read the ON of ON CONFLICT as that of a join.
        select.push_str(") WHERE true LIMIT (SELECT n FROM count)");
        let mut values = Vec::with_capacity(1 + count * width);
        values.push(Value::from(count as i64));
        values.extend(cells.by_ref().take(count * width));
        Some(Piece { select, values })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: i32) -> Vec<Value> {
        let mut rows = Rows::new(&["a", "b"], 0);
        for at in 0..count {
            rows.int(at).text_or_null((at % 2 == 0).then(|| at.to_string()));
        }
        rows.cells
    }

    #[test]
    fn a_set_of_any_size_is_cut_into_values_of_few_sizes() {
        let sizes = |count: i32| {
            let pieces: Vec<Piece> = values(2, rows(count)).collect();
            let cells: Vec<Value> = pieces.iter().flat_map(|piece| piece.values[1..].to_vec()).collect();
            assert_eq!(cells, rows(count));
            let size = |piece: Piece| {
                assert_eq!(piece.values[0], Value::from((piece.values.len() as i64 - 1) / 2));
                piece.select.matches("(?, ?)").count()
            };
            pieces.into_iter().map(size).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(2), [2]);
        assert_eq!(sizes(77), [128]);
        assert_eq!(sizes(1000), [256, 256, 256, 256]);
        assert_eq!(sizes(257), [256, 1]);
    }

    #[test]
    fn arrays_have_one_text_and_say_which_of_their_values_are_there() {
        assert!(arrays(2, rows(0), 0).is_empty());
        let one = arrays(2, rows(1), 0).remove(0);
        assert_eq!(one.select, "SELECT c0, c1 FROM unnest($1, $2) AS row (c0, c1)");
        let two = arrays(2, rows(2), 0).remove(0);
        assert_eq!(two.select, "SELECT c0, CASE WHEN p1 THEN c1 END FROM unnest($1, $2, $3) AS row (c0, c1, p1)");
        let texts = vec!["0".to_owned(), String::new()];
        assert_eq!(two.values, [vec![0, 1].into(), texts.into(), vec![true, false].into()]);
        assert_eq!(arrays(2, rows(2), 0).remove(0).select, arrays(2, rows(900), 0).remove(0).select);
        let json = arrays(2, rows(1), 0b10).remove(0);
        assert_eq!(json.select, "SELECT c0, c1::jsonb FROM unnest($1, $2) AS row (c0, c1)");
    }
}
