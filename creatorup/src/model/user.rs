//! CreatorUp's copy of a user of DigiUp.

use uuid::Uuid;

use super::{Instant, Json};

/// How a user stands who was deleted at DigiUp; every other word is DigiUp's own.
pub const DELETED: &str = "deleted";

/// What DigiUp says of a user at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The user's id at DigiUp.
    pub digiup_user_id: Uuid,
    /// E-mail address; empty once deleted.
    pub email: String,
    /// Display name.
    pub name: String,
    /// Handle.
    pub username: Option<String>,
    /// The role at DigiUp, in DigiUp's words.
    pub role: String,
    /// `active` or `inactive`, or [`DELETED`].
    pub status: String,
    /// The membership, for a user who ever had one.
    pub membership: Option<Membership>,
    /// Anything else that was told: courses, the plan's features.
    pub details: Json,
    /// When it was so.
    pub as_of: Instant,
}

impl Profile {
    /// A user who was deleted: nothing about the person is kept.
    pub fn deleted(digiup_user_id: Uuid, as_of: Instant) -> Profile {
        Profile {
            digiup_user_id,
            email: String::new(),
            name: String::new(),
            username: None,
            role: "member".to_owned(),
            status: DELETED.to_owned(),
            membership: None,
            details: Json::Null,
            as_of,
        }
    }
}

/// A membership as DigiUp told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The plan's name.
    pub plan: String,
    /// Where it stands, in DigiUp's words.
    pub status: String,
    /// When it ends.
    pub end_date: Option<Instant>,
}

/// The copy.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// The user's id here; DigiUp keeps it as `creatorup_user_id`.
    pub id: Uuid,
    /// What DigiUp said last.
    pub profile: Profile,
    /// When it was last written.
    pub synced_at: Instant,
    /// When CreatorUp first heard of the user.
    pub created_at: Instant,
}

impl User {
    /// Whether what is told is newer than this copy. The same instant is: the hub's clock may not have ticked between
    /// two changes, and writing the same again does no harm. Who was deleted stays so.
    pub fn yields_to(&self, told: &Profile) -> bool {
        told.as_of >= self.profile.as_of && (self.profile.status != DELETED || told.status == DELETED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, TimeZone, Utc};

    #[test]
    fn the_newer_word_counts_and_a_deletion_is_the_last() {
        let noon = Utc.with_ymd_and_hms(2026, 3, 15, 12, 0, 0).unwrap();
        let told = |seconds, status: &str| Profile {
            status: status.to_owned(),
            ..Profile::deleted(Uuid::nil(), noon + TimeDelta::seconds(seconds))
        };
        let copy = |status| User { id: Uuid::nil(), profile: told(0, status), synced_at: noon, created_at: noon };
        assert!(copy("active").yields_to(&told(1, "inactive")) && copy("active").yields_to(&told(0, "inactive")));
        assert!(!copy("active").yields_to(&told(-1, "inactive")));
        assert!(copy("active").yields_to(&told(1, DELETED)) && !copy(DELETED).yields_to(&told(1, "active")));
    }
}
