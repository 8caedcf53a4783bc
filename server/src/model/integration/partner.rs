//! Partners: those whose integrations the hub manages.

use uuid::Uuid;

use crate::model::Instant;
use crate::model::words::words;

words! {
    /// Whether a partner's integrations are at work.
    PartnerStatus {
        /// They are.
        Active = "active",
        /// They are not.
        Inactive = "inactive",
    }
}

/// Somebody whose integrations the hub manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// UUID, version 7.
    pub id: Uuid,
    /// Unique regardless of case.
    pub name: String,
    /// Whether the integrations are at work.
    pub status: PartnerStatus,
    /// When the partner was added.
    pub created_at: Instant,
    /// When the partner was last changed.
    pub updated_at: Instant,
}

/// Which partners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartnerFilter {
    /// Only of this status.
    pub status: Option<PartnerStatus>,
    /// Only those whose name contains this, regardless of case.
    pub query: Option<String>,
}

/// What is to change about a partner; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartnerChange {
    /// Name.
    pub name: Option<String>,
    /// Whether the integrations are at work.
    pub status: Option<PartnerStatus>,
}

impl PartnerChange {
    /// The names of what it changes about a partner.
    pub fn of(&self, partner: &Partner) -> Vec<&'static str> {
        let name = self.name.as_ref().filter(|name| **name != partner.name).map(|_| "name");
        let status = self.status.filter(|status| *status != partner.status).map(|_| "status");
        name.into_iter().chain(status).collect()
    }
}
