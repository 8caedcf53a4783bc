//! Users.

use sea_orm::sea_query::{Expr, ExprTrait, Func, LikeExpr, SimpleExpr};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::entity::user::{ActiveModel, Column, Entity};
use super::rows::Rows;
use super::{WriteTx, asked, taken};
use crate::model::page::Page;
use crate::model::tally::Metric;
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
    insert.map_err(|error| taken(error, UNIQUE))?;
    count_users(tx, user.sync_status.as_str(), 1);
    Ok(())
}

fn count_users(tx: &mut WriteTx, sync_status: &str, count: i64) {
    tx.tally(Metric::Users, sync_status, Instant::default(), count, 0);
}

/// Counts users whose sync status is about to become `to`, and holds their rows until the transaction ends. Whoever
/// writes that column calls this first: the running count of users is kept here and nowhere else.
pub async fn count_sync_status(tx: &mut WriteTx, ids: &[Uuid], to: SyncStatus) -> Result<()> {
    hold(tx, ids).await?;
    let query = Entity::find()
        .select_only()
        .column(Column::SyncStatus)
        .column_as(Column::Id.count(), "users")
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(Column::SyncStatus.ne(to.as_str()))
        .group_by(Column::SyncStatus);
    let leaving: Vec<(String, i64)> = asked(query.into_tuple().all(tx.reader())).await?;
    for (from, users) in leaving {
        count_users(tx, &from, -users);
        count_users(tx, to.as_str(), users);
    }
    Ok(())
}

/// Changes parts of a user, who has to be synced again when CreatorUp knows one of them.
pub async fn update(tx: &mut WriteTx, id: Uuid, change: &UserChange, now: Instant) -> Result<()> {
    let mut row = ActiveModel { updated_at: Set(now), ..Default::default() };
    if change.concerns_creatorup() {
        count_sync_status(tx, &[id], SyncStatus::Pending).await?;
        row.sync_status = Set(SyncStatus::Pending.as_str().to_owned());
    }
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
    let delete = tx.dialect().statement("DELETE FROM users WHERE id = $1 RETURNING sync_status", [id.into()]);
    let Some(row) = asked(tx.connection().query_one_raw(delete)).await? else { return Ok(false) };
    let sync_status: String = row.try_get("", "sync_status").map_err(super::fault)?;
    count_users(tx, &sync_status, -1);
    Ok(true)
}

/// Notes that CreatorUp asked about these users, but for those whose rows another hub holds: waiting for a row in no
/// order could make two hubs wait for each other, and the next question notes it as well.
pub async fn touch(tx: &mut WriteTx, ids: &[Uuid], now: Instant) -> Result<()> {
    let free = match tx.dialect().hold_rows() {
        None => ids.to_vec(),
        Some(clause) => {
            let mut asked_about = Rows::new(&["id"], ids.len());
            for id in ids {
                asked_about.uuid(*id);
            }
            let sql = format!(
                "SELECT users.id FROM users WHERE id IN (SELECT id FROM asked_about) {clause} OF users SKIP LOCKED"
            );
            let rows = asked(asked_about.query(tx.reader(), tx.dialect(), "asked_about", &sql)).await?;
            rows.iter().map(|row| row.try_get("", "id")).collect::<Result<_, _>>().map_err(super::fault)?
        }
    };
    let ids: &[Uuid] = &free;
    let row = ActiveModel { last_creatorup_access: Set(Some(now)), ..Default::default() };
    let update = Entity::update_many().set(row).filter(Column::Id.is_in(ids.iter().copied()));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Whether an active administrator other than this user exists. All of them are held until the transaction ends, in
/// the order of their ids, so that two hubs cannot each count on the one whom the other removes.
pub async fn has_other_admin(tx: &WriteTx, id: Uuid) -> Result<bool> {
    let query = Entity::find()
        .filter(Column::Role.eq(Role::Admin.as_str()))
        .filter(Column::Status.eq(UserStatus::Active.as_str()))
        .order_by_asc(Column::Id)
        .lock_exclusive();
    Ok(asked(query.all(tx.reader())).await?.iter().any(|admin| admin.id != id))
}

/// Whether any user exists.
pub async fn any<C: ConnectionTrait>(connection: &C) -> Result<bool> {
    Ok(asked(Entity::find().limit(1).count(connection)).await? > 0)
}

/// A page of users, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(connection: &C, filter: &UserFilter, page: &Page) -> Result<Vec<User>> {
    let mut query = Entity::find().order_by_desc(Column::Id).limit(u64::from(page.size) + 1);
    if let Some(after) = &page.after {
        query = query.filter(Column::Id.lt(after.id));
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

/// Holds users' rows until the transaction ends, so that what is decided about one of them is decided by one hub at a
/// time. SQLite's one writer holds everything anyway.
pub async fn hold(tx: &WriteTx, ids: &[Uuid]) -> Result<()> {
    let Some(clause) = tx.dialect().hold_rows() else { return Ok(()) };
    // In the order of the ids, so that two hubs never wait for each other.
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut held = Rows::new(&["id"], ids.len());
    for id in &ids {
        held.uuid(*id);
    }
    let sql =
        format!("SELECT users.id FROM users WHERE id IN (SELECT id FROM held) ORDER BY users.id {clause} OF users");
    asked(held.query(tx.reader(), tx.dialect(), "held", &sql)).await.map(drop)
}
