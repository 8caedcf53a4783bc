//! What may happen: one `impl Hub` per noun. Each function decides, writes once, and tells the queue in the same
//! transaction. Every door (gRPC, HTTP, command line) opens onto these and holds no rule of its own.

pub mod account;
pub mod activity;
pub mod alert;
pub mod analytics;
pub mod bootstrap;
mod cache;
pub mod callback;
pub mod cleanup;
pub mod connection;
pub mod devops;
pub mod hook;
pub mod housekeeping;
pub mod integration;
mod integration_health;
mod integration_log;
mod ledger;
pub mod limit;
pub mod membership;
pub mod monitor;
pub mod partner;
mod password;
pub mod queue;
pub mod retry;
pub mod sample;
mod token;
pub mod usage;
pub mod user;
pub mod user_sync;
pub mod webhook;
mod work;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::model::callback::PublicUrl;
use crate::model::connection::Providers;
use crate::model::creatorup::CreatorUp;
use crate::model::integration::address::Addresses;
use crate::model::membership::{Membership, Plan};
use crate::model::outward::Outward;
use crate::model::retention::Retention;
use crate::model::seal::Sealer;
use crate::model::usage::MonthlyUsage;
use crate::model::user::User;
use crate::model::{Clock, Error, Instant, Month, Result};
use crate::storage::{self, Lane, Store};
use cache::Cache;
pub use limit::{Limits, Quota};
use password::Passwords;
pub use token::{Keys, TokenIssuer};

/// How long this hub trusts what another hub may have changed. Its own changes are seen at once.
const STALENESS: Duration = Duration::from_secs(2);
/// Users whose data is kept at hand.
const CACHED_USERS: usize = 50_000;

/// What the hub is configured with, as far as its rules go.
#[derive(Clone)]
pub struct Rules {
    /// Secrets that sign and verify tokens.
    pub keys: Keys,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// CreatorUp's API key; without one no service can call.
    pub service_key: Option<Arc<str>>,
    /// Rate limits.
    pub limits: limit::LimitRules,
    /// How long things are kept.
    pub retention: Retention,
    /// Where rows go before they are removed, if anywhere.
    pub archive: Option<PathBuf>,
    /// CreatorUp; without one nobody is pushed anywhere.
    pub creatorup: Option<Arc<dyn CreatorUp>>,
    /// Users that one batch of a sweep takes at most.
    pub sync_batch_size: u64,
    /// What webhooks are judged by.
    pub webhooks: webhook::WebhookRules,
    /// Encrypts the secrets of others.
    pub sealer: Arc<Sealer>,
    /// Judges addresses that others name.
    pub outward: Arc<dyn Outward>,
    /// Hosts where providers may be reached beside their own.
    pub provider_hosts: Vec<String>,
    /// Asks providers whether integrations work.
    pub providers: Arc<dyn Providers>,
    /// Where the hub is for those outside.
    pub public_url: PublicUrl,
    /// How webhooks are told.
    pub hooks: hook::HookRules,
    /// The DevOps module; without one nobody is told.
    pub devops: Option<devops::DevopsModule>,
}

/// The hub's domain: everything a door can ask for.
pub struct Hub {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) caches: Arc<Caches>,
    passwords: Passwords,
    tokens: TokenIssuer,
    service_key: Option<Arc<str>>,
    limits: Limits,
    creatorup: Option<Arc<dyn CreatorUp>>,
    sync_batch_size: u64,
    usage: Lane<ledger::UsageBatch>,
    accesses: Lane<user_sync::AccessBatch>,
    retention: Retention,
    archive: Option<PathBuf>,
    condition: alert::Condition,
    feed: activity::Feed,
    stopping: CancellationToken,
    webhooks: webhook::Webhooks,
    callbacks: callback::Callbacks,
    pub(crate) sealer: Arc<Sealer>,
    addresses: Addresses,
    providers: Arc<dyn Providers>,
    hooks: hook::Hooks,
    devops: Option<devops::DevopsModule>,
}

/// What is kept at hand between calls; see [`cache`] for when it is forgotten.
pub(crate) struct Caches {
    /// Users with their ended sessions.
    pub users: Cache<Uuid, Option<Arc<Known>>>,
    /// Users' memberships.
    pub memberships: Cache<Uuid, Option<Arc<Membership>>>,
    /// Users' sums of a month.
    pub usage: Cache<(Uuid, Month), Arc<MonthlyUsage>>,
    /// Every plan.
    pub plans: Cache<(), Arc<Vec<Plan>>>,
}

/// A user as authentication needs them.
pub(crate) struct Known {
    pub user: Arc<User>,
    pub ended_sessions: HashSet<Uuid>,
    /// Unix seconds of the last access that was posted to be written.
    pub accessed_at: AtomicI64,
}

impl Hub {
    /// A hub over an open store.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, rules: Rules) -> Hub {
        let caches = Arc::new(Caches {
            users: Cache::new(CACHED_USERS, STALENESS),
            memberships: Cache::new(CACHED_USERS, STALENESS),
            usage: Cache::new(CACHED_USERS, STALENESS),
            plans: Cache::new(1, STALENESS),
        });
        Hub {
            usage: store.lane(ledger::UsageBatch { caches: caches.clone() }),
            accesses: store.lane(user_sync::AccessBatch { caches: caches.clone() }),
            webhooks: webhook::Webhooks::new(&store, rules.webhooks),
            callbacks: callback::Callbacks::new(
                &store,
                rules.public_url,
                devops::DevopsLine { is_connected: rules.devops.is_some() },
            ),
            sealer: rules.sealer,
            addresses: Addresses::new(rules.outward, &rules.provider_hosts),
            providers: rules.providers,
            hooks: hook::Hooks::new(&store, rules.hooks),
            devops: rules.devops,
            tokens: TokenIssuer::new(rules.keys, rules.token_lifetime),
            passwords: Passwords::new(),
            service_key: rules.service_key,
            limits: Limits::new(rules.limits),
            retention: rules.retention,
            archive: rules.archive,
            condition: alert::Condition::default(),
            feed: activity::Feed::default(),
            stopping: CancellationToken::new(),
            creatorup: rules.creatorup,
            sync_batch_size: rules.sync_batch_size,
            store,
            clock,
            caches,
        }
    }

    /// This instant.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The clock all of the hub goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The rate limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Cancelled when the hub is about to stop: answers that stream end with it, so that nobody waits for them.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// The store, for health checks.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    async fn known(&self, id: Uuid) -> Result<Option<Arc<Known>>> {
        let (store, now) = (&self.store, self.now());
        self.caches
            .users
            .get_or_load(id, || async move {
                let Some(user) = storage::user::find(store.read(), id).await? else { return Ok(None) };
                let ended = storage::session::list_revoked(store.read(), id, now).await?;
                Ok(Some(Arc::new(Known {
                    user: Arc::new(user),
                    ended_sessions: ended.into_iter().collect(),
                    accessed_at: AtomicI64::new(0),
                })))
            })
            .await
    }

    pub(crate) async fn user(&self, id: Uuid) -> Result<Arc<User>> {
        Ok(self.known(id).await?.ok_or(Error::NotFound { what: "user" })?.user.clone())
    }

    pub(crate) async fn plans(&self) -> Result<Arc<Vec<Plan>>> {
        let store = &self.store;
        self.caches
            .plans
            .get_or_load((), || async move { Ok(Arc::new(storage::plan::list(store.read()).await?)) })
            .await
    }

    pub(crate) async fn membership(&self, user_id: Uuid) -> Result<Option<Arc<Membership>>> {
        let store = &self.store;
        self.caches
            .memberships
            .get_or_load(user_id, || async move {
                let found = storage::subscription::current(store.read(), &[user_id]).await?.remove(&user_id);
                let Some(subscription) = found else { return Ok(None) };
                let plans = storage::plan::list(store.read()).await?;
                let plan = plans.into_iter().find(|plan| plan.id == subscription.plan_id);
                let plan = plan.ok_or_else(|| Error::internal("a subscription has no plan"))?;
                Ok(Some(Arc::new(Membership { subscription, plan })))
            })
            .await
    }

    pub(crate) async fn monthly(&self, user_id: Uuid, month: Month) -> Result<Arc<MonthlyUsage>> {
        let (store, as_of) = (&self.store, self.now());
        self.caches
            .usage
            .get_or_load((user_id, month), || async move {
                let sums = storage::usage::monthly(store.read(), user_id, month).await?;
                Ok(Arc::new(MonthlyUsage { user_id, month, sums, as_of }))
            })
            .await
    }
}
