//! What is sealed, wherever it is, to be sealed anew with another key.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::dialect::Dialect;
use super::hook::{PREVIOUS_SECRET, SECRET};
use super::integration::CREDENTIALS;
use super::rows::Rows;
use super::{WriteTx, asked, fault};
use crate::model::Result;

/// A table with something sealed in it.
#[derive(Debug)]
pub struct Place {
    table: &'static str,
    /// The column with the id of the key, the same for all that is sealed in a row.
    key_id: &'static str,
    /// The columns with what is sealed, and what each is sealed for; the second is empty where there is but one.
    sealed: [(&'static str, &'static str); 2],
}

impl Place {
    /// What it is called, for people.
    pub fn name(&self) -> &'static str {
        self.table
    }

    /// What its columns are sealed for.
    pub fn purposes(&self) -> [&'static str; 2] {
        self.sealed.map(|(_, purpose)| purpose)
    }

    fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.sealed.iter().map(|(column, _)| *column).filter(|column| !column.is_empty())
    }
}

/// Every table with something sealed in it.
pub static PLACES: [Place; 2] = [
    Place {
        table: "partner_integrations",
        key_id: "credentials_key_id",
        sealed: [("credentials", CREDENTIALS), ("", "")],
    },
    Place {
        table: "integration_webhooks",
        key_id: "secret_key_id",
        sealed: [("webhook_secret", SECRET), ("previous_secret", PREVIOUS_SECRET)],
    },
];

/// A row with what is sealed in it, by column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The row.
    pub id: Uuid,
    /// What is sealed.
    pub texts: [Option<String>; 2],
}

/// Rows that are sealed with a key, by id after `after`; they are held until the transaction ends.
pub async fn hold(tx: &WriteTx, place: &Place, key_id: &str, after: Uuid, most: u64) -> Result<Vec<Sealed>> {
    let columns: Vec<_> = place.columns().collect();
    let sql = format!(
        "SELECT id, {columns} FROM {table} WHERE {key} = $1 AND id > $2 ORDER BY id LIMIT $3 {hold}",
        columns = columns.join(", "),
        table = place.table,
        key = place.key_id,
        hold = tx.dialect().hold_rows().unwrap_or_default(),
    );
    let query = tx.dialect().statement(sql, [key_id.into(), after.into(), (most as i64).into()]);
    let rows = asked(tx.reader().query_all_raw(query)).await?;
    rows.iter()
        .map(|row| {
            let mut texts = [None, None];
            for (text, column) in texts.iter_mut().zip(&columns) {
                *text = row.try_get("", column).map_err(fault)?;
            }
            Ok(Sealed { id: row.try_get("", "id").map_err(fault)?, texts })
        })
        .collect()
}

/// Writes what was sealed anew, with another key than the one it had.
pub async fn reseal(tx: &mut WriteTx, place: &Place, from: &str, to: &str, sealed: Vec<Sealed>) -> Result<()> {
    let mut rows = Rows::new(&["id", "first", "second", "key_id"], sealed.len());
    for Sealed { id, texts: [first, second] } in sealed {
        rows.uuid(id).text_or_null(first).text_or_null(second).text(to);
    }
    let columns = place.columns().zip(["first", "second"]).map(|(column, from)| format!("{column} = resealed.{from}"));
    let changes: Vec<_> = columns.chain([format!("{} = resealed.key_id", place.key_id)]).collect();
    let dialect = tx.dialect();
    let update = dialect.update_each(place.table, &changes.join(", "), "resealed", (place.key_id, from));
    let update = format!("{update} RETURNING {}.id", place.table);
    asked(rows.query(tx.connection(), dialect, "resealed", &update)).await.map(drop)
}

/// How many secrets are sealed with each key.
pub async fn count<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Vec<(String, i64)>> {
    let of = |place: &Place| {
        let counts: Vec<_> = place.columns().map(|column| format!("COUNT({column})")).collect();
        let (counts, key, table) = (counts.join(" + "), place.key_id, place.table);
        format!("SELECT {key} AS key_id, CAST({counts} AS BIGINT) AS secrets FROM {table} GROUP BY {key}")
    };
    let sql = PLACES.iter().map(of).collect::<Vec<_>>().join(" UNION ALL ");
    let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "key_id").map_err(fault)?, row.try_get("", "secrets").map_err(fault)?)))
        .collect()
}
