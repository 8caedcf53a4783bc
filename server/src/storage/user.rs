//! Users.

use sea_orm::sea_query::{Expr, ExprTrait, Func, LikeExpr, SimpleExpr};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::entity::user::{ActiveModel, Column, Entity};
use super::rows::{Kind, Rows};
use super::{WriteTx, asked, taken};
use crate::model::page::Page;
use crate::model::user::{Role, SyncStatus, User, UserChange, UserFilter, UserStats, UserStatus};
use crate::model::{Error, Instant, Result};

/// The columns whose values must be unique.
const UNIQUE: &[&str] = &["username", "email"];

/// The user of that id.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<User>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(User::try_from).transpose()
}

/// The user of that e-mail address (in lower case), with the password hash.
pub async fn find_by_email<C: ConnectionTrait>(connection: &C, email: &str) -> Result<Option<(User, String)>> {
    let row = asked(Entity::find().filter(Column::Email.eq(email)).one(connection)).await?;
    row.map(|row| {
        let hash = row.password_hash.clone();
        User::try_from(row).map(|user| (user, hash))
    })
    .transpose()
}

/// The password hash of a user.
pub async fn password_hash<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<String>> {
    Ok(asked(Entity::find_by_id(id).one(connection)).await?.map(|row| row.password_hash))
}

/// Whether a unique value is taken by a user other than `except`; names the field that is.
pub async fn find_taken<C: ConnectionTrait>(
    connection: &C,
    email: Option<&str>,
    username: Option<&str>,
    except: Option<Uuid>,
) -> Result<Option<&'static str>> {
    for (field, matches) in [
        ("email", email.map(|email| Column::Email.eq(email))),
        ("username", username.map(|username| lower(Column::Username).eq(username.to_lowercase()))),
    ] {
        let Some(matches) = matches else { continue };
        let mut query = Entity::find().filter(matches);
        if let Some(except) = except {
            query = query.filter(Column::Id.ne(except));
        }
        if asked(query.one(connection)).await?.is_some() {
            return Ok(Some(field));
        }
    }
    Ok(None)
}

fn lower(column: Column) -> SimpleExpr {
    Func::lower(Expr::col(column)).into()
}

/// Adds a user.
pub async fn insert(tx: &mut WriteTx, user: &User, password_hash: &str) -> Result<()> {
    let row = ActiveModel {
        id: Set(user.id),
        email: Set(user.email.clone()),
        name: Set(user.name.clone()),
        username: Set(user.username.clone()),
        role: Set(user.role.as_str().to_owned()),
        status: Set(user.status.as_str().to_owned()),
        password_hash: Set(password_hash.to_owned()),
        purchased_courses: Set(serde_json::json!([])),
        sync_status: Set(user.sync_status.as_str().to_owned()),
        created_at: Set(user.created_at),
        updated_at: Set(user.updated_at),
        ..Default::default()
    };
    let insert = Entity::insert(row).exec_without_returning(tx.connection()).await;
    insert.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// Changes parts of a user, who has to be synced again.
pub async fn update(tx: &mut WriteTx, id: Uuid, change: &UserChange, now: Instant) -> Result<()> {
    let mut row = ActiveModel {
        updated_at: Set(now),
        sync_status: Set(SyncStatus::Pending.as_str().to_owned()),
        ..Default::default()
    };
    if let Some(email) = &change.email {
        row.email = Set(email.clone());
    }
    if let Some(name) = &change.name {
        row.name = Set(name.clone());
    }
    if let Some(username) = &change.username {
        row.username = Set(Some(username.clone()));
    }
    if let Some(role) = change.role {
        row.role = Set(role.as_str().to_owned());
    }
    if let Some(status) = change.status {
        row.status = Set(status.as_str().to_owned());
    }
    if let Some(hash) = &change.password_hash {
        row.password_hash = Set(hash.clone());
    }
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id)).exec(tx.connection()).await;
    update.map(drop).map_err(|error| taken(error, UNIQUE))
}

/// Deletes a user and what belongs to them; says whether there was one.
pub async fn delete(tx: &mut WriteTx, id: Uuid) -> Result<bool> {
    Ok(asked(Entity::delete_by_id(id).exec(tx.connection())).await?.rows_affected > 0)
}

/// Notes that CreatorUp asked about these users.
pub async fn touch(tx: &mut WriteTx, ids: &[Uuid], now: Instant) -> Result<()> {
    let row = ActiveModel { last_creatorup_access: Set(Some(now)), ..Default::default() };
    let update = Entity::update_many().set(row).filter(Column::Id.is_in(ids.iter().copied()));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Whether an active administrator other than this user exists.
pub async fn has_other_admin<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<bool> {
    let query = Entity::find()
        .filter(Column::Role.eq(Role::Admin.as_str()))
        .filter(Column::Status.eq(UserStatus::Active.as_str()))
        .filter(Column::Id.ne(id));
    Ok(asked(query.one(connection)).await?.is_some())
}

/// Whether any user exists.
pub async fn any<C: ConnectionTrait>(connection: &C) -> Result<bool> {
    Ok(asked(Entity::find().limit(1).count(connection)).await? > 0)
}

/// A page of users, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(connection: &C, filter: &UserFilter, page: &Page) -> Result<Vec<User>> {
    let mut query = Entity::find().order_by_desc(Column::Id).limit(u64::from(page.size) + 1);
    if let Some(before) = page.before {
        query = query.filter(Column::Id.lt(before));
    }
    if let Some(text) = &filter.query {
        query = query.filter(contains(text));
    }
    if let Some(role) = filter.role {
        query = query.filter(Column::Role.eq(role.as_str()));
    }
    if let Some(status) = filter.status {
        query = query.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(status) = filter.sync_status {
        query = query.filter(Column::SyncStatus.eq(status.as_str()));
    }
    asked(query.all(connection)).await?.into_iter().map(User::try_from).collect()
}

/// `text` inside e-mail, name or username, in any case; its wildcards stand for themselves.
fn contains(text: &str) -> Condition {
    let like = |text: &str| {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        LikeExpr::new(format!("%{escaped}%")).escape('\\')
    };
    let (lowered, exact) = (like(&text.to_lowercase()), like(text));
    [Column::Email, Column::Name, Column::Username].into_iter().fold(Condition::any(), |any, column| {
        // SQLite lowers ASCII letters only; other letters are found there as they are written.
        any.add(lower(column).like(lowered.clone())).add(Expr::col(column).like(exact.clone()))
    })
}

#[derive(FromQueryResult)]
struct Count {
    role: String,
    status: String,
    users: i64,
}

/// Counts users, and those who signed up at `since` or later.
pub async fn stats<C: ConnectionTrait>(connection: &C, since: Instant, now: Instant) -> Result<UserStats> {
    let counts = Entity::find()
        .select_only()
        .column(Column::Role)
        .column(Column::Status)
        .column_as(Column::Id.count(), "users")
        .group_by(Column::Role)
        .group_by(Column::Status)
        .into_model::<Count>();
    let counts = asked(counts.all(connection)).await?;
    let recent = asked(Entity::find().filter(Column::CreatedAt.gte(since)).count(connection)).await?;
    let counts = counts.into_iter().map(|row| {
        let role = Role::parse(&row.role).ok_or_else(|| Error::internal("an unknown role"))?;
        let status = UserStatus::parse(&row.status).ok_or_else(|| Error::internal("an unknown status"))?;
        Ok((role, status, row.users))
    });
    Ok(UserStats { counts: counts.collect::<Result<_>>()?, recent_signups: recent as i64, as_of: now })
}

/// A user as the ledger needs them.
pub struct Holder {
    /// The user's id at CreatorUp; empty until known.
    pub creatorup_user_id: String,
    /// Whether the user is active.
    pub is_active: bool,
}

#[derive(FromQueryResult)]
struct HolderRow {
    id: Uuid,
    status: String,
    creatorup_user_id: Option<String>,
}

/// Reads users and holds their rows until the transaction ends, so that what is decided about one of them is
/// decided by one hub at a time.
pub async fn hold(tx: &WriteTx, ids: &[Uuid]) -> Result<std::collections::HashMap<Uuid, Holder>> {
    let mut held = Rows::new(&[("id", Kind::Uuid)]);
    for id in ids {
        held.uuid(*id);
    }
    // In the order of the ids, so that two hubs never wait for each other.
    let sql = format!(
        "SELECT users.id, users.status, users.creatorup_user_id FROM users WHERE id IN (SELECT id FROM held) ORDER BY users.id{}",
        tx.dialect().hold_rows("users")
    );
    let rows = asked(held.query(tx.reader(), tx.dialect(), "held", &sql)).await?;
    let rows = rows.iter().map(|row| HolderRow::from_query_result(row, "")).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(super::fault)?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let is_active = row.status == UserStatus::Active.as_str();
            (row.id, Holder { creatorup_user_id: row.creatorup_user_id.unwrap_or_default(), is_active })
        })
        .collect())
}
