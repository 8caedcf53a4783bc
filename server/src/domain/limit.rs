//! Rate limits, by principal first and by address only for callers without one, so that CreatorUp's single address
//! does not carry every user's limit.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Rate, RateLimiter};
use uuid::Uuid;

use crate::model::{Error, Principal, Reason, Result};

/// `n` calls in a span of time; the whole of it may be used at once, and refills evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Calls.
    pub calls: NonZeroU32,
    /// The span.
    pub per: Duration,
}

impl Quota {
    /// Reads `<n>/second|minute|hour`, or `off` as `None`.
    pub fn parse(text: &str) -> Option<Option<Quota>> {
        if text == "off" {
            return Some(None);
        }
        let (calls, span) = text.split_once('/')?;
        let seconds = match span {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            _ => return None,
        };
        Some(Some(Quota { calls: calls.parse().ok()?, per: Duration::from_secs(seconds) }))
    }
}

/// The limits; `None` is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitRules {
    /// Calls without a credential, by address.
    pub anonymous: Option<Quota>,
    /// Attempts to sign in, by address and by account.
    pub login: Option<Quota>,
    /// Calls of a user.
    pub user: Option<Quota>,
}

/// The state of the limits on this hub.
pub struct Limits {
    anonymous: Option<Limiter<IpAddr>>,
    login_address: Option<Limiter<IpAddr>>,
    login_account: Option<Limiter<String>>,
    user: Option<Limiter<Uuid>>,
    clock: DefaultClock,
}

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

fn limiter<K: Clone + Eq + Hash>(quota: Option<Quota>) -> Option<Limiter<K>> {
    let quota = quota?;
    // One call every per/calls, with all of them as the burst. Finer than a nanosecond is no limit at all.
    let every = (quota.per / quota.calls.get()).max(Duration::from_nanos(1));
    Some(RateLimiter::dashmap(Rate::with_period(every)?.allow_burst(quota.calls)))
}

impl Limits {
    pub(super) fn new(rules: LimitRules) -> Limits {
        Limits {
            anonymous: limiter(rules.anonymous),
            login_address: limiter(rules.login),
            login_account: limiter(rules.login),
            user: limiter(rules.user),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a call of a principal.
    pub fn check(&self, principal: &Principal, ip: Option<IpAddr>) -> Result<()> {
        match (principal, ip) {
            (Principal::User(signed_in), _) => self.count(&self.user, &signed_in.user.id),
            (Principal::Anonymous, Some(ip)) => self.count(&self.anonymous, &ip),
            (Principal::Anonymous, None) | (Principal::Service, _) => Ok(()),
        }
    }

    /// Counts an attempt to sign in to an account.
    pub fn check_login(&self, ip: Option<IpAddr>, account: &str) -> Result<()> {
        if let Some(ip) = ip {
            self.count(&self.login_address, &ip)?;
        }
        self.count(&self.login_account, &account.to_owned())
    }

    /// Forgets keys that have used nothing lately.
    pub fn prune(&self) {
        prune(&self.anonymous);
        prune(&self.login_address);
        prune(&self.login_account);
        prune(&self.user);
    }

    fn count<K: Clone + Eq + Hash>(&self, limiter: &Option<Limiter<K>>, key: &K) -> Result<()> {
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check_key(key).map_err(|not_until| Error::Exhausted {
            reason: Reason::RateLimited,
            message: "too many calls; slow down".to_owned(),
            retry_after: Some(not_until.wait_time_from(self.clock.now())),
            metadata: Default::default(),
        })
    }
}

fn prune<K: Clone + Eq + Hash>(limiter: &Option<Limiter<K>>) {
    if let Some(limiter) = limiter {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_it_is_documented() {
        let calls =
            |text: &str| Quota::parse(text).map(|quota| quota.map(|quota| (quota.calls.get(), quota.per.as_secs())));
        assert_eq!(calls("1000/hour"), Some(Some((1000, 3600))));
        assert_eq!(calls("20/minute"), Some(Some((20, 60))));
        assert_eq!(calls("off"), Some(None));
        for bad in ["", "0/hour", "-1/hour", "10", "10/day", "1.5/hour", "hour"] {
            assert_eq!(calls(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_call_after_the_last_is_told_when_to_come_back() {
        let limits = Limits::new(LimitRules { login: Quota::parse("3/minute").unwrap(), ..Default::default() });
        let ip = Some(IpAddr::from([127, 0, 0, 1]));
        for _ in 0..3 {
            limits.check_login(ip, "a@b.c").unwrap();
        }
        let Err(Error::Exhausted { retry_after: Some(wait), .. }) = limits.check_login(ip, "a@b.c") else {
            panic!("the fourth was allowed")
        };
        assert!(wait > Duration::from_secs(10) && wait <= Duration::from_secs(20), "{wait:?}");
        assert!(limits.check_login(Some(IpAddr::from([127, 0, 0, 2])), "a@b.c").is_err(), "the account is limited too");
    }
}
