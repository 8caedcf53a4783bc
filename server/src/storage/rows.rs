//! Sets of rows that travel to the database in a few statements.
//!
//! A statement with a placeholder for every cell has another text for every number of rows, and parsing one costs
//! more than storing its rows. So a set is cut into pieces of 2ⁿ rows: whatever its size, it takes statements of nine
//! texts, which both databases prepare once and keep.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use uuid::Uuid;

use super::dialect::Dialect;
use crate::model::{Instant, Json};

/// Rows of the largest piece. Times 16 columns it is far below what SQLite (32,766) and PostgreSQL (65,535) bind.
const LARGEST: usize = 256;

/// Rows on their way to the database.
pub struct Rows {
    columns: &'static [&'static str],
    cells: Vec<Value>,
}

impl Rows {
    /// An empty set of rows with these columns; cells are added in their order.
    pub fn new(columns: &'static [&'static str], expected: usize) -> Rows {
        Rows { columns, cells: Vec::with_capacity(columns.len() * expected) }
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
    pub fn json(&mut self, json: Option<Json>) -> &mut Rows {
        self.add(json)
    }

    /// Runs `INSERT INTO table` for the rows, with what follows it.
    pub async fn insert<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        table: &str,
        rest: &str,
    ) -> Result<(), DbErr> {
        let head = format!("INSERT INTO {table} ({}) VALUES ", self.columns.join(", "));
        for (rows, cells) in self.pieces() {
            let sql = dialect.values(&head, rows, cells.len() / rows, rest);
            connection.execute_raw(dialect.statement(sql, cells)).await?;
        }
        Ok(())
    }

    /// Runs `query` with the rows as the table `name`, piece by piece.
    pub async fn query<C: ConnectionTrait>(
        self,
        connection: &C,
        dialect: Dialect,
        name: &str,
        query: &str,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let head = format!("WITH {name} ({}) AS (VALUES ", self.columns.join(", "));
        let tail = format!(") {query}");
        let mut found = Vec::new();
        for (rows, cells) in self.pieces() {
            let sql = dialect.values(&head, rows, cells.len() / rows, &tail);
            found.extend(connection.query_all_raw(dialect.statement(sql, cells)).await?);
        }
        Ok(found)
    }

    /// The cells in pieces of 2ⁿ rows, largest first, each with its number of rows.
    fn pieces(self) -> impl Iterator<Item = (usize, Vec<Value>)> {
        let width = self.columns.len();
        debug_assert_eq!(self.cells.len() % width, 0, "a row is not complete");
        let mut left = self.cells.len() / width;
        let mut cells = self.cells.into_iter();
        std::iter::from_fn(move || {
            let rows = LARGEST.min(1 << left.checked_ilog2()?);
            left -= rows;
            Some((rows, cells.by_ref().take(rows * width).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_any_size_is_cut_into_pieces_of_few_sizes() {
        let sizes = |count: i32| {
            let mut rows = Rows::new(&["a", "b"], 0);
            for at in 0..count {
                rows.int(at).int(-at);
            }
            let pieces: Vec<_> = rows.pieces().collect();
            let cells: Vec<Value> = pieces.iter().flat_map(|(_, cells)| cells.clone()).collect();
            assert_eq!(cells.len(), 2 * count as usize);
            assert!(cells.iter().step_by(2).enumerate().all(|(at, cell)| *cell == Value::from(at as i32)));
            pieces.into_iter().map(|(rows, _)| rows).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(77), [64, 8, 4, 1]);
        assert_eq!(sizes(1000), [256, 256, 256, 128, 64, 32, 8]);
    }
}
