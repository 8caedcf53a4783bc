//! The first door: message → command → hub → message, a file per service.
//!
//! A handler opens the call, converts, asks the hub, converts back; it holds no rule. Who may call was decided by the
//! [`gate`](upbridge_service::grpc::gate) and what a field may hold by the codec, before the handler runs.

mod analytics;
mod auth;
mod callback;
mod convert;
mod integration;
mod integration_webhook;
mod membership;
mod partner;
mod queue;
mod reception;
mod usage;
mod user;
mod user_sync;
mod webhook;

use std::sync::Arc;

use tonic::Status;
use tonic::service::RoutesBuilder;
use tonic_health::server::HealthReporter;
use upbridge_proto::UPBRIDGE;
use upbridge_proto::v1::analytics_service_server::AnalyticsServiceServer;
use upbridge_proto::v1::auth_service_server::AuthServiceServer;
use upbridge_proto::v1::callback_service_server::CallbackServiceServer;
use upbridge_proto::v1::integration_service_server::IntegrationServiceServer;
use upbridge_proto::v1::integration_webhook_service_server::IntegrationWebhookServiceServer;
use upbridge_proto::v1::membership_service_server::MembershipServiceServer;
use upbridge_proto::v1::partner_service_server::PartnerServiceServer;
use upbridge_proto::v1::queue_service_server::QueueServiceServer;
use upbridge_proto::v1::usage_service_server::UsageServiceServer;
use upbridge_proto::v1::user_service_server::UserServiceServer;
use upbridge_proto::v1::user_sync_service_server::UserSyncServiceServer;
use upbridge_proto::v1::webhook_service_server::WebhookServiceServer;

pub use self::auth::SESSION_COOKIE;
use crate::domain::Hub;
use crate::model::Error;

/// The hub's error as a gRPC status.
pub fn status(error: Error) -> Status {
    upbridge_service::grpc::status(&UPBRIDGE, error)
}

/// The handlers of every service.
#[derive(Clone)]
struct Door {
    hub: Arc<Hub>,
    /// Whether browsers reach the hub over TLS, so that the session cookie may be bound to it.
    is_tls: bool,
}

/// Every service with its name in the health service.
pub const SERVICES: &[&str] = &[
    "upbridge.v1.AnalyticsService",
    "upbridge.v1.AuthService",
    "upbridge.v1.PartnerService",
    "upbridge.v1.IntegrationService",
    "upbridge.v1.IntegrationWebhookService",
    "upbridge.v1.CallbackService",
    "upbridge.v1.MembershipService",
    "upbridge.v1.QueueService",
    "upbridge.v1.UsageService",
    "upbridge.v1.UserService",
    "upbridge.v1.UserSyncService",
    "upbridge.v1.WebhookService",
];

/// What serves gRPC, with health and, when wanted, reflection.
pub fn routes(
    hub: &Arc<Hub>,
    message_limit: usize,
    reflection: bool,
    is_tls: bool,
) -> anyhow::Result<(axum::Router, HealthReporter)> {
    let door = Door { hub: hub.clone(), is_tls };
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
        AnalyticsServiceServer,
        AuthServiceServer,
        PartnerServiceServer,
        IntegrationServiceServer,
        IntegrationWebhookServiceServer,
        CallbackServiceServer,
        MembershipServiceServer,
        QueueServiceServer,
        UsageServiceServer,
        UserServiceServer,
        UserSyncServiceServer,
        WebhookServiceServer
    );
    routes.add_service(health);
    if reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(UPBRIDGE.descriptor_set)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Python's client and older grpcurl ask in the words of the draft.
        routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    }
    Ok((routes.routes().into_axum_router(), reporter))
}
