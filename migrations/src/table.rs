//! Pieces that several migrations use.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// `now()` as a column default, on SQLite in the very format the application writes.
pub fn now(manager: &SchemaManager<'_>) -> SimpleExpr {
    match manager.get_database_backend() {
        DbBackend::Sqlite => Expr::cust("(strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))"),
        _ => Expr::cust("now()"),
    }
}

/// The user in an index of the ledger that something else leads.
///
/// PostgreSQL keeps the plan of a statement, and on a young table the index by month serves a lookup by user and key
/// as well as the one that is made for it; later it would walk all of a member's records. An index of the id's bytes
/// is found by their comparison alone, and no other is.
pub fn user_in_index(manager: &SchemaManager<'_>) -> &'static str {
    match manager.get_database_backend() {
        DbBackend::Postgres => "uuid_send(user_id)",
        _ => "user_id",
    }
}

/// A required time with the default of this moment.
pub fn time_now(manager: &SchemaManager<'_>, name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().not_null().default(now(manager)).take()
}

/// A time that may be absent.
pub fn time(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().null().take()
}

/// A required UUID.
pub fn uuid(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).uuid().not_null().take()
}

/// A UUID primary key; ids are made by the application, version 7, so they sort by time.
pub fn id() -> ColumnDef {
    uuid("id").primary_key().take()
}

/// Required text of at most `length` characters.
pub fn text(name: &'static str, length: u32) -> ColumnDef {
    ColumnDef::new(name).string_len(length).not_null().take()
}

/// Text of at most `length` characters that may be absent.
pub fn text_or_null(name: &'static str, length: u32) -> ColumnDef {
    ColumnDef::new(name).string_len(length).null().take()
}

/// A required word from a list, checked by the database too.
pub fn word(name: &'static str, length: u32, words: &'static [&'static str]) -> ColumnDef {
    text(name, length).check(Expr::col(name).is_in(words.iter().copied())).take()
}

/// JSON that may be absent.
pub fn json_or_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).json_binary().null().take()
}

/// A foreign key to `users` whose rows go with the user.
pub fn belongs_to_user(name: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().name(name).from_col("user_id").to("users", "id").on_delete(ForeignKeyAction::Cascade).take()
}

/// Runs statements that read alike on both databases.
pub async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

/// Unix seconds of a time, as a whole number.
pub fn unix_seconds(manager: &SchemaManager<'_>, time: &str) -> String {
    match manager.get_database_backend() {
        DbBackend::Sqlite => format!("CAST(strftime('%s', {time}) AS BIGINT)"),
        _ => format!("CAST(floor(extract(epoch FROM {time})) AS BIGINT)"),
    }
}

/// `YYYY-MM` of a time.
pub fn month_of(manager: &SchemaManager<'_>, time: &str) -> String {
    match manager.get_database_backend() {
        DbBackend::Sqlite => format!("strftime('%Y-%m', {time})"),
        _ => format!("to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM')"),
    }
}

/// Unix seconds of the first instant of a month written `YYYY-MM`.
pub fn unix_month(manager: &SchemaManager<'_>, month: &str) -> String {
    match manager.get_database_backend() {
        DbBackend::Sqlite => format!("CAST(strftime('%s', {month} || '-01') AS BIGINT)"),
        _ => format!("CAST(extract(epoch FROM to_date({month}, 'YYYY-MM')) AS BIGINT)"),
    }
}

/// Runs statements that tune a table where the database has such a thing.
pub async fn run_on_postgres(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    match manager.get_database_backend() {
        DbBackend::Postgres => run(manager, statements).await,
        _ => Ok(()),
    }
}
