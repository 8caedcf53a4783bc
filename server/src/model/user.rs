//! Users and their sessions.

use uuid::Uuid;

use super::words::words;
use super::{Instant, Json};

words! {
    /// What a user may do.
    Role {
        /// Everything.
        Admin = "admin",
        /// What members do.
        Member = "member",
        /// What resellers do.
        Reseller = "reseller",
        /// What resellers of the higher tier do.
        ProReseller = "pro_reseller",
    }
}

words! {
    /// Whether a user may sign in.
    UserStatus {
        /// May.
        Active = "active",
        /// May not; tokens in use are refused.
        Inactive = "inactive",
    }
}

words! {
    /// How the user's copy at CreatorUp stands.
    SyncStatus {
        /// Waiting to be sent.
        Pending = "pending",
        /// Confirmed by CreatorUp.
        Synced = "synced",
        /// The last attempt failed.
        Error = "error",
    }
}

/// A user of DigiUp.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// UUID, version 7.
    pub id: Uuid,
    /// E-mail address in lower case.
    pub email: String,
    /// Display name; may be empty.
    pub name: String,
    /// Handle, unique regardless of case.
    pub username: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Whether they may sign in.
    pub status: UserStatus,
    /// How their copy at CreatorUp stands.
    pub sync_status: SyncStatus,
    /// Their id at CreatorUp.
    pub creatorup_user_id: Option<String>,
    /// When CreatorUp last confirmed them.
    pub creatorup_synced_at: Option<Instant>,
    /// When CreatorUp last asked about them.
    pub last_creatorup_access: Option<Instant>,
    /// What CreatorUp answered at the last sync.
    pub creatorup_metadata: Option<Json>,
    /// When they registered.
    pub created_at: Instant,
    /// When they were last changed.
    pub updated_at: Instant,
}

impl User {
    /// A new active user without a name, whom CreatorUp does not know yet.
    pub fn new(email: String, role: Role, now: Instant) -> User {
        User {
            id: Uuid::now_v7(),
            email,
            name: String::new(),
            username: None,
            role,
            status: UserStatus::Active,
            sync_status: SyncStatus::Pending,
            creatorup_user_id: None,
            creatorup_synced_at: None,
            last_creatorup_access: None,
            creatorup_metadata: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A session, which is what a token stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The token's `jti`.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// When it began.
    pub created_at: Instant,
    /// When its token expires.
    pub expires_at: Instant,
    /// Address it was opened from; may be empty.
    pub ip_address: String,
    /// User agent it was opened with; may be empty.
    pub user_agent: String,
}

/// Which users to list; absent fields do not restrict.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Text in e-mail, name or username, in any case.
    pub query: Option<String>,
    /// Role.
    pub role: Option<Role>,
    /// Status.
    pub status: Option<UserStatus>,
    /// Sync status.
    pub sync_status: Option<SyncStatus>,
}

/// Changes to a user; absent fields stay.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// E-mail address in lower case.
    pub email: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Handle.
    pub username: Option<String>,
    /// Role.
    pub role: Option<Role>,
    /// Status.
    pub status: Option<UserStatus>,
    /// Password hash.
    pub password_hash: Option<String>,
}

impl UserChange {
    /// The names of the fields that change; values stay out of the audit log.
    pub fn keys(&self) -> Vec<&'static str> {
        [
            ("email", self.email.is_some()),
            ("name", self.name.is_some()),
            ("username", self.username.is_some()),
            ("role", self.role.is_some()),
            ("status", self.status.is_some()),
            ("password", self.password_hash.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, changes)| changes.then_some(key))
        .collect()
    }

    /// Whether CreatorUp has to be told. It never learns passwords, so a new one leaves its copy as good as it was.
    pub fn concerns_creatorup(&self) -> bool {
        self.keys().iter().any(|key| *key != "password")
    }
}

/// Counts of users.
#[derive(Clone, Debug, PartialEq)]
pub struct UserStats {
    /// Users by role and status.
    pub counts: Vec<(Role, UserStatus, i64)>,
    /// Users who signed up in the window.
    pub recent_signups: i64,
    /// When the counts were read.
    pub as_of: Instant,
}
