//! Callbacks of integrations as administrators manage them.

use serde_json::json;
use upbridge_client::v1;
use upbridge_client::v1::IntegrationProvider as Provider;

use super::*;
use crate::integrations::{add, new, partner};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_path_is_good_until_there_is_another_or_nothing_to_call() {
    let hub = start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Contoh").await;
    let request = new(&partner_id, Provider::Wablas, &json!({ "token": "wablas-token-1" }));
    let request = v1::CreateIntegrationRequest { base_url: Some("https://solo.wablas.com".into()), ..request };
    let made = admin.integrations().create_integration(request).await.unwrap().into_inner();
    let id = made.integration.unwrap().id;
    let code = async |path: &str, message: &str| {
        let body = format!(r#"{{"id":"{message}","status":"delivered"}}"#);
        send(&hub, path, &json_only("", b""), body).await.0
    };
    assert_eq!(code(&made.callback_path, "w1").await, 200);
    let rotate = v1::RotateCallbackTokenRequest { integration_id: id.clone() };
    let path = admin.integrations().rotate_callback_token(rotate).await.unwrap().into_inner().callback_path;
    assert_eq!((code(&made.callback_path, "w2").await, code(&path, "w2").await), (401, 200));
    let set = async |is_active: bool| {
        let is_active = Some(is_active);
        let update = v1::UpdateIntegrationRequest { integration_id: id.clone(), is_active, ..Default::default() };
        admin.integrations().update_integration(update).await.unwrap();
    };
    set(false).await;
    assert_eq!(code(&path, "w3").await, 400);
    set(true).await;
    assert_eq!(code(&path, "w3").await, 200);
    assert_eq!(rows(&hub.database, "integration_receipts").await, 3);
    let delete = v1::DeleteIntegrationRequest { integration_id: id.clone() };
    admin.integrations().delete_integration(delete).await.unwrap();
    assert_eq!(code(&path, "w4").await, 401);
    assert_eq!(rows(&hub.database, "integration_receipts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_about_an_integration_counts_for_the_next_notification() {
    let hub = start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Contoh").await;
    let code = async |key: &str| {
        let body = midtrans_signed("LMS-1", "settlement", "200", key);
        send(&hub, MIDTRANS, &json_only("", b""), body).await.0
    };
    assert_eq!(code("SB-Mid-server-first-00").await, 401, "there is none");
    let request = new(&partner_id, Provider::Midtrans, &json!({ "serverKey": "SB-Mid-server-first-00" }));
    let integration_id = add(&admin, request).await.id;
    assert_eq!(code("SB-Mid-server-first-00").await, 200);
    let change = |is_active: Option<bool>, key: Option<&str>| v1::UpdateIntegrationRequest {
        integration_id: integration_id.clone(),
        is_active,
        credentials: key.and_then(|key| crate::integrations::structure(&json!({ "serverKey": key }))),
        ..Default::default()
    };
    admin.integrations().update_integration(change(None, Some("SB-Mid-server-other-00"))).await.unwrap();
    assert_eq!((code("SB-Mid-server-first-00").await, code("SB-Mid-server-other-00").await), (401, 200));
    admin.integrations().update_integration(change(Some(false), None)).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 401, "it is no candidate");
    admin.integrations().update_integration(change(Some(true), None)).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 200);
    let status = Some(v1::PartnerStatus::Inactive.into());
    let update = v1::UpdatePartnerRequest { partner_id: partner_id.clone(), status, ..Default::default() };
    admin.partners().update_partner(update).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 401, "nor is one of a partner who is inactive");
}
