//! A hub that a test scripts: the generated services and the webhook endpoint of the real one, over a real socket, with a
//! ledger that counts a key once. It can be closed and opened again at the same address.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use upbridge_client::v1::membership_service_server::{MembershipService, MembershipServiceServer};
use upbridge_client::v1::usage_service_server::{UsageService, UsageServiceServer};
use upbridge_client::v1::user_sync_service_server::{UserSyncService, UserSyncServiceServer};
use upbridge_client::v1::*;
use uuid::Uuid;

use super::{SERVICE_KEY, WEBHOOK_SECRET};

/// Calls that a test can have wait.
pub const CREATE_BATCH: &str = "CreateBatch";
pub const WEBHOOK: &str = "webhook";

/// A user of the hub.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: Uuid,
    pub email: String,
    /// Why they may use CreatorUp, or why not.
    pub reason: AccessReason,
    /// Units a month; `None` is no limit.
    pub limit: Option<i64>,
}

/// A record of the hub's ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    pub user_id: Uuid,
    pub amount: i64,
    pub month: String,
    pub completed: bool,
    pub metadata: Option<Value>,
    /// How often it was reported, in any way.
    pub reports: usize,
}

#[derive(Default)]
struct Book {
    members: HashMap<String, Member>,
    ledger: BTreeMap<String, Entry>,
    webhooks: Vec<Value>,
    events: HashMap<String, Bytes>,
    /// What the next webhooks are answered with instead of being taken.
    refusals: Vec<u16>,
    /// Whether answers to CreateBatch are lost on their way: what they did is done.
    mute: bool,
    /// Where calls wait until they are let through, by what is called.
    doors: BTreeMap<&'static str, Arc<Semaphore>>,
    /// How many calls came to such a door.
    arrived: BTreeMap<&'static str, usize>,
}

/// The test's hand on the hub.
#[derive(Clone)]
pub struct Hub {
    pub address: SocketAddr,
    /// Keeps the port while nobody listens, or another could have it when the hub is opened again.
    _place: Arc<TcpSocket>,
    book: Arc<Mutex<Book>>,
    changed: Arc<Notify>,
    open: Arc<Mutex<Option<CancellationToken>>>,
    closed: Arc<Notify>,
}

impl Hub {
    /// A hub that serves on a free port.
    pub async fn start() -> Hub {
        let place = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let hub = Hub {
            address: place.local_addr().unwrap(),
            _place: Arc::new(place),
            book: Arc::default(),
            changed: Arc::default(),
            open: Arc::default(),
            closed: Arc::default(),
        };
        hub.serve();
        hub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self) {
        let listener = bound(self.address).listen(1_024).unwrap();
        let stop = CancellationToken::new();
        *self.open.lock().unwrap() = Some(stop.clone());
        let (_, health) = tonic_health::server::health_reporter();
        let app = tonic::service::Routes::new(UserSyncServiceServer::new(self.clone()))
            .add_service(MembershipServiceServer::new(self.clone()))
            .add_service(UsageServiceServer::new(self.clone()))
            .add_service(health)
            .into_axum_router()
            .route("/api/v1/creatorup/webhook/{event}", post(webhook).with_state(self.clone()));
        let closed = self.closed.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stop.cancelled() => break,
                };
                let service = TowerToHyperService::new(app.clone());
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
            // Connections are cut, as those of a process that is killed.
            connections.shutdown().await;
            drop(listener);
            closed.notify_one();
        });
    }

    /// Ends, with every connection.
    pub async fn close(&self) {
        let open = self.open.lock().unwrap().take();
        if let Some(stop) = open {
            stop.cancel();
            self.closed.notified().await;
        }
    }

    /// Serves again at the same address.
    pub async fn reopen(&self) {
        self.serve();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// A member with a token.
    pub fn member(&self) -> (Member, String) {
        self.member_who(AccessReason::Granted)
    }

    pub fn member_who(&self, reason: AccessReason) -> (Member, String) {
        let id = Uuid::now_v7();
        let member = Member { id, email: format!("{}@digiup.example", id.simple()), reason, limit: None };
        let token = format!("token-{}", id.simple());
        self.book().members.insert(token.clone(), member.clone());
        (member, token)
    }

    /// Changes what is known of a token's member.
    pub fn change(&self, token: &str, change: impl FnOnce(&mut Member)) {
        change(self.book().members.get_mut(token).expect("a member"));
    }

    /// Ends a session.
    pub fn revoke(&self, token: &str) {
        self.book().members.remove(token);
    }

    /// Answers the next webhooks with these statuses.
    pub fn refuse_webhooks(&self, statuses: &[u16]) {
        self.book().refusals = statuses.iter().rev().copied().collect();
    }

    /// Whether answers to CreateBatch are lost.
    pub fn mute(&self, mute: bool) {
        self.book().mute = mute;
    }

    /// Has calls wait before the hub does anything.
    pub fn hold(&self, call: &'static str) {
        self.book().doors.insert(call, Arc::new(Semaphore::new(0)));
    }

    /// Lets one of the calls that wait through.
    pub fn let_one_through(&self, call: &'static str) {
        self.book().doors[call].add_permits(1);
    }

    /// Lets all of them through, and those to come.
    pub fn let_through(&self, call: &'static str) {
        let door = self.book().doors.remove(call);
        door.expect("it is held").close();
    }

    /// How many calls have come that were to wait.
    pub fn arrived(&self, call: &'static str) -> usize {
        self.book().arrived.get(call).copied().unwrap_or_default()
    }

    async fn wait(&self, call: &'static str) {
        let Some(door) = self.book().doors.get(call).cloned() else { return };
        *self.book().arrived.entry(call).or_default() += 1;
        self.changed.notify_waiters();
        if let Ok(permit) = door.acquire().await {
            permit.forget();
        }
    }

    /// What was recorded under a key.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        self.book().ledger.get(key).cloned()
    }

    /// A user's units of a month.
    pub fn total(&self, user_id: Uuid, month: &str) -> i64 {
        let book = self.book();
        let of = book.ledger.values().filter(|entry| entry.user_id == user_id && entry.month == month);
        of.map(|entry| entry.amount).sum()
    }

    /// The webhooks that were taken, the same event once.
    pub fn webhooks(&self) -> Vec<Value> {
        self.book().webhooks.clone()
    }

    /// Waits until something the hub has is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Hub) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(super::PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn record(&self, key: &str, user_id: Uuid, told: Told) {
        let mut book = self.book();
        let now = Utc::now().format("%Y-%m").to_string();
        let entry = book.ledger.entry(key.to_owned()).or_insert(Entry {
            user_id,
            amount: 0,
            month: now,
            completed: false,
            metadata: None,
            reports: 0,
        });
        entry.reports += 1;
        entry.amount = told.amount;
        if let Some(month) = told.month {
            entry.month = month;
        }
        entry.completed |= told.completed;
        if told.metadata.is_some() {
            entry.metadata = told.metadata;
        }
        drop(book);
        self.changed.notify_waiters();
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Member, Status> {
        let token =
            request.metadata().get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| refused(Code::Unauthenticated, "MISSING_CREDENTIALS", &[]))?;
        let member = self.book().members.get(token).cloned();
        member.ok_or_else(|| refused(Code::Unauthenticated, "INVALID_CREDENTIALS", &[]))
    }
}

/// A socket at an address that others of ours may have too.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).expect("the port is ours");
    socket
}

struct Told {
    amount: i64,
    month: Option<String>,
    completed: bool,
    metadata: Option<Value>,
}

fn refused(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let mut details = ErrorDetails::new();
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    details.set_error_info(reason, "upbridge", metadata);
    Status::with_error_details(code, "the hub says no", details)
}

fn user(member: &Member) -> User {
    User {
        id: member.id.to_string(),
        email: member.email.clone(),
        name: "Ana".into(),
        role: Role::Member as i32,
        status: UserStatus::Active as i32,
        updated_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..User::default()
    }
}

async fn webhook(
    State(hub): State<Hub>,
    Path(event): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    hub.wait(WEBHOOK).await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).unwrap();
    let timestamp = header("x-webhook-timestamp");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(&body);
    let fresh = timestamp.parse::<i64>().is_ok_and(|at| (Utc::now().timestamp() - at).abs() < 300);
    if !fresh || header("x-webhook-signature") != hex::encode(mac.finalize().into_bytes()) {
        return (StatusCode::UNAUTHORIZED, r#"{"success":false}"#.into());
    }
    if let Some(status) = hub.book().refusals.pop() {
        hub.changed.notify_waiters();
        return (StatusCode::from_u16(status).unwrap(), r#"{"success":false}"#.into());
    }
    let message: Value = serde_json::from_slice(&body).unwrap();
    let event_id = message["event_id"].as_str().unwrap().to_owned();
    let known = hub.book().events.insert(event_id.clone(), body.clone());
    let duplicate = known.is_some();
    assert!(known.is_none_or(|known| known == body), "one event has one body");
    if !duplicate {
        let mut kept = message.clone();
        kept["event"] = json!(event);
        hub.book().webhooks.push(kept);
        if event == "usage-update" {
            let usage = &message["usage_data"];
            let told = Told {
                amount: usage["usage_amount"].as_i64().unwrap(),
                month: usage["month_year"].as_str().map(str::to_owned),
                completed: usage["completed_at"].is_string(),
                metadata: usage.get("metadata").cloned(),
            };
            let user_id = message["digiup_user_id"].as_str().unwrap().parse().unwrap();
            hub.record(usage["usage_id"].as_str().unwrap(), user_id, told);
        }
    }
    hub.changed.notify_waiters();
    let answer = json!({"success": true, "data": {"received": true, "event_id": format!("hub-{event_id}"), "duplicate": duplicate}});
    (StatusCode::OK, answer.to_string())
}

/// The rpcs of a service that CreatorUp does not call, written as `async_trait` would: it does not look into macros.
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
            Box::pin(async { Err(Status::unimplemented("CreatorUp does not call this")) })
        })*
    };
}

#[tonic::async_trait]
impl UserSyncService for Hub {
    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let member = self.caller(&request)?;
        Ok(Response::new(VerifyTokenResponse {
            valid: true,
            user: Some(user(&member)),
            has_access: member.reason == AccessReason::Granted,
            reason: member.reason as i32,
            token_expires_at: Some(prost_types::Timestamp { seconds: Utc::now().timestamp() + 3_600, nanos: 0 }),
            ..VerifyTokenResponse::default()
        }))
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Status> {
        let member = self.caller(&request)?;
        Ok(Response::new(GetProfileResponse { user: Some(user(&member)), ..GetProfileResponse::default() }))
    }

    uncalled! {
        check_access(CheckAccessRequest) -> CheckAccessResponse;
        sync_user(SyncUserRequest) -> SyncUserResponse;
        get_sync_status(GetSyncStatusRequest) -> GetSyncStatusResponse;
    }
}

#[tonic::async_trait]
impl MembershipService for Hub {
    async fn check_feature_access(
        &self,
        request: Request<CheckFeatureAccessRequest>,
    ) -> Result<Response<CheckFeatureAccessResponse>, Status> {
        let member = self.caller(&request)?;
        Ok(Response::new(CheckFeatureAccessResponse {
            has_access: member.reason == AccessReason::Granted,
            reason: member.reason as i32,
            feature: request.into_inner().feature,
            limit: member.limit,
            as_of: Some(prost_types::Timestamp { seconds: Utc::now().timestamp(), nanos: 0 }),
            ..CheckFeatureAccessResponse::default()
        }))
    }

    uncalled! {
        list_plans(ListPlansRequest) -> ListPlansResponse;
        subscribe(SubscribeRequest) -> SubscribeResponse;
        cancel_subscription(CancelSubscriptionRequest) -> CancelSubscriptionResponse;
        get_subscription(GetSubscriptionRequest) -> GetSubscriptionResponse;
        list_all_plans(ListAllPlansRequest) -> ListAllPlansResponse;
        create_plan(CreatePlanRequest) -> CreatePlanResponse;
        update_plan(UpdatePlanRequest) -> UpdatePlanResponse;
        retire_plan(RetirePlanRequest) -> RetirePlanResponse;
    }
}

#[tonic::async_trait]
impl UsageService for Hub {
    async fn create_batch(
        &self,
        request: Request<CreateBatchRequest>,
    ) -> Result<Response<CreateBatchResponse>, Status> {
        if request.metadata().get("x-api-key").is_none_or(|key| key != SERVICE_KEY) {
            return Err(refused(Code::Unauthenticated, "INVALID_CREDENTIALS", &[]));
        }
        self.wait(CREATE_BATCH).await;
        let asked = request.into_inner();
        let user_id: Uuid = asked.digiup_user_id().parse().unwrap();
        let member = self.book().members.values().find(|member| member.id == user_id).cloned();
        let Some(member) = member else { return Err(refused(Code::NotFound, "NOT_FOUND", &[])) };
        let amount = i64::from(asked.usage_amount());
        let used: i64 = {
            let book = self.book();
            let of = book.ledger.iter().filter(|(key, entry)| entry.user_id == user_id && **key != asked.usage_id());
            of.map(|(_, entry)| entry.amount).sum()
        };
        match member.reason {
            AccessReason::Granted if member.limit.is_some_and(|limit| used + amount > limit) => {
                return Err(refused(Code::ResourceExhausted, "QUOTA_EXCEEDED", &[("limit", "1"), ("remaining", "0")]));
            }
            AccessReason::Granted => {}
            _ => {
                let why = [("access_reason", "no_subscription")];
                return Err(refused(Code::PermissionDenied, "MEMBERSHIP_REQUIRED", &why));
            }
        }
        let told = Told { amount, month: asked.month_year.clone(), completed: false, metadata: None };
        self.record(asked.usage_id(), user_id, told);
        let month_year = self.entry(asked.usage_id()).unwrap().month;
        if self.book().mute {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(CreateBatchResponse {
            usage: Some(UsageRecord { month_year, ..UsageRecord::default() }),
            ..CreateBatchResponse::default()
        }))
    }

    async fn get_monthly_usage(
        &self,
        request: Request<GetMonthlyUsageRequest>,
    ) -> Result<Response<GetMonthlyUsageResponse>, Status> {
        let asked = request.into_inner();
        let total = self.total(asked.digiup_user_id().parse().unwrap(), asked.month_year());
        Ok(Response::new(GetMonthlyUsageResponse { total, ..GetMonthlyUsageResponse::default() }))
    }

    uncalled! {
        record_usage(RecordUsageRequest) -> RecordUsageResponse;
        record_usage_stream(tonic::Streaming<RecordUsageStreamRequest>) -> RecordUsageStreamResponse;
        list_usage(ListUsageRequest) -> ListUsageResponse;
    }
}
