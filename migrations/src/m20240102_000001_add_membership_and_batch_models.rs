//! Plans, subscriptions, and the ledger under its other name.

use sea_orm_migration::prelude::*;

use crate::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(membership_plans(manager)).await?;
        manager.create_table(user_subscriptions(manager)).await?;
        run(
            manager,
            &[
                "CREATE UNIQUE INDEX plan_name_is_unique ON membership_plans (lower(name))",
                "CREATE UNIQUE INDEX one_active_subscription_per_user ON user_subscriptions (user_id) \
                 WHERE status = 'active'",
                "CREATE INDEX subscriptions_by_user ON user_subscriptions (user_id, id)",
                "CREATE INDEX subscriptions_to_expire ON user_subscriptions (end_date) WHERE status = 'active'",
                "CREATE VIEW batch_usage AS SELECT id, user_id, batch_name, batch_type, usage_type, usage_amount, \
                 month_year, completed_at, metadata, created_at FROM creatorup_usage",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP VIEW batch_usage"]).await?;
        manager.drop_table(Table::drop().table("user_subscriptions").to_owned()).await?;
        manager.drop_table(Table::drop().table("membership_plans").to_owned()).await
    }
}

fn membership_plans(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("membership_plans")
        .col(ColumnDef::new("id").integer().not_null().auto_increment().primary_key())
        .col(text("name", 255))
        .col(word("tier", 16, &["membership", "reseller", "pro_reseller"]))
        .col(ColumnDef::new("price").integer().not_null().check(Expr::col("price").gte(0)))
        .col(text("currency", 3).default("IDR"))
        .col(word("interval", 16, &["month"]).default("month"))
        .col(ColumnDef::new("features").json_binary().not_null().default("[]"))
        .col(ColumnDef::new("is_active").boolean().not_null().default(true))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .take()
}

fn user_subscriptions(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("user_subscriptions")
        .col(id())
        .col(uuid("user_id"))
        .col(ColumnDef::new("plan_id").integer().not_null())
        .col(word("status", 50, &["active", "canceled", "expired", "replaced"]).default("active"))
        .col(time_now(manager, "start_date"))
        .col(time_now(manager, "end_date"))
        .col(ColumnDef::new("cancel_at_period_end").boolean().not_null().default(false))
        .col(word("source", 50, &["digiup", "creatorup"]).default("digiup"))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .foreign_key(&mut belongs_to_user("subscription_belongs_to_user"))
        .foreign_key(
            ForeignKey::create()
                .name("subscription_has_a_plan")
                .from_col("plan_id")
                .to("membership_plans", "id")
                .on_delete(ForeignKeyAction::Restrict),
        )
        .take()
}
