//! Partners and their integrations.

use sea_orm_migration::prelude::*;

use crate::table::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The providers there are; a row of another would be one that nobody can test.
const PROVIDERS: &[&str] = &["midtrans", "xendit", "stripe", "twilio", "wablas", "fonnte", "smtp"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(partners(manager)).await?;
        manager.create_table(partner_integrations(manager)).await?;
        run(
            manager,
            &[
                "CREATE UNIQUE INDEX one_partner_per_name ON partners (lower(name))",
                "CREATE UNIQUE INDEX one_integration_per_name ON partner_integrations (partner_id, lower(name))",
                "CREATE INDEX integrations_by_partner ON partner_integrations (partner_id, id)",
                "CREATE INDEX integrations_by_provider ON partner_integrations (provider, id)",
                // Which of them the schedule tests next.
                "CREATE INDEX integrations_by_test ON partner_integrations (last_test_at, id) WHERE is_active",
                // What is still to be encrypted with the key of now.
                "CREATE INDEX integrations_by_key ON partner_integrations (credentials_key_id, id)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["partner_integrations", "partners"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn partners(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("partners")
        .col(id())
        .col(text("name", 200))
        .col(word("status", 16, &["active", "inactive"]).default("active"))
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .take()
}

/// A partner's account at a provider. `credentials` is sealed; what may be shown of it is in `credentials_masked`, so
/// that no list has to open anything.
fn partner_integrations(manager: &SchemaManager<'_>) -> TableCreateStatement {
    Table::create()
        .table("partner_integrations")
        .col(id())
        .col(uuid("partner_id"))
        .col(word("category", 32, &["payment_gateway", "whatsapp", "email"]))
        .col(word("provider", 32, PROVIDERS))
        .col(text("name", 200))
        .col(word("environment", 16, &["sandbox", "production"]).default("sandbox"))
        .col(ColumnDef::new("credentials").text().not_null())
        .col(text("credentials_key_id", 32))
        .col(json_or_null("credentials_masked"))
        .col(json_or_null("config"))
        .col(text_or_null("base_url", 200))
        // Digest of the secret path of its callbacks; the path itself is sealed with the credentials.
        .col(text_or_null("callback_digest", 64))
        .col(ColumnDef::new("is_active").boolean().not_null().default(true))
        .col(time("last_test_at"))
        .col(
            ColumnDef::new("last_test_status")
                .string_len(16)
                .null()
                .check(Expr::col("last_test_status").is_in(["success", "failed", "pending"])),
        )
        .col(ColumnDef::new("last_test_message").text().null())
        .col(text_or_null("last_test_class", 32))
        .col(ColumnDef::new("last_test_latency").integer().null())
        .col(ColumnDef::new("created_by").uuid().null())
        .col(time_now(manager, "created_at"))
        .col(time_now(manager, "updated_at"))
        .foreign_key(
            ForeignKey::create()
                .name("an_integration_belongs_to_a_partner")
                .from_col("partner_id")
                .to("partners", "id")
                .on_delete(ForeignKeyAction::Restrict),
        )
        .take()
}
