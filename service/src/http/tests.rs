//! The whole face, driven as a client drives it, over real generated services with canned answers.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::ServiceExt;
use upbridge_proto::v1::usage_service_server::{UsageService, UsageServiceServer};
use upbridge_proto::v1::user_service_server::{UserService, UserServiceServer};
use upbridge_proto::v1::*;

use super::{HttpCall, Options};
use crate::model::context::RequestId;

/// Answers with what it was asked, so that a test sees what arrived.
struct Canned;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl UsageService for Canned {
    async fn record_usage(&self, request: tonic::Request<RecordUsageRequest>) -> Answer<RecordUsageResponse> {
        let call = request.extensions().get::<HttpCall>().expect("the call is marked").clone();
        let bearer = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let message = request.into_inner();
        let data = message.usage_data.expect("the codec saw to it");
        let usage = UsageRecord {
            user_id: bearer.unwrap_or_default(),
            source: format!("{} {}", call.verb, call.path),
            batch_name: data.batch_name,
            usage_amount: data.usage_amount.unwrap_or_default(),
            completed_at: data.completed_at,
            metadata: data.metadata,
            ..Default::default()
        };
        let answer =
            RecordUsageResponse { outcome: UsageOutcome::Created.into(), usage: Some(usage), ..Default::default() };
        let mut response = Response::new(answer);
        response.metadata_mut().insert("set-cookie", "a=b".parse().unwrap());
        response.metadata_mut().insert("x-seen", "yes".parse().unwrap());
        response.metadata_mut().insert("secret", "no".parse().unwrap());
        Ok(response)
    }

    async fn record_usage_stream(
        &self,
        _: tonic::Request<tonic::Streaming<RecordUsageStreamRequest>>,
    ) -> Answer<RecordUsageStreamResponse> {
        Err(Status::unimplemented("not over HTTP"))
    }

    async fn create_batch(&self, _: tonic::Request<CreateBatchRequest>) -> Answer<CreateBatchResponse> {
        let mut details = ErrorDetails::new();
        let limit = HashMap::from([("limit".to_owned(), "10".to_owned())]);
        details.set_error_info("QUOTA_EXCEEDED", "upbridge", limit);
        details.set_retry_info(Some(Duration::from_millis(1200)));
        Err(Status::with_error_details(Code::ResourceExhausted, "the month's limit is reached", details))
    }

    async fn get_monthly_usage(&self, _: tonic::Request<GetMonthlyUsageRequest>) -> Answer<GetMonthlyUsageResponse> {
        Err(Status::unauthenticated("no credential was sent"))
    }

    async fn list_usage(&self, request: tonic::Request<ListUsageRequest>) -> Answer<ListUsageResponse> {
        let usage =
            vec![UsageRecord { usage_type: request.into_inner().usage_type.unwrap_or_default(), ..Default::default() }];
        Ok(Response::new(ListUsageResponse { usage, next_page_token: "next".into() }))
    }
}

#[tonic::async_trait]
impl UserService for Canned {
    async fn list_users(&self, _: tonic::Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        Ok(Response::new(ListUsersResponse { users: vec![User::default()], next_page_token: "n".into() }))
    }

    async fn get_user_stats(&self, _: tonic::Request<GetUserStatsRequest>) -> Answer<GetUserStatsResponse> {
        Err(Status::unavailable("the database is locked"))
    }

    async fn get_user(&self, request: tonic::Request<GetUserRequest>) -> Answer<GetUserResponse> {
        let user = User { id: request.into_inner().user_id, ..Default::default() };
        Ok(Response::new(GetUserResponse { user: Some(user), subscription: None }))
    }

    async fn update_user(&self, request: tonic::Request<UpdateUserRequest>) -> Answer<UpdateUserResponse> {
        let request = request.into_inner();
        let role = request.role.unwrap_or_default();
        let user = User { id: request.user_id, name: request.name.unwrap_or_default(), role, ..Default::default() };
        Ok(Response::new(UpdateUserResponse { user: Some(user) }))
    }

    async fn deactivate_user(&self, request: tonic::Request<DeactivateUserRequest>) -> Answer<DeactivateUserResponse> {
        let user = User { id: request.into_inner().user_id, ..Default::default() };
        Ok(Response::new(DeactivateUserResponse { user: Some(user) }))
    }

    async fn delete_user(&self, _: tonic::Request<DeleteUserRequest>) -> Answer<DeleteUserResponse> {
        Ok(Response::new(DeleteUserResponse {}))
    }
}

const USER: &str = "00000000-0000-4000-8000-000000000001";
const RECORD: &str = "/api/v1/creatorup/sync/usage";

fn face() -> Router {
    let routes =
        tonic::service::Routes::new(UsageServiceServer::new(Canned)).add_service(UserServiceServer::new(Canned));
    super::router(routes.into_axum_router(), Options { api: &super::api::TESTED, body_limit: 4096, guard: None })
}

async fn send(request: http::request::Builder, body: impl Into<Body>) -> (StatusCode, HeaderMap, Value) {
    let request: Request<Body> = request.extension(RequestId("r-1".into())).body(body.into()).unwrap();
    let response = face().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, Value) {
    send(Request::post(path).header("content-type", "application/json"), body).await
}

async fn get(path: &str) -> (StatusCode, HeaderMap, Value) {
    send(Request::get(path), "").await
}

fn usage(extra: &str) -> String {
    format!(
        r#"{{"usage_data":{{"batch_name":"b","batch_type":"video","usage_type":"local_rendering","usage_amount":3,
        "completed_at":"2024-01-15T10:30:00.000Z","metadata":{{"video_count":5}}{extra}}}}}"#
    )
}

#[tokio::test]
async fn a_body_reaches_the_service_and_its_answer_comes_back_in_the_envelope() {
    let request = Request::post(RECORD).header("authorization", "Bearer t");
    let (status, headers, answer) = send(request, usage("")).await;
    assert_eq!((status, &answer["success"]), (StatusCode::OK, &json!(true)), "{answer}");
    let data = &answer["data"];
    assert_eq!(
        (&data["outcome"], &data["duplicate"], &data["usage_id"]),
        (&json!("created"), &json!(false), &json!(""))
    );
    let usage = &data["usage"];
    assert_eq!(usage["usage_amount"], 3);
    assert_eq!(usage["completed_at"], "2024-01-15T10:30:00Z");
    assert_eq!(usage["metadata"].to_string(), r#"{"video_count":5}"#);
    assert_eq!(usage["user_id"], "Bearer t");
    assert_eq!(usage["source"], format!("POST {RECORD}"));
    assert!(usage["idempotency_key"].is_null());
    assert_eq!(
        (&headers["set-cookie"], &headers["x-seen"], &headers["cache-control"]),
        (&"a=b".parse().unwrap(), &"yes".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert!(!headers.contains_key("secret") && !headers.contains_key("grpc-status"));
}

#[tokio::test]
async fn every_binding_of_an_rpc_leads_to_it() {
    let (status, _, answer) = post("/api/v1/client/creatorup/sync/usage", usage("")).await;
    assert_eq!((status, &answer["data"]["usage"]["batch_name"]), (StatusCode::OK, &json!("b")));
}

#[tokio::test]
async fn a_query_fills_the_request_and_an_unknown_parameter_is_named() {
    let (status, _, answer) = get("/api/v1/client/batch/usage?usage_type=cloud%20x&page_size=5").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&answer["data"]["usage"][0]["usage_type"], &answer["data"]["next_page_token"]),
        (&json!("cloud x"), &json!("next"))
    );
    let (status, _, answer) = get("/api/v1/client/batch/usage?colour=red").await;
    assert_eq!((status, &answer["error"]["details"][0]["field"]), (StatusCode::BAD_REQUEST, &json!("colour")));
}

#[tokio::test]
async fn path_variables_and_camel_case_under_admin() {
    let (status, _, answer) = get(&format!("/api/admin/users/{USER}")).await;
    assert_eq!((status, &answer["data"]["user"]["id"]), (StatusCode::OK, &json!(USER)), "{answer}");
    assert!(answer["data"]["user"].get("syncStatus").is_some() && answer["data"]["user"].get("sync_status").is_none());
    let (_, _, page) = get("/api/admin/users").await;
    assert_eq!((page["data"].as_array().map(Vec::len), &page["nextPageToken"]), (Some(1), &json!("n")));
    let patch = Request::patch(format!("/api/admin/users/{USER}"));
    let (status, _, answer) = send(patch, r#"{"role":"pro_reseller","name":"N"}"#).await;
    assert_eq!(
        (status, &answer["data"]["role"], &answer["data"]["name"]),
        (StatusCode::OK, &json!("pro_reseller"), &json!("N"))
    );
}

#[tokio::test]
async fn a_post_needs_no_body_where_the_rpc_needs_none() {
    let request = Request::post(format!("/api/admin/users/{USER}/deactivate"));
    assert_eq!(send(request, "").await.0, StatusCode::OK);
    let request = Request::delete(format!("/api/admin/users/{USER}"));
    let (status, _, answer) = send(request, "").await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"success": true, "data": {}})));
}

#[tokio::test]
async fn wrong_fields_are_named_alike_by_the_face_and_by_the_codec() {
    let (status, _, answer) = post(RECORD, usage(r#","colour":1,"month_year":5"#)).await;
    let expected = json!({
        "success": false,
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "usage_data.colour is not a known field (and 1 more)",
            "reason": "INVALID_FIELD",
            "details": [
                {"field": "usage_data.colour", "description": "is not a known field"},
                {"field": "usage_data.month_year", "description": "must be a string"},
            ],
        },
        "request_id": "r-1",
    });
    assert_eq!((status, answer), (StatusCode::BAD_REQUEST, expected));
    let (status, _, answer) = post(RECORD, usage(r#","month_year":"2024-13""#)).await;
    assert_eq!((status, &answer["error"]["reason"]), (StatusCode::BAD_REQUEST, &json!("INVALID_FIELD")));
    assert_eq!(answer["error"]["details"][0]["field"], "usage_data.month_year");
    let (_, _, answer) = get("/api/admin/users?page_size=1000").await;
    assert_eq!(answer["error"]["details"][0]["field"], "pageSize");
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("pageSize must be"), "{answer}");
}

#[tokio::test]
async fn refusals_carry_reason_metadata_and_when_to_come_back() {
    let body = r#"{"batch_name":"b","batch_type":"video","usage_type":"x"}"#;
    let (status, headers, answer) = post("/api/v1/client/batch/create", body).await;
    assert_eq!((status, &headers["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"2".parse().unwrap()));
    let error = &answer["error"];
    assert_eq!((&error["code"], &error["reason"]), (&json!("RESOURCE_EXHAUSTED"), &json!("QUOTA_EXCEEDED")));
    assert_eq!((&error["metadata"]["limit"], &error["details"]), (&json!("10"), &json!([])));
    assert_eq!(headers["cache-control"], "no-store");
    let (status, headers, _) = get("/api/v1/client/batch/usage/monthly").await;
    assert_eq!((status, &headers["www-authenticate"]), (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap()));
    assert_eq!(get("/api/admin/users/stats").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // This service is not served here, so gRPC does not know the rpc.
    assert_eq!(get("/api/v1/client/membership/plans").await.0, StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_say_so_in_json() {
    let (status, _, answer) = get("/api/v1/nothing").await;
    assert_eq!(
        (status, &answer["error"]["code"], &answer["request_id"]),
        (StatusCode::NOT_FOUND, &json!("NOT_FOUND"), &json!("r-1"))
    );
    let (status, headers, answer) = get(RECORD).await;
    assert_eq!((status, &headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    assert_eq!(answer["success"], false);
    let (status, headers, _) = post("/api/docs", "{}").await;
    assert_eq!((status, &headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap()));
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_json_are_refused() {
    for body in [Body::from("x".repeat(5000)), Body::from_stream(parts(100))] {
        let (status, _, answer) = post(RECORD, body).await;
        assert_eq!((status, &answer["error"]["reason"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("BODY_TOO_LARGE")));
    }
    let exact = usage(&format!(r#","usage_id":"{}""#, "x".repeat(4096 - usage(r#","usage_id":"""#).len())));
    assert_eq!(exact.len(), 4096);
    assert_eq!(post(RECORD, exact).await.2["error"]["details"][0]["field"], "usage_data.usage_id");
    let (status, _, answer) = post(RECORD, "{\"usage_data\": }").await;
    assert_eq!((status, &answer["error"]["reason"]), (StatusCode::BAD_REQUEST, &json!("MALFORMED_REQUEST")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("line 1, column 16"), "{answer}");
    let text = Request::post(RECORD).header("content-type", "text/plain");
    assert_eq!(send(text, "{}").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let form = Request::post(RECORD).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(form, usage("")).await.0, StatusCode::OK);
}

/// A body of unknown length, in pieces of 100 bytes.
fn parts(count: usize) -> impl futures::Stream<Item = Result<String, std::io::Error>> {
    futures::stream::iter((0..count).map(|_| Ok(" ".repeat(100))))
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let whole = usage("");
    let pieces: Vec<_> = whole.as_bytes().chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let (status, _, answer) = post(RECORD, Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!((status, &answer["data"]["usage"]["batch_name"]), (StatusCode::OK, &json!("b")));
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    for path in ["/api/admin/users", "/api/openapi.json", "/api/v1/client/batch/usage/monthly", "/nothing"] {
        let (status, _, _) = get(path).await;
        let response = face().oneshot(Request::head(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_ne!(response.headers()["content-length"], "0", "{path}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn the_description_and_its_viewer_are_served() {
    let (status, headers, document) = get("/api/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    assert_eq!(headers["content-type"], "application/json");
    for (path, kind) in
        [("/api/docs", "text/html"), ("/api/docs/", "text/html"), ("/api/docs/swagger-ui.css", "text/css")]
    {
        let (status, headers, _) = get(path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers["content-type"].to_str().unwrap().starts_with(kind));
    }
}
