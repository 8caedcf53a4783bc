//! The door: message → command → CreatorUp → message, a file per service. A handler opens the call, converts, asks the
//! domain, converts back; it holds no rule. Who may call was decided by the gate and what a field may hold by the codec,
//! before the handler runs; over HTTP the same handlers are called.

mod batch;
pub(crate) mod convert;
mod health;
mod membership;
mod reception;
mod usage;
mod user_sync;
mod verify;

use std::sync::Arc;

use tonic::service::RoutesBuilder;
use tonic::{Request, Status};
use tonic_health::server::HealthReporter;
use upbridge_proto::CREATORUP;
use upbridge_proto::creatorup::v1::batch_service_server::BatchServiceServer;
use upbridge_proto::creatorup::v1::health_service_server::HealthServiceServer;
use upbridge_proto::creatorup::v1::membership_service_server::MembershipServiceServer;
use upbridge_proto::creatorup::v1::usage_service_server::UsageServiceServer;
use upbridge_proto::creatorup::v1::user_sync_service_server::UserSyncServiceServer;
use upbridge_proto::creatorup::v1::verify_service_server::VerifyServiceServer;

use crate::domain::CreatorUp;
use crate::model::{Error, Result};
pub use reception::{Caller, Front};

/// The handlers of every service.
#[derive(Clone)]
struct Door {
    creatorup: Arc<CreatorUp>,
}

/// Every service with its name in the health service.
pub const SERVICES: &[&str] = &[
    "creatorup.v1.BatchService",
    "creatorup.v1.HealthService",
    "creatorup.v1.MembershipService",
    "creatorup.v1.UsageService",
    "creatorup.v1.UserSyncService",
    "creatorup.v1.VerifyService",
];

/// The error as a status in CreatorUp's name.
pub fn status(error: Error) -> Status {
    upbridge_service::grpc::status(&CREATORUP, error)
}

/// Takes a call apart: who asks, and what.
fn open<T>(mut request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = request.extensions_mut().remove::<Caller>();
    let caller = caller.ok_or_else(|| status(Error::internal("a call did not pass the gate")))?;
    Ok((caller, request.into_inner()))
}

/// What serves gRPC, with health and, when wanted, reflection.
pub fn routes(
    creatorup: &Arc<CreatorUp>,
    message_limit: usize,
    reflection: bool,
) -> anyhow::Result<(axum::Router, HealthReporter)> {
    let door = Door { creatorup: creatorup.clone() };
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = RoutesBuilder::default();
    macro_rules! serve {
        ($($server:ident),+) => {
            $(routes.add_service(
                $server::new(door.clone())
                    .max_decoding_message_size(message_limit)
                    .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
                    .send_compressed(tonic::codec::CompressionEncoding::Gzip),
            );)+
        };
    }
    serve!(
        BatchServiceServer,
        HealthServiceServer,
        MembershipServiceServer,
        UsageServiceServer,
        UserSyncServiceServer,
        VerifyServiceServer
    );
    routes.add_service(health);
    if reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(CREATORUP.descriptor_set)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    }
    Ok((routes.routes().into_axum_router(), reporter))
}
