//! The contracts of Upbridge: the messages and stubs generated from `proto/`, and what else is read out of it.
//!
//! - [`v1`] holds the messages, the client stubs and the server traits of package `upbridge.v1`, the hub's.
//! - [`creatorup::v1`] holds those of package `creatorup.v1`, the other side's.
//! - [`contract`] says what is whose: a server offers one contract, and everything it shows is read from that one.
//! - [`schema`] is all of it as data: messages, validation rules, HTTP bindings and access policy.
//! - [`validate`] enforces the `buf.validate` rules on encoded messages; [`codec`] calls it for every request.
//!
//! The `.proto` files are the single source. Nothing here adds a rule of its own.

pub mod codec;
pub mod contract;
pub mod schema;
pub mod validate;

/// Package `upbridge.v1`.
#[allow(clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("upbridge.v1");
}

/// The contract of CreatorUp, which keeps the other half of every agreement.
pub mod creatorup {
    /// Package `creatorup.v1`.
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("creatorup.v1");
    }
}

/// Where generated code of one package looks for what it shares with the other.
#[doc(hidden)]
pub mod upbridge {
    pub use crate::v1;
}

pub use contract::{CREATORUP, Contract, UPBRIDGE};
