//! What each figure has to reach. One place, so that a target is changed knowingly.

/// A bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The figure must not be smaller.
    AtLeast(f64),
    /// The figure must not be larger.
    AtMost(f64),
    /// The figure is only shown.
    None,
}

impl Target {
    /// Whether the figure is good enough; `None` when nothing is asked of it.
    pub fn met(self, figure: f64) -> Option<bool> {
        match self {
            Target::AtLeast(least) => Some(figure >= least),
            Target::AtMost(most) => Some(figure <= most),
            Target::None => None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtLeast(least) => write!(formatter, "≥ {least}"),
            Target::AtMost(most) => write!(formatter, "≤ {most}"),
            Target::None => formatter.write_str("–"),
        }
    }
}

/// A signature, a cache look-up and a policy decision on top of the bare call.
pub const VERIFY_TOKEN: Target = Target::AtLeast(0.7);
/// As VerifyToken, with the month's usage read from a cache.
pub const CHECK_FEATURE_ACCESS: Target = Target::AtLeast(0.7);
/// Every report is on disk before it is answered; a group of 64 callers shares the write.
pub const RECORD_USAGE: Target = Target::AtLeast(0.35);
/// The same on PostgreSQL, whose own processes share the machine.
pub const RECORD_USAGE_POSTGRES: Target = Target::AtLeast(0.25);
/// Identity, quota, totals and the sync event of each report, beside the insert that the bare loop does.
pub const RECORD_USAGE_STREAM: Target = Target::AtLeast(0.5);
/// JSON instead of protobuf, HTTP/1.1 instead of HTTP/2.
pub const HTTP: Target = Target::AtLeast(0.5);
/// Signature, dedupe, log, event and job are on disk before the sender is answered.
pub const WEBHOOK: Target = Target::AtLeast(0.3);
/// A month's totals are kept, not added up: a hundred times the rows may cost noise, not time.
pub const MONTHLY_USAGE: Target = Target::AtMost(1.3);
/// Analytics answers from running counts: a hundred times the history may cost noise, not time.
pub const ANALYTICS: Target = Target::AtMost(1.3);
/// Health and logs of an integration answer from running counts and by index, alike.
pub const INTEGRATIONS: Target = Target::AtMost(1.3);
/// Half the answers of analytics over the long history, in milliseconds.
pub const ANALYTICS_MS: Target = Target::AtMost(10.0);
/// Resident memory of a hub that does nothing, in MiB.
pub const IDLE_MEMORY_MIB: Target = Target::AtMost(40.0);
/// From the start of the process to its first answer, in milliseconds.
pub const COLD_START_MS: Target = Target::AtMost(300.0);
/// Jobs per second from the committed enqueue to the committed completion, with 64 and with 512 producers.
pub const QUEUE: [Target; 2] = [Target::AtLeast(15_000.0), Target::AtLeast(25_000.0)];
/// The same on PostgreSQL.
pub const QUEUE_POSTGRES: [Target; 2] = [Target::AtLeast(12_000.0), Target::AtLeast(20_000.0)];
/// From the answer of an enqueue to its handler, on an idle hub, in milliseconds: one more commit.
pub const IDLE_PICKUP_MS: Target = Target::AtMost(5.0);
/// What waiting for work may cost.
pub const IDLE_CPU_PERCENT: Target = Target::AtMost(1.0);
/// A claim is a walk down an index: a thousand times the backlog may cost noise, not time.
pub const CLAIM: Target = Target::AtMost(2.0);
/// Ten thousand orphans, in seconds.
pub const RESCUE_S: Target = Target::AtMost(5.0);
/// Webhook deliveries per second with 64 at once, each signed, sent, answered and recorded.
pub const HOOK_DELIVERIES: Target = Target::AtLeast(3_000.0);
/// From the commit of an event to its receipt, in milliseconds.
pub const HOOK_P95_MS: Target = Target::AtMost(50.0);
/// What a dead receiver may cost the others.
pub const HOOK_NEIGHBOUR: Target = Target::AtMost(1.2);
