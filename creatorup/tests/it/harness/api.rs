//! The generated client of CreatorUp, with a credential on every call.

use std::net::SocketAddr;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use upbridge_proto::creatorup::v1::batch_service_client::BatchServiceClient;
use upbridge_proto::creatorup::v1::health_service_client::HealthServiceClient;
use upbridge_proto::creatorup::v1::membership_service_client::MembershipServiceClient;
use upbridge_proto::creatorup::v1::usage_service_client::UsageServiceClient;
use upbridge_proto::creatorup::v1::user_sync_service_client::UserSyncServiceClient;
use upbridge_proto::creatorup::v1::verify_service_client::VerifyServiceClient;

type Line = InterceptedService<Channel, Credential>;

/// A header that goes with every call.
#[derive(Clone)]
pub struct Credential(Option<(AsciiMetadataKey, AsciiMetadataValue)>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((name, value)) = &self.0 {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

/// Every service of CreatorUp, for one caller.
#[derive(Clone)]
pub struct Api(Line);

impl Api {
    pub async fn connect(address: SocketAddr, credential: Option<(&'static str, String)>) -> Api {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.expect("a connection");
        let credential = credential.map(|(name, value)| (AsciiMetadataKey::from_static(name), value.parse().unwrap()));
        Api(InterceptedService::new(channel, Credential(credential)))
    }

    pub fn batches(&self) -> BatchServiceClient<Line> {
        BatchServiceClient::new(self.0.clone())
    }

    pub fn health(&self) -> HealthServiceClient<Line> {
        HealthServiceClient::new(self.0.clone())
    }

    pub fn membership(&self) -> MembershipServiceClient<Line> {
        MembershipServiceClient::new(self.0.clone())
    }

    pub fn usage(&self) -> UsageServiceClient<Line> {
        UsageServiceClient::new(self.0.clone())
    }

    pub fn users(&self) -> UserSyncServiceClient<Line> {
        UserSyncServiceClient::new(self.0.clone())
    }

    pub fn verify(&self) -> VerifyServiceClient<Line> {
        VerifyServiceClient::new(self.0.clone())
    }
}
