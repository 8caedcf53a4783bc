//! The kinds of job the hub has. The queue knows them by their words and rules alone.

use std::time::Duration;

use upbridge_service::model::job::{Kind, KindRule, KindSpec};

use super::words::words;

words! {
    /// What a job does. The order is that of the contract; how important each is, its rule says.
    JobKind {
        /// Applies a subscription that CreatorUp reported by webhook.
        SubscriptionSync = "subscription_sync",
        /// Pushes a user, their plan and subscription to CreatorUp.
        UserSync = "user_sync",
        /// Records usage that CreatorUp reported by webhook.
        UsageSync = "usage_sync",
        /// Finds users whose copy at CreatorUp is missing, wrong or old.
        UserSweep = "user_sweep",
        /// Removes what is past its retention.
        Cleanup = "cleanup",
        /// Does nothing; what benchmarks and drills enqueue.
        Probe = "probe",
        /// Tests the connection of an integration that was not tested for long.
        ConnectionTest = "connection_test",
        /// Tells a webhook what waits for it.
        WebhookDelivery = "webhook_delivery",
        /// Tells the DevOps module what happened.
        DevopsNotice = "devops_notice",
    }
}

const COUNT: usize = JobKind::ALL.len();

/// In the order of [`JobKind::ALL`].
static SPECS: [KindSpec; COUNT] = {
    let mut specs = [JobKind::Probe.spec(); COUNT];
    let mut place = 0;
    while place < COUNT {
        specs[place] = JobKind::ALL[place].spec();
        place += 1;
    }
    specs
};

/// What the hub's store is told of them, in the order of [`JobKind::ALL`].
pub static KINDS: [Kind; COUNT] = {
    let mut kinds = [Kind::new(&SPECS[0]); COUNT];
    let mut place = 0;
    while place < COUNT {
        kinds[place] = Kind::new(&SPECS[place]);
        place += 1;
    }
    kinds
};

impl JobKind {
    /// The rule of the kind. Subscriptions decide over access, so they go first.
    pub const fn rule(self) -> KindRule {
        const fn rule(priority: i32, seconds: u64, per_key: Option<u32>) -> KindRule {
            KindRule {
                priority,
                deadline: Duration::from_secs(seconds),
                per_key,
                leaves_a_slot: false,
                is_apart: false,
            }
        }
        match self {
            // One at a time per user, so that the newer never overtakes the older.
            JobKind::SubscriptionSync => rule(10, 60, Some(1)),
            JobKind::UserSync => KindRule { leaves_a_slot: true, ..rule(20, 120, Some(1)) },
            JobKind::UsageSync => rule(30, 60, None),
            JobKind::UserSweep | JobKind::Cleanup => rule(40, 600, Some(1)),
            JobKind::Probe => rule(50, 60, None),
            JobKind::ConnectionTest => KindRule { leaves_a_slot: true, ..rule(45, 60, Some(1)) },
            // One at a time, so that a module that hangs takes one place; as long as the longest call may take.
            JobKind::DevopsNotice => KindRule { leaves_a_slot: true, ..rule(45, 180, Some(1)) },
            // One at a time per webhook, which takes all that waits for it; how long that goes on is the job's to say.
            JobKind::WebhookDelivery => KindRule { is_apart: true, ..rule(20, 600, Some(1)) },
        }
    }

    const fn spec(self) -> KindSpec {
        KindSpec { word: self.as_str(), rule: self.rule() }
    }

    /// Which of the hub's kinds it is; `None` for what the hub never enqueues.
    pub fn of(kind: Kind) -> Option<JobKind> {
        JobKind::parse(kind.as_str())
    }
}

impl From<JobKind> for Kind {
    fn from(kind: JobKind) -> Kind {
        KINDS[kind.place()]
    }
}

impl PartialEq<JobKind> for Kind {
    fn eq(&self, other: &JobKind) -> bool {
        *self == Kind::from(*other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_knows_each_kind_by_its_own_word_and_rule() {
        for kind in JobKind::ALL {
            let known = Kind::from(*kind);
            assert_eq!((known.as_str(), known.rule()), (kind.as_str(), kind.rule()));
            assert_eq!((JobKind::of(known), Kind::parse(&KINDS, kind.as_str())), (Some(*kind), Some(known)));
        }
    }
}
