//! The outward door: the only room that calls others.
//!
//! The cast: [`Guard`] knows which addresses may be called, [`Outbound`] calls them. What is said to whom is each
//! server's own.
//!
//! Guaranteed of every call: it ends within its timeout, the answer's last byte included; it goes to the address that
//! was named and nowhere else (no redirect is followed, no proxy of the environment is used, certificates are
//! verified); no more of an answer than its cap is read, and none of it is asked for compressed. What a caller of the
//! server can choose goes through the guard, which judges the very addresses that are connected to, so a name that
//! resolves to another address a moment later gains nothing. What the operator configured is trusted.
//!
//! Not guaranteed: that a call which failed was not received. So whatever is sent can be sent again.

mod guard;
mod outbound;
mod target;

pub use guard::{Guard, Lookup, Networks};
pub use outbound::{Answer, Call, MOST_BYTES, Outbound, Reading, Trust};
pub use reqwest::Url;
pub use target::BaseUrl;
