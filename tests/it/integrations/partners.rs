//! Partners: those whose integrations the hub manages.

use reqwest::Client as Http;
use serde_json::json;
use upbridge_client::{Code, v1};
use uuid::Uuid;

use super::{add, new, partner};
use crate::harness::{self, ADMIN_EMAIL, ADMIN_PASSWORD, TestHub, fault, refusal};

fn only(name: &str) -> v1::CreatePartnerRequest {
    v1::CreatePartnerRequest { name: name.into(), status: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_is_added_read_changed_and_deleted_and_each_step_is_audited() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let made = admin.partners().create_partner(only("  Toko Ana ")).await.unwrap().into_inner().partner.unwrap();
    assert_eq!((made.name.as_str(), made.status()), ("Toko Ana", v1::PartnerStatus::Active));
    let get = || v1::GetPartnerRequest { partner_id: made.id.clone() };
    assert_eq!(admin.partners().get_partner(get()).await.unwrap().into_inner().partner, Some(made.clone()));
    hub.clock.advance(chrono::TimeDelta::seconds(5));
    let change = |name: Option<&str>, status: Option<v1::PartnerStatus>| v1::UpdatePartnerRequest {
        partner_id: made.id.clone(),
        name: name.map(str::to_owned),
        status: status.map(Into::into),
    };
    let inactive = change(None, Some(v1::PartnerStatus::Inactive));
    let changed = admin.partners().update_partner(inactive.clone()).await.unwrap().into_inner().partner.unwrap();
    assert_eq!((changed.name.as_str(), changed.status()), ("Toko Ana", v1::PartnerStatus::Inactive));
    assert!(changed.updated_at.unwrap().seconds == made.updated_at.unwrap().seconds + 5);
    // What changes nothing is no change, and a name of one's own is not taken.
    let again = admin.partners().update_partner(inactive).await.unwrap().into_inner().partner.unwrap();
    assert_eq!(again, changed);
    admin.partners().update_partner(change(Some("TOKO ANA"), None)).await.unwrap();
    assert_eq!(fault(admin.partners().update_partner(change(Some(" "), None)).await), "name");
    admin.partners().delete_partner(v1::DeletePartnerRequest { partner_id: made.id.clone() }).await.unwrap();
    assert_eq!(refusal(admin.partners().get_partner(get()).await).0, Code::NotFound);
    let gone = admin.partners().delete_partner(v1::DeletePartnerRequest { partner_id: made.id.clone() }).await;
    assert_eq!(refusal(gone).0, Code::NotFound);
    assert_eq!(refusal(admin.partners().update_partner(change(Some("x"), None)).await).0, Code::NotFound);
    let sql = format!("SELECT action FROM audit_log WHERE target_id = '{}' ORDER BY id", made.id);
    let audited = ["partner.created", "partner.updated", "partner.updated", "partner.deleted"];
    assert_eq!(hub.database.texts(&sql).await, audited);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_name_is_unique_regardless_of_case_also_when_many_ask_at_once() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    partner(&admin, "Ana").await;
    let (code, reason) = refusal(admin.partners().create_partner(only("aNA")).await);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));
    let other = partner(&admin, "Bo").await;
    let rename = v1::UpdatePartnerRequest { partner_id: other, name: Some("ANA".into()), status: None };
    assert_eq!(refusal(admin.partners().update_partner(rename).await).0, Code::AlreadyExists);
    let asking = (0..12).map(|at| {
        let admin = admin.clone();
        tokio::spawn(async move {
            let name = if at % 2 == 0 { "cem" } else { "CEM" };
            admin.partners().create_partner(only(name)).await.map(drop).map_err(|status| status.code())
        })
    });
    let answers = futures::future::join_all(asking).await.into_iter().map(|answer| answer.unwrap());
    let (added, refused): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
    assert_eq!((added.len(), refused.len()), (1, 11));
    assert!(refused.iter().all(|answer| *answer == Err(Code::AlreadyExists)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partners_are_listed_newest_first_in_pages_bound_to_their_filters() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    for name in ["Ana", "100% Bo", "banana", "Cem"] {
        partner(&admin, name).await;
    }
    let all = v1::ListPartnersRequest { page_size: Some(3), ..Default::default() };
    let first = admin.partners().list_partners(all.clone()).await.unwrap().into_inner();
    let names = |page: &v1::ListPartnersResponse| page.partners.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first), ["Cem", "banana", "100% Bo"]);
    let next = v1::ListPartnersRequest { page_token: Some(first.next_page_token), ..all };
    let last = admin.partners().list_partners(next.clone()).await.unwrap().into_inner();
    assert_eq!((names(&last), last.next_page_token.as_str()), (vec!["Ana".to_owned()], ""));
    let other = v1::ListPartnersRequest { query: Some("a".into()), ..next };
    assert_eq!(fault(admin.partners().list_partners(other).await), "page_token");
    for (query, found) in [("ANA", vec!["banana", "Ana"]), ("%", vec!["100% Bo"]), ("_", vec![]), ("'", vec![])] {
        let request = v1::ListPartnersRequest { query: Some(query.into()), ..Default::default() };
        assert_eq!(names(&admin.partners().list_partners(request).await.unwrap().into_inner()), found, "{query}");
    }
    let id = last.partners[0].id.clone();
    let status = Some(v1::PartnerStatus::Inactive.into());
    let inactive = v1::UpdatePartnerRequest { partner_id: id, name: None, status };
    admin.partners().update_partner(inactive).await.unwrap();
    let request = v1::ListPartnersRequest { status, ..Default::default() };
    assert_eq!(names(&admin.partners().list_partners(request).await.unwrap().into_inner()), ["Ana"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_with_integrations_is_not_deleted() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let id = partner(&admin, "Ana").await;
    let made = add(&admin, new(&id, v1::IntegrationProvider::Fonnte, &json!({ "token": "abcdefghijklmnop" }))).await;
    let delete = || v1::DeletePartnerRequest { partner_id: id.clone() };
    let (code, reason) = refusal(admin.partners().delete_partner(delete()).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
    admin.integrations().delete_integration(v1::DeleteIntegrationRequest { integration_id: made.id }).await.unwrap();
    admin.partners().delete_partner(delete()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partners_are_managed_over_http_by_administrators_alone() {
    let hub = TestHub::start().await;
    let http = Http::new();
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
    let url = hub.url("/api/admin/partners");
    let (code, made) = harness::json(http.post(&url).bearer_auth(&token).json(&json!({ "name": "Ana" }))).await;
    assert_eq!((code, &made["success"], &made["data"]["status"]), (201, &json!(true), &json!("active")), "{made}");
    let id = made["data"]["id"].as_str().unwrap();
    let (code, taken) = harness::json(http.post(&url).bearer_auth(&token).json(&json!({ "name": "ANA" }))).await;
    assert_eq!((code, &taken["error"]["code"]), (409, &json!("ALREADY_EXISTS")), "{taken}");
    let one = format!("{url}/{id}");
    let (code, changed) =
        harness::json(http.put(&one).bearer_auth(&token).json(&json!({ "status": "inactive" }))).await;
    assert_eq!((code, &changed["data"]["status"], &changed["data"]["name"]), (200, &json!("inactive"), &json!("Ana")));
    let (code, _) = harness::json(http.patch(&one).bearer_auth(&token).json(&json!({ "status": "odd" }))).await;
    assert_eq!(code, 400);
    let (code, listed) = harness::json(http.get(&url).bearer_auth(&token)).await;
    assert_eq!((code, &listed["data"][0]["id"]), (200, &json!(id)));
    for (request, code) in [
        (http.get(&url), 401),
        (http.get(&url).bearer_auth(&hub.member().await.token), 403),
        (http.get(format!("{url}/{}", Uuid::now_v7())).bearer_auth(&token), 404),
        (http.get(format!("{url}/nonsense")).bearer_auth(&token), 400),
        (http.delete(&one).bearer_auth(&token), 200),
        (http.delete(&one).bearer_auth(&token), 404),
    ] {
        assert_eq!(request.send().await.unwrap().status().as_u16(), code);
    }
}
