//! The contract of Upbridge: the messages and stubs generated from `proto/`, and what else is read out of it.
//!
//! - [`v1`] holds the messages, the client stubs and the server traits of package `upbridge.v1`.
//! - [`schema`] is the contract as data: messages, validation rules, HTTP bindings and access policy.
//! - [`validate`] enforces the `buf.validate` rules on encoded messages; [`codec`] calls it for every request.
//!
//! The `.proto` files are the single source. Nothing here adds a rule of its own.

pub mod codec;
pub mod schema;
pub mod validate;

/// Package `upbridge.v1`.
#[allow(clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("upbridge.v1");
}

/// The whole contract as an encoded `google.protobuf.FileDescriptorSet`, comments and options included.
pub const DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("upbridge_descriptor");

/// The `domain` of every `google.rpc.ErrorInfo` the hub sends.
pub const ERROR_DOMAIN: &str = "upbridge";
