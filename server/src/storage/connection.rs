//! The last connection tests of integrations, and whose turn it is.

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use uuid::Uuid;

use super::entity::partner_integration::{ActiveModel, Column, Entity};
use super::{WriteTx, asked, partner};
use crate::model::integration::{LogStatus, TestRecord};
use crate::model::{Instant, Result};

/// What the last test before was, of an integration that is still there.
pub type Before = Option<LogStatus>;

/// Keeps a test as an integration's last, unless a newer one came between. `None` when the integration is gone.
pub async fn record(tx: &mut WriteTx, id: Uuid, test: &TestRecord) -> Result<Option<Before>> {
    let query = Entity::find_by_id(id).select_only().column(Column::LastTestStatus).into_tuple::<Option<String>>();
    let Some(before) = asked(query.one(tx.reader())).await? else { return Ok(None) };
    let row = ActiveModel {
        last_test_at: Set(Some(test.at)),
        last_test_status: Set(Some(test.status.as_str().to_owned())),
        last_test_message: Set(Some(test.message.clone())),
        last_test_class: Set(test.class.map(|class| class.as_str().to_owned())),
        last_test_latency: Set(Some(test.latency)),
        ..Default::default()
    };
    let is_newest = Column::LastTestAt.is_null().or(Column::LastTestAt.lte(test.at));
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id)).filter(is_newest);
    asked(update.exec(tx.connection())).await?;
    Ok(Some(before.as_deref().and_then(LogStatus::parse)))
}

/// Integrations at work that were not tested since `before`, the longest untested first, and after them those that
/// never were and have been there since before that; at most `most`.
pub async fn list_due<C: ConnectionTrait>(connection: &C, before: Instant, most: u64) -> Result<Vec<Uuid>> {
    let mut found: Vec<Uuid> = asked(stale(before).limit(most).into_tuple().all(connection)).await?;
    let room = most - found.len() as u64;
    if room > 0 {
        let never = at_work().filter(Column::LastTestAt.is_null()).filter(Column::CreatedAt.lt(before));
        let never = never.order_by_asc(Column::Id).limit(room).into_tuple::<Uuid>();
        found.extend(asked(never.all(connection)).await?);
    }
    Ok(found)
}

fn stale(before: Instant) -> Select<Entity> {
    at_work().filter(Column::LastTestAt.lt(before)).order_by_asc(Column::LastTestAt).order_by_asc(Column::Id)
}

/// The ids of integrations that are at work, and whose partners are. With the column itself and no comparison: only so
/// does a planner see that the partial index serves.
fn at_work() -> Select<Entity> {
    let ids = Entity::find().select_only().column(Column::Id).filter(Expr::col((Entity, Column::IsActive)));
    ids.filter(Column::PartnerId.in_subquery(partner::at_work()))
}

#[cfg(test)]
mod tests {
    use sea_orm::{Database, QueryTrait, Statement};

    use super::*;

    #[tokio::test]
    async fn whose_turn_it_is_is_found_by_the_partial_index() {
        let now = chrono::DateTime::UNIX_EPOCH;
        let connection = Database::connect("sqlite::memory:").await.unwrap();
        for sql in [
            "CREATE TABLE partners (id, status)",
            "CREATE TABLE partner_integrations (id, partner_id, is_active BOOLEAN, last_test_at, created_at)",
            "CREATE INDEX integrations_by_test ON partner_integrations (last_test_at, id) WHERE is_active",
        ] {
            connection.execute_unprepared(sql).await.unwrap();
        }
        let select = stale(now).build(connection.get_database_backend());
        assert!(select.sql.contains(r#"WHERE "partner_integrations"."is_active" AND "#), "{select}");
        let explain = Statement { sql: format!("EXPLAIN QUERY PLAN {}", select.sql), ..select };
        let plan = connection.query_all_raw(explain).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        assert!(plan[0].contains("USING INDEX integrations_by_test (last_test_at<?)"), "{plan:?}");
    }
}
