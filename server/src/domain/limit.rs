//! Rate limits, by principal first and by address only for callers without one, so that CreatorUp's single address
//! does not carry every user's limit.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Rate, RateLimiter};
use uuid::Uuid;

use crate::model::{Error, Principal, Reason, Result};

/// Tests of one integration's connection.
const CONNECTION_TESTS: Quota = Quota { calls: NonZeroU32::new(10).unwrap(), per: Duration::from_secs(60) };

/// Networks that are remembered as being over the limit of calls that prove nothing.
const SHUT_OUT: usize = 10_000;

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

impl Quota {
    fn doubled(self) -> Quota {
        Quota { calls: self.calls.saturating_mul(const { NonZeroU32::new(2).unwrap() }), ..self }
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
    /// Webhooks of a source whose signature is good, and callbacks of an integration that are proved. From one address
    /// twice as many are looked at.
    pub webhook: Option<Quota>,
}

/// The state of the limits on this hub.
pub struct Limits {
    anonymous: Option<Limiter<IpAddr>>,
    login_address: Option<Limiter<IpAddr>>,
    login_account: Option<Limiter<String>>,
    user: Option<Limiter<Uuid>>,
    webhook_address: Option<Limiter<IpAddr>>,
    webhook_source: Option<Limiter<&'static str>>,
    connection_test: Option<Limiter<Uuid>>,
    callback: Option<Limiter<Uuid>>,
    /// Until when the next proof from a network is not looked at, because too many before it were none.
    shut_out: quick_cache::sync::Cache<IpAddr, Instant>,
    clock: DefaultClock,
}

/// The address, or for IPv6 the network a single subscriber is given, who could use another address for each call.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        ip => ip,
    }
}

/// Lets a few of many through, and counts the others.
pub(super) struct Sampler {
    limiter: governor::DefaultDirectRateLimiter,
    passed_over: AtomicU64,
}

impl Sampler {
    /// `calls` in a span of time.
    pub(super) fn new(calls: u32, per: Duration) -> Sampler {
        let calls = NonZeroU32::new(calls).unwrap_or(NonZeroU32::MIN);
        let every = Rate::with_period(per / calls.get()).unwrap_or(Rate::per_second(calls));
        Sampler { limiter: RateLimiter::direct(every.allow_burst(calls)), passed_over: AtomicU64::new(0) }
    }

    /// How many were passed over since the last that was let through, when this one is.
    pub(super) fn take(&self) -> Option<u64> {
        match self.limiter.check() {
            Ok(()) => Some(self.passed_over.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.passed_over.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Lets a few of many through, and of those about one thing still fewer, so that none hides the others.
pub(super) struct FairSampler {
    all: Sampler,
    of_one: Option<Limiter<Option<Uuid>>>,
}

impl FairSampler {
    /// `calls` in a span of time, and `of_one` at most of those about one thing.
    pub(super) fn new(calls: u32, of_one: NonZeroU32, per: Duration) -> FairSampler {
        FairSampler { all: Sampler::new(calls, per), of_one: limiter(Some(Quota { calls: of_one, per })) }
    }

    /// How many were passed over since the last that was let through, when this one is. What is about nothing there is
    /// counts as about one thing.
    pub(super) fn take(&self, about: Option<Uuid>) -> Option<u64> {
        if self.of_one.as_ref().is_some_and(|limiter| limiter.check_key(&about).is_err()) {
            self.all.passed_over.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.all.take()
    }

    /// Forgets things that nothing was about lately.
    pub(super) fn prune(&self) {
        prune(&self.of_one);
    }
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
            webhook_address: limiter(rules.webhook.map(Quota::doubled)),
            webhook_source: limiter(rules.webhook),
            connection_test: limiter(Some(CONNECTION_TESTS)),
            callback: limiter(rules.webhook),
            shut_out: quick_cache::sync::Cache::new(SHUT_OUT),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a call of a principal.
    pub fn check(&self, principal: &Principal, ip: Option<IpAddr>) -> Result<()> {
        match (principal, ip) {
            (Principal::User(signed_in), _) => self.count(&self.user, &signed_in.user.id),
            (Principal::Anonymous, Some(ip)) => self.count(&self.anonymous, &network(ip)),
            // A webhook or a callback is counted when its proof is looked at.
            (Principal::Anonymous, None) => Ok(()),
            (Principal::Service | Principal::Webhook(_) | Principal::Provider(_), _) => Ok(()),
        }
    }

    /// Counts an attempt to sign in to an account.
    pub fn check_login(&self, ip: Option<IpAddr>, account: &str) -> Result<()> {
        if let Some(ip) = ip {
            self.count(&self.login_address, &network(ip))?;
        }
        self.count(&self.login_account, &account.to_owned())
    }

    /// Counts a webhook before its signature is looked at: it costs the hub work, whoever it is from. Only what is
    /// proved counts against its source, or anyone could use up the limit of another.
    pub fn check_webhook_address(&self, ip: Option<IpAddr>) -> Result<()> {
        ip.map_or(Ok(()), |ip| self.count(&self.webhook_address, &network(ip)))
    }

    /// Counts a webhook of a source whose signature is good.
    pub fn check_webhook_source(&self, source: &'static str) -> Result<()> {
        self.count(&self.webhook_source, &source)
    }

    /// Counts a test of an integration's connection. Not configurable: providers lock accounts that are tried too often.
    pub fn check_connection_test(&self, integration_id: Uuid) -> Result<()> {
        self.count(&self.connection_test, &integration_id)
    }

    /// Counts a callback of an integration that is proved.
    pub fn check_callback(&self, integration_id: Uuid) -> Result<()> {
        self.count(&self.callback, &integration_id)
    }

    /// Refuses an address that has used up what it may call without a credential by proofs that were none, before the
    /// hub does any work for its next one. Counts nothing.
    pub fn check_unproved(&self, ip: Option<IpAddr>) -> Result<()> {
        let Some(until) = ip.and_then(|ip| self.shut_out.get(&network(ip))) else { return Ok(()) };
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Ok(()),
            wait => Err(limited(wait)),
        }
    }

    /// Counts a proof that was none, like any call without a credential.
    pub fn count_unproved(&self, ip: Option<IpAddr>) -> Result<()> {
        let counted = self.check(&Principal::Anonymous, ip);
        if let (Err(Error::Exhausted { retry_after: Some(wait), .. }), Some(ip)) = (&counted, ip) {
            self.shut_out.insert(network(ip), Instant::now() + *wait);
        }
        counted
    }

    /// Forgets keys that have used nothing lately.
    pub fn prune(&self) {
        prune(&self.anonymous);
        prune(&self.login_address);
        prune(&self.login_account);
        prune(&self.user);
        prune(&self.webhook_address);
        prune(&self.connection_test);
        prune(&self.callback);
    }

    fn count<K: Clone + Eq + Hash>(&self, limiter: &Option<Limiter<K>>, key: &K) -> Result<()> {
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check_key(key).map_err(|not_until| limited(not_until.wait_time_from(self.clock.now())))
    }
}

fn limited(wait: Duration) -> Error {
    Error::Exhausted {
        reason: Reason::RateLimited,
        message: "too many calls; slow down".to_owned(),
        retry_after: Some(wait),
        metadata: Default::default(),
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
    fn a_sampler_lets_a_few_through_and_counts_the_others() {
        let sampler = Sampler::new(2, Duration::from_secs(3600));
        let taken: Vec<Option<u64>> = (0..5).map(|_| sampler.take()).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None]);
        assert_eq!(sampler.passed_over.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_fair_sampler_lets_nobody_hide_the_others() {
        let sampler = FairSampler::new(5, NonZeroU32::new(2).unwrap(), Duration::from_secs(3600));
        let (one, other) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        let taken = |about: Option<Uuid>| (0..10).filter_map(|_| sampler.take(about)).collect::<Vec<_>>();
        assert_eq!(taken(one), [0, 0]);
        assert_eq!(taken(other), [8, 0]);
        assert_eq!(taken(None), [8], "and no more than so many in all");
    }

    #[test]
    fn the_addresses_of_one_ipv6_subscriber_are_one() {
        let network_of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network_of("192.0.2.1"), "192.0.2.1");
        assert_eq!(network_of("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn one_ipv6_subscriber_has_one_limit_without_a_credential_and_one_to_sign_in() {
        let quota = Quota::parse("1/hour").unwrap();
        let limits = Limits::new(LimitRules { anonymous: quota, login: quota, ..Default::default() });
        let address = |text: &str| Some(text.parse().unwrap());
        let (one, same, other) = (address("2001:db8:1:2::1"), address("2001:db8:1:2:9::9"), address("2001:db8:1:3::1"));
        limits.check(&Principal::Anonymous, one).unwrap();
        assert!(limits.check(&Principal::Anonymous, same).is_err());
        limits.check(&Principal::Anonymous, other).unwrap();
        limits.check_login(one, "a@b.c").unwrap();
        assert!(limits.check_login(same, "d@e.f").is_err());
        limits.check_login(other, "g@h.i").unwrap();
    }

    #[test]
    fn who_has_proved_nothing_too_often_is_not_looked_at_until_another_may_be_counted() {
        let limits = Limits::new(LimitRules { anonymous: Quota::parse("1/hour").unwrap(), ..Default::default() });
        let (one, same) = (Some("2001:db8::1".parse().unwrap()), Some("2001:db8::2".parse().unwrap()));
        limits.count_unproved(one).unwrap();
        limits.check_unproved(one).unwrap();
        assert!(limits.count_unproved(one).is_err());
        let Err(Error::Exhausted { retry_after: Some(wait), .. }) = limits.check_unproved(same) else {
            panic!("it was looked at")
        };
        assert!(wait > Duration::from_secs(3_500), "{wait:?}");
        limits.check_unproved(Some(IpAddr::from([192, 0, 2, 1]))).unwrap();
        limits.check_unproved(None).unwrap();
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
