//! Rows become the model here, and a word that the model does not know is our own mistake.

use sea_orm::{QueryResult, TryGetable};

use super::entity::{plan, subscription, sync_event, usage, user};
use super::fault;
use crate::model::event::Event;
use crate::model::membership::{Plan, PlanFeature, Subscription, SubscriptionSource, SubscriptionStatus, Tier};
use crate::model::usage::Record;
use crate::model::user::{Role, SyncStatus, User, UserStatus};
use crate::model::{Error, Json, Month, Result};

/// A column of a row, by name.
pub(super) fn column<T: TryGetable>(row: &QueryResult, name: &str) -> Result<T> {
    row.try_get("", name).map_err(fault)
}

/// A column that holds a word of the model's.
pub(super) fn word_of<T>(row: &QueryResult, name: &str, parse: fn(&str) -> Option<T>) -> Result<T> {
    word(name, &column::<String>(row, name)?, parse)
}

pub(super) fn word<T>(column: &str, word: &str, parse: fn(&str) -> Option<T>) -> Result<T> {
    parse(word).ok_or_else(|| Error::internal(format!("column {column} holds the unknown word {word:?}")))
}

impl TryFrom<user::Model> for User {
    type Error = Error;

    fn try_from(row: user::Model) -> Result<User> {
        Ok(User {
            id: row.id,
            role: word("users.role", &row.role, Role::parse)?,
            status: word("users.status", &row.status, UserStatus::parse)?,
            sync_status: word("users.sync_status", &row.sync_status, SyncStatus::parse)?,
            email: row.email,
            name: row.name,
            username: row.username,
            creatorup_user_id: row.creatorup_user_id,
            creatorup_synced_at: row.creatorup_synced_at,
            last_creatorup_access: row.last_creatorup_access,
            creatorup_metadata: row.creatorup_metadata,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl TryFrom<plan::Model> for Plan {
    type Error = Error;

    fn try_from(row: plan::Model) -> Result<Plan> {
        let features = read_features(&row.features)
            .ok_or_else(|| Error::internal(format!("plan {} has features that are no list of features", row.id)))?;
        Ok(Plan {
            id: row.id,
            tier: word("membership_plans.tier", &row.tier, Tier::parse)?,
            name: row.name,
            price: row.price,
            currency: row.currency,
            features,
            is_active: row.is_active,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Features are kept as `[{"feature": "local_rendering", "monthly_limit": 100 | null}]`.
fn read_features(json: &Json) -> Option<Vec<PlanFeature>> {
    json.as_array()?
        .iter()
        .map(|item| {
            let feature = item.get("feature")?.as_str()?.to_owned();
            Some(PlanFeature { feature, monthly_limit: item.get("monthly_limit").and_then(Json::as_i64) })
        })
        .collect()
}

/// The stored form of features.
pub fn write_features(features: &[PlanFeature]) -> Json {
    let item = |feature: &PlanFeature| serde_json::json!({ "feature": feature.feature, "monthly_limit": feature.monthly_limit });
    Json::Array(features.iter().map(item).collect())
}

impl TryFrom<subscription::Model> for Subscription {
    type Error = Error;

    fn try_from(row: subscription::Model) -> Result<Subscription> {
        Ok(Subscription {
            id: row.id,
            user_id: row.user_id,
            plan_id: row.plan_id,
            status: word("user_subscriptions.status", &row.status, SubscriptionStatus::parse)?,
            source: word("user_subscriptions.source", &row.source, SubscriptionSource::parse)?,
            start_date: row.start_date,
            end_date: row.end_date,
            cancel_at_period_end: row.cancel_at_period_end,
            changed_at: row.changed_at.unwrap_or(row.updated_at),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl TryFrom<usage::Model> for Record {
    type Error = Error;

    fn try_from(row: usage::Model) -> Result<Record> {
        Ok(Record {
            month: word("creatorup_usage.month_year", &row.month_year, Month::parse)?,
            id: row.id,
            user_id: row.user_id,
            creatorup_user_id: row.creatorup_user_id,
            batch_name: row.batch_name,
            batch_type: row.batch_type,
            usage_type: row.usage_type,
            amount: row.usage_amount,
            completed_at: row.completed_at,
            completion_reported: row.completion_reported,
            metadata: row.metadata,
            key: row.idempotency_key,
            source: row.source,
            revision: row.revision,
            synced_at: row.synced_at,
            created_at: row.created_at,
        })
    }
}

impl From<sync_event::Model> for Event {
    fn from(row: sync_event::Model) -> Event {
        Event {
            id: row.id,
            kind: row.event_type,
            status: row.status,
            retry_count: row.retry_count,
            max_retries: row.max_retries,
            error_message: row.error_message,
            created_at: row.created_at,
            processed_at: row.processed_at,
        }
    }
}
