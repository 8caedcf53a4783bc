//! The reference: a tonic server that does nothing but answer.
//!
//! Its one method has the path and the messages of VerifyToken, so that the bytes on the wire are those of the
//! hub. It speaks through the contract's own codec, which checks the request's single rule; that costs well
//! under a microsecond and makes the reference a little slower, and so the ratios a little kinder, than
//! `tonic_prost` alone would.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use axum::serve::ListenerExt as _;
use prost_types::Timestamp;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use upbridge_client::v1::user_sync_service_server::{UserSyncService, UserSyncServiceServer};
use upbridge_client::v1::*;

/// The first argument that makes this program the reference; the second is its port.
pub const MODE: &str = "bare-server";
/// The first argument that makes this program the HTTP reference; the second is its port.
pub const HTTP_MODE: &str = "bare-http-server";
/// The user in every answer.
pub const USER_ID: &str = "01935a2e-7f1b-7c44-9c0e-5d1f6f0a9b11";

/// Serves until killed.
pub async fn serve(port: u16) -> Result<()> {
    let server = Server::builder().tcp_nodelay(true).add_service(UserSyncServiceServer::new(Bare(answer())));
    Ok(server.serve(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?)
}

/// Serves HTTP until killed: reads a body and answers as the hub does to a webhook it takes.
pub async fn serve_http(port: u16) -> Result<()> {
    let answer =
        serde_json::json!({"success": true, "data": {"received": true, "event_id": USER_ID, "duplicate": false}});
    let answer = bytes::Bytes::from(answer.to_string());
    let handler = axum::routing::post(move |body: bytes::Bytes| {
        let answer = answer.clone();
        async move {
            std::hint::black_box(&body);
            ([(axum::http::header::CONTENT_TYPE, "application/json")], answer)
        }
    });
    let app = axum::Router::new().route("/{*path}", handler);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), app).await?)
}

struct Bare(VerifyTokenResponse);

#[tonic::async_trait]
impl UserSyncService for Bare {
    async fn verify_token(&self, _: Request<VerifyTokenRequest>) -> Result<Response<VerifyTokenResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn get_profile(&self, _: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Status> {
        Err(absent())
    }

    async fn check_access(&self, _: Request<CheckAccessRequest>) -> Result<Response<CheckAccessResponse>, Status> {
        Err(absent())
    }

    async fn sync_user(&self, _: Request<SyncUserRequest>) -> Result<Response<SyncUserResponse>, Status> {
        Err(absent())
    }

    async fn get_sync_status(
        &self,
        _: Request<GetSyncStatusRequest>,
    ) -> Result<Response<GetSyncStatusResponse>, Status> {
        Err(absent())
    }
}

fn absent() -> Status {
    Status::unimplemented("the reference has one method")
}

/// What the hub answers to VerifyToken for a subscriber, in every field that is set.
fn answer() -> VerifyTokenResponse {
    let at = |seconds| Some(Timestamp { seconds, nanos: 123_456_000 });
    VerifyTokenResponse {
        valid: true,
        user: Some(User {
            id: USER_ID.to_owned(),
            email: "bench-3f2a9c-17@upbridge.example".to_owned(),
            name: "Bench user 17".to_owned(),
            role: Role::Member.into(),
            status: UserStatus::Active.into(),
            sync_status: SyncStatus::Pending.into(),
            created_at: at(1_763_650_000),
            updated_at: at(1_763_650_060),
            ..Default::default()
        }),
        subscription: Some(Subscription {
            id: "01935a2e-8a3c-7d10-8f52-0b9f4c7d2e33".to_owned(),
            user_id: USER_ID.to_owned(),
            plan_id: 2,
            plan: "Pro".to_owned(),
            tier: Tier::Reseller.into(),
            status: SubscriptionStatus::Active.into(),
            start_date: at(1_763_650_000),
            end_date: at(1_766_242_000),
            source: "digiup".to_owned(),
            created_at: at(1_763_650_000),
            updated_at: at(1_763_650_000),
            ..Default::default()
        }),
        has_access: true,
        reason: AccessReason::Granted.into(),
        token_expires_at: at(1_763_736_400),
    }
}
