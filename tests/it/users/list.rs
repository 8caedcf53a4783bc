//! Lists of users: filters, search, and pages.

use reqwest::Client as Http;
use serde_json::Value;
use upbridge_client::v1;

use super::{admin_token, named, update};
use crate::harness::{self, TestHub, fault};

async fn list(hub: &TestHub, request: v1::ListUsersRequest) -> Vec<String> {
    let listed = hub.admin().await.users().list_users(request).await.unwrap().into_inner();
    listed.users.into_iter().map(|user| user.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_listed_newest_first_and_each_filter_narrows_the_list() {
    let hub = TestHub::start().await;
    let ana = named(&hub, "ana", "Ana").await;
    let bo = named(&hub, "bo", "Bo").await;
    named(&hub, "cem", "Cem").await;
    assert_eq!(list(&hub, v1::ListUsersRequest::default()).await, ["Cem", "Bo", "Ana", "Administrator"]);
    let admin = hub.admin().await;
    let role = Some(v1::Role::Reseller.into());
    admin.users().update_user(v1::UpdateUserRequest { role, ..update(&ana) }).await.unwrap();
    admin.users().deactivate_user(v1::DeactivateUserRequest { user_id: bo }).await.unwrap();
    hub.database.execute("UPDATE users SET sync_status = 'synced' WHERE email = 'cem@people.example'").await;
    let role = |role: v1::Role| v1::ListUsersRequest { role: Some(role.into()), ..Default::default() };
    let status = |status: v1::UserStatus| v1::ListUsersRequest { status: Some(status.into()), ..Default::default() };
    let sync = |sync: v1::SyncStatus| v1::ListUsersRequest { sync_status: Some(sync.into()), ..Default::default() };
    assert_eq!(list(&hub, role(v1::Role::Reseller)).await, ["Ana"]);
    assert_eq!(list(&hub, role(v1::Role::Member)).await, ["Cem", "Bo"]);
    assert_eq!(list(&hub, status(v1::UserStatus::Inactive)).await, ["Bo"]);
    assert_eq!(list(&hub, sync(v1::SyncStatus::Synced)).await, ["Cem"]);
    assert_eq!(list(&hub, sync(v1::SyncStatus::Error)).await, [""; 0]);
    let both = v1::ListUsersRequest { query: Some("people".into()), ..status(v1::UserStatus::Active) };
    assert_eq!(list(&hub, both).await, ["Cem", "Ana"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_in_any_case_and_its_wildcards_and_quotes_mean_themselves() {
    let hub = TestHub::start().await;
    let names = ["50% Ana", "under_score", "O'Brien", "the \"quoted\"", r"back\slash", "plain", "Élodie"];
    for (index, name) in names.iter().enumerate() {
        named(&hub, &format!("u{index}"), name).await;
    }
    let search =
        async |query: &str| list(&hub, v1::ListUsersRequest { query: Some(query.into()), ..Default::default() }).await;
    for (query, found) in [
        ("%", names[0]),
        ("0% a", names[0]),
        ("_", names[1]),
        ("r_s", names[1]),
        ("'", names[2]),
        ("o'BRIEN", names[2]),
        ("\"", names[3]),
        (r"\", names[4]),
        ("PLAIN", names[5]),
        ("Élo", names[6]),
        ("U5@People", names[5]),
        ("u5.HANDLE", names[5]),
    ] {
        assert_eq!(search(query).await, [found], "{query}");
    }
    for query in ["%%", "__", r"\%", "' OR '1'='1", "50_"] {
        assert_eq!(search(query).await, [""; 0], "{query:?}");
    }
    let nul = v1::ListUsersRequest { query: Some("\0".into()), ..Default::default() };
    assert_eq!(fault(hub.admin().await.users().list_users(nul).await), "query", "no database can hold it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_users_is_paged_and_its_token_is_bound_to_its_filters() {
    let hub = TestHub::start().await;
    for index in 0..5 {
        named(&hub, &format!("u{index}"), &format!("User {index}")).await;
    }
    let admin = hub.admin().await;
    let query = Some("people.example".to_owned());
    let mut request = v1::ListUsersRequest { query, page_size: Some(2), ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = admin.users().list_users(request.clone()).await.unwrap().into_inner();
        pages.push(page.users.into_iter().map(|user| user.name).collect::<Vec<_>>());
        // Who signs up while somebody turns pages is on the first page, not on the next.
        named(&hub, &format!("late{}", pages.len()), "late").await;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = Some(page.next_page_token);
    }
    assert_eq!(pages, [vec!["User 4", "User 3"], vec!["User 2", "User 1"], vec!["User 0"]]);
    for other in [
        v1::ListUsersRequest { query: None, ..request.clone() },
        v1::ListUsersRequest { role: Some(v1::Role::Member.into()), ..request.clone() },
        v1::ListUsersRequest { page_token: Some("nonsense".into()), ..request.clone() },
    ] {
        assert_eq!(fault(admin.users().list_users(other).await), "page_token");
    }
    for page_size in [0, -1, 201] {
        let request = v1::ListUsersRequest { page_size: Some(page_size), ..Default::default() };
        assert_eq!(fault(admin.users().list_users(request).await), "page_size");
    }
    // The same over HTTP, where the rest of the answer stands beside the users.
    let (http, token) = (Http::new(), admin_token(&hub).await);
    let page = |query: &str| harness::json(http.get(hub.url(&format!("/api/admin/users?{query}"))).bearer_auth(&token));
    let (code, first) = page("query=user&pageSize=2").await;
    assert_eq!(
        (code, first["data"][0]["name"].as_str(), first["success"].as_bool()),
        (200, Some("User 4"), Some(true))
    );
    let next = first["nextPageToken"].as_str().unwrap();
    assert_eq!(page(&format!("query=user&pageSize=2&pageToken={next}")).await.1["data"][0]["name"], "User 2");
    let (code, refused) = page(&format!("query=other&pageSize=2&pageToken={next}")).await;
    assert_eq!((code, &refused["error"]["details"][0]["field"]), (400, &Value::from("pageToken")));
}
