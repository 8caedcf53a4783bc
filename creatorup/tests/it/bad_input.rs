//! What callers get wrong: each is told what, and nothing is written.

use serde_json::{Value, json};

use crate::harness::{SERVICE_KEY, TestCreatorUp};

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_wrong_is_named() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let id = "018f3c1e-0000-7000-8000-000000000001";
    let long = "x".repeat(256);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/api/v1/batch/create", json!({}), "name"),
        ("/api/v1/batch/create", json!({"name": ""}), "name"),
        ("/api/v1/batch/create", json!({"name": long}), "name"),
        ("/api/v1/batch/create", json!({"name": "a\u{0}b"}), "name"),
        ("/api/v1/batch/create", json!({"name": "a", "type": ""}), "type"),
        ("/api/v1/batch/create", json!({"name": "a", "inputs": "a.mp4"}), "inputs"),
        ("/api/v1/batch/create", json!({"name": "a", "inputs": vec!["a"; 101]}), "inputs"),
        ("/api/v1/batch/create", json!({"name": "a", "metadata": 5}), "metadata"),
        ("/api/v1/batch/create", json!({"name": "a", "metadata": {"a": "x".repeat(64 << 10)}}), "metadata"),
        ("/api/v1/batch/create", json!({"name": "a", "colour": "red"}), "colour"),
        ("/api/v1/batch/create", json!({"name": "a", "idempotency_key": ""}), "idempotency_key"),
        ("/api/v1/video/process", json!({}), "batch_id"),
        ("/api/v1/video/process", json!({"batch_id": "17"}), "batch_id"),
        ("/api/v1/batch/17/cancel", json!({}), "batch_id"),
    ];
    for (path, body, field) in cases {
        let (status, answer) = creatorup.as_user(&token, path, Some(body.clone())).await;
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{path} {body}: {answer}");
        assert_eq!(answer["error"]["details"][0]["field"], json!(field), "{path} {body}: {answer}");
    }
    for (path, field) in [
        ("/api/v1/usage/monthly?month_year=2024-13", "month_year"),
        ("/api/v1/batch?page_size=0", "page_size"),
        ("/api/v1/batch?page_token=x", "page_token"),
        ("/api/v1/batch?status=lost", "status"),
    ] {
        let (status, answer) = creatorup.as_user(&token, path, None).await;
        assert_eq!((status, &answer["error"]["details"][0]["field"]), (400, &json!(field)), "{path}: {answer}");
    }
    let pushes = [
        (json!({}), "digiup_user_id"),
        (json!({"digiup_user_id": "17"}), "digiup_user_id"),
        (json!({"digiup_user_id": id}), "user"),
        (json!({"digiup_user_id": id, "user": {"role": "member", "status": "active"}}), "user.email"),
        (json!({"digiup_user_id": id, "deleted": true, "as_of": "yesterday"}), "as_of"),
    ];
    for (body, field) in pushes {
        let key = Some(("x-api-key", SERVICE_KEY));
        let (status, answer) = creatorup.http("/api/v1/digiup/user/sync", key, Some(body.clone())).await;
        assert_eq!((status, &answer["error"]["details"][0]["field"]), (400, &json!(field)), "{body}: {answer}");
    }
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM batches").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_health_wants_a_credential() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    for path in
        ["/api/v1/digiup/user/sync", "/api/v1/digiup/membership/check", "/api/v1/batch", "/api/v1/usage/monthly"]
    {
        let (status, answer) = creatorup.http(path, None, None).await;
        assert_eq!((status, &answer["error"]["reason"]), (401, &json!("MISSING_CREDENTIALS")), "{path}");
        assert_eq!(creatorup.as_user("nonsense", path, None).await.0, 401, "{path}");
        assert_eq!(creatorup.as_user(&"x".repeat(20_000), path, None).await.0, 401, "{path}: too long to be a token");
        let service = creatorup.http(path, Some(("x-api-key", SERVICE_KEY)), None).await;
        assert_eq!(service.0, 403, "{path}: the hub is no user");
    }
    let (status, _) = creatorup.as_user(&token, "/api/v1/batch/018f3c1e-0000-7000-8000-000000000001", None).await;
    assert_eq!(status, 404);
    assert_eq!(creatorup.http("/api/v1/nowhere", None, None).await.0, 404);
    assert_eq!(creatorup.http("/api/v1/video/process", None, None).await.0, 405);
}
