//! Webhooks the hub sends: what they tell.

use uuid::Uuid;

use super::{Instant, Json};

/// Something that webhooks of an integration are told.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationEvent {
    /// Whose it is.
    pub integration_id: Uuid,
    /// What happened, such as `payment.success`: one of the events of the provider's spec.
    pub name: &'static str,
    /// What is told of it; holds no secret.
    pub data: Json,
    /// When it happened.
    pub at: Instant,
}
