//! What every server of the house stands on.
//!
//! Two servers keep the two halves of one agreement: the hub, and the reference CreatorUp. They differ in their nouns and
//! not in how a call comes in, how a write is made or how work is remembered for later. What they share is here, in rooms
//! of the names that the servers use:
//!
//! - [`front`] takes every request of the one port and sends it to gRPC or HTTP; [`serve`] holds the port.
//! - [`grpc`] is the gate that every call passes; [`http`] is JSON for every binding of a contract, through the same gate.
//! - [`storage`] is the store with its one writer and the queue's tables; [`queue`] works what is remembered for later.
//! - [`delivery`] calls others, within bounds.
//! - [`model`] is what all of these are about; [`config`], [`telemetry`], [`access_log`] and [`health`] are what the
//!   process is told and what it tells.
//!
//! The essays of the store and the queue call a process that works on a database *a hub*, whichever server it is.
//!
//! What differs comes in as data or as a trait, and nowhere else: the contract
//! ([`Contract`](upbridge_proto::Contract), [`http::Api`]), who a caller is ([`grpc::Reception`]), the kinds of job
//! ([`model::job::Kind`]) and what they do ([`queue::Handler`]), the schema and what stands and falls with jobs
//! ([`storage::Setup`]), what else is looked at for health ([`health::Checkup`]).

pub mod access_log;
pub mod config;
pub mod delivery;
pub mod front;
pub mod grpc;
pub mod health;
pub mod http;
pub mod model;
pub mod queue;
pub mod serve;
pub mod storage;
pub mod telemetry;
