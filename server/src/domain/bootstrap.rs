//! What an empty database is given: the plans of the product, and the first administrator.

use std::net::IpAddr;

use rand::Rng;
use rand::distr::Alphanumeric;

use super::Hub;
use crate::model::membership::{Plan, PlanFeature, Tier};
use crate::model::user::{Role, User, UserChange};
use crate::model::{Ctx, Email, Error, Principal, Result};
use crate::storage;

/// Characters of a generated password: 24 of 62 hold 142 bits.
const PASSWORD_LENGTH: usize = 24;

/// An administrator just made.
#[derive(Clone, Debug)]
pub struct FirstAdmin {
    /// E-mail address.
    pub email: String,
    /// The generated password, which is shown once and kept nowhere; absent when it was given.
    pub generated_password: Option<String>,
}

impl Hub {
    /// Adds the product's plans when there are none, and says how many were added.
    pub async fn seed_plans(&self) -> Result<usize> {
        let now = self.now();
        let caches = self.caches.clone();
        let seeded = self
            .store
            .write((now, caches), |tx, (now, caches)| {
                Box::pin(async move {
                    if !storage::plan::list(tx.reader()).await?.is_empty() {
                        return Ok(0);
                    }
                    let plans = product_plans(*now);
                    for plan in &plans {
                        storage::plan::insert(tx, plan).await?;
                    }
                    let caches = caches.clone();
                    tx.after_commit(move || caches.plans.forget_all());
                    Ok(plans.len())
                })
            })
            .await;
        match seeded {
            // Another hub that started at the same moment was first.
            Err(Error::Taken { .. }) => Ok(0),
            seeded => seeded,
        }
    }

    /// Makes the first administrator when there is no user at all.
    pub async fn seed_admin(&self, email: Option<&str>, password: Option<&str>) -> Result<Option<FirstAdmin>> {
        if storage::user::any(self.store.read()).await? {
            return Ok(None);
        }
        match self.create_admin(email.unwrap_or("admin@upbridge.local"), password).await {
            // Another hub that started at the same moment was first.
            Err(Error::Taken { .. }) => Ok(None),
            made => made.map(Some),
        }
    }

    /// Makes an administrator, with a generated password when none is given.
    pub async fn create_admin(&self, email: &str, password: Option<&str>) -> Result<FirstAdmin> {
        let email = Email::parse(email, "email")?;
        let (password, generated) = password_or_generated(password);
        let hash = self.hash_password(password).await?;
        let user = User { name: "Administrator".to_owned(), ..User::new(email.to_string(), Role::Admin, self.now()) };
        self.add_user(user, hash, None, None).await?;
        Ok(FirstAdmin { email: email.to_string(), generated_password: generated })
    }

    /// Gives a user a new password, generated when none is given, and signs them out.
    pub async fn reset_password(&self, email: &str, password: Option<&str>) -> Result<FirstAdmin> {
        let email = Email::parse(email, "email")?;
        let found = storage::user::find_by_email(self.store.read(), email.as_str()).await?;
        let (user, _) = found.ok_or(Error::NotFound { what: "user" })?;
        let (password, generated) = password_or_generated(password);
        self.update_user(&internal(), user.id, UserChange::default(), Some(password)).await?;
        Ok(FirstAdmin { email: email.to_string(), generated_password: generated })
    }
}

/// Work the hub starts itself.
pub(super) fn internal() -> Ctx {
    Ctx { principal: Principal::Service, request_id: "internal".into(), ip: None::<IpAddr>, user_agent: "".into() }
}

fn password_or_generated(password: Option<&str>) -> (String, Option<String>) {
    match password {
        Some(password) => (password.to_owned(), None),
        None => {
            let generated: String =
                rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect();
            (generated.clone(), Some(generated))
        }
    }
}

/// The plans of the product, prices in whole rupiah per month.
fn product_plans(now: crate::model::Instant) -> Vec<Plan> {
    let plan = |name: &str, tier, price, features: &[(&str, Option<i64>)]| Plan {
        id: 0,
        name: name.to_owned(),
        tier,
        price,
        currency: "IDR".to_owned(),
        features: features
            .iter()
            .map(|(feature, monthly_limit)| PlanFeature {
                feature: (*feature).to_owned(),
                monthly_limit: *monthly_limit,
            })
            .collect(),
        is_active: true,
        created_at: now,
        updated_at: now,
    };
    vec![
        plan("Starter", Tier::Membership, 99_000, &[("local_rendering", Some(100))]),
        plan("Pro", Tier::Reseller, 299_000, &[("local_rendering", None), ("cloud_rendering", Some(100))]),
        plan("Business", Tier::ProReseller, 999_000, &[("local_rendering", None), ("cloud_rendering", None)]),
    ]
}
