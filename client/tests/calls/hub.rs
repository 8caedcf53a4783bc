//! A hub that says what a test tells it to, on a port of its own.

use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use upbridge_client::v1::membership_service_server::{MembershipService, MembershipServiceServer};
use upbridge_client::v1::usage_service_server::{UsageService, UsageServiceServer};
use upbridge_client::v1::*;

/// What the hub does with a call before it answers well.
pub enum Trouble {
    /// Fails it.
    Fail(Status),
    /// Never answers.
    Hang,
}

/// The hub's half that a test holds.
#[derive(Clone, Default)]
pub struct Hub {
    troubles: Arc<Mutex<VecDeque<Trouble>>>,
    calls: Arc<Mutex<Vec<MetadataMap>>>,
}

impl Hub {
    /// A hub that meets its calls with these troubles, one each, and answers well afterwards.
    pub fn with(troubles: impl IntoIterator<Item = Trouble>) -> Hub {
        Hub { troubles: Arc::new(Mutex::new(troubles.into_iter().collect())), ..Hub::default() }
    }

    /// A hub that fails the first `count` calls with UNAVAILABLE.
    pub fn unavailable(count: usize) -> Hub {
        Hub::with((0..count).map(|_| Trouble::Fail(Status::unavailable("the database is locked"))))
    }

    /// Serves on a free port for as long as the test's runtime lives.
    pub async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", self.serve_on(listener))
    }

    /// Serves on that listener.
    pub fn serve_on(&self, listener: TcpListener) -> SocketAddr {
        self.serve_with(listener, Server::builder())
    }

    /// Serves over TLS.
    pub async fn serve_tls(&self, certificate_pem: String, key_pem: String) -> SocketAddr {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate_pem, key_pem));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.serve_with(listener, Server::builder().tls_config(tls).unwrap())
    }

    fn serve_with(&self, listener: TcpListener, mut server: Server) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let routes = server
            .add_service(MembershipServiceServer::new(self.clone()))
            .add_service(UsageServiceServer::new(self.clone()));
        tokio::spawn(routes.serve_with_incoming(TcpIncoming::from(listener)));
        address
    }

    /// The metadata of every call so far.
    pub fn calls(&self) -> Vec<MetadataMap> {
        self.calls.lock().unwrap().clone()
    }

    async fn answer<T>(&self, metadata: &MetadataMap, answer: T) -> Result<Response<T>, Status> {
        self.calls.lock().unwrap().push(metadata.clone());
        let trouble = self.troubles.lock().unwrap().pop_front();
        match trouble {
            Some(Trouble::Fail(status)) => Err(status),
            Some(Trouble::Hang) => pending().await,
            None => Ok(Response::new(answer)),
        }
    }
}

/// The rpcs of a service that no test calls, written as `async_trait` would: it does not look into macros.
macro_rules! uncalled {
    ($($rpc:ident($request:ty) -> $response:ty;)*) => {
        $(fn $rpc<'hub, 'answer>(
            &'hub self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'answer>>
        where
            'hub: 'answer,
            Self: 'answer,
        {
            Box::pin(async { Err(Status::unimplemented("no test calls this")) })
        })*
    };
}

#[tonic::async_trait]
impl MembershipService for Hub {
    async fn list_plans(&self, request: Request<ListPlansRequest>) -> Result<Response<ListPlansResponse>, Status> {
        let plans = vec![Plan { name: "Pro".into(), ..Plan::default() }];
        self.answer(request.metadata(), ListPlansResponse { plans }).await
    }

    async fn cancel_subscription(
        &self,
        request: Request<CancelSubscriptionRequest>,
    ) -> Result<Response<CancelSubscriptionResponse>, Status> {
        self.answer(request.metadata(), CancelSubscriptionResponse::default()).await
    }

    uncalled! {
        subscribe(SubscribeRequest) -> SubscribeResponse;
        get_subscription(GetSubscriptionRequest) -> GetSubscriptionResponse;
        check_feature_access(CheckFeatureAccessRequest) -> CheckFeatureAccessResponse;
        list_all_plans(ListAllPlansRequest) -> ListAllPlansResponse;
        create_plan(CreatePlanRequest) -> CreatePlanResponse;
        update_plan(UpdatePlanRequest) -> UpdatePlanResponse;
        retire_plan(RetirePlanRequest) -> RetirePlanResponse;
    }
}

#[tonic::async_trait]
impl UsageService for Hub {
    async fn record_usage(
        &self,
        request: Request<RecordUsageRequest>,
    ) -> Result<Response<RecordUsageResponse>, Status> {
        let usage_id = request.get_ref().usage_data.clone().unwrap_or_default().batch_name;
        self.answer(request.metadata(), RecordUsageResponse { usage_id, ..Default::default() }).await
    }

    async fn record_usage_stream(
        &self,
        request: Request<Streaming<RecordUsageStreamRequest>>,
    ) -> Result<Response<RecordUsageStreamResponse>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let mut created = 0;
        while let Some(message) = messages.message().await? {
            created += message.reports.len() as i32;
        }
        self.answer(&metadata, RecordUsageStreamResponse { created, ..Default::default() }).await
    }

    uncalled! {
        create_batch(CreateBatchRequest) -> CreateBatchResponse;
        get_monthly_usage(GetMonthlyUsageRequest) -> GetMonthlyUsageResponse;
        list_usage(ListUsageRequest) -> ListUsageResponse;
    }
}
