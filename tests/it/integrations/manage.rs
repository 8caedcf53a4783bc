//! Integrations as they are configured: what is taken, what is shown, what a change leaves behind.

use reqwest::Client as Http;
use serde_json::{Value, json};
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Client, Code, v1};
use uuid::Uuid;

use super::{add, logged, new, partner, structure, text};
use crate::harness::{self, ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestHub, fault, refusal};

const SID: &str = "AC0123456789abcdef0123456789abcdef";

/// Good credentials of every provider.
fn all() -> [(Provider, Value); 7] {
    [
        (Provider::Midtrans, json!({ "serverKey": "SB-Mid-server-midtranskey1" })),
        (Provider::Xendit, json!({ "secretKey": "xnd_development_key1", "callbackToken": "xendit-callback-1" })),
        (Provider::Stripe, json!({ "secretKey": "sk_test_stripekey1", "webhookSecret": "whsec_stripehook1" })),
        (Provider::Twilio, json!({ "accountSid": SID, "authToken": "twiliotoken12345" })),
        (Provider::Wablas, json!({ "token": "wablastoken12345" })),
        (Provider::Fonnte, json!({ "token": "fonntetoken12345" })),
        (Provider::Smtp, smtp()),
    ]
}

fn smtp() -> Value {
    json!({
        "host": "mail.example.com", "port": 587, "username": "ana@example.com", "password": "smtp password 1",
        "from": "ana@example.com", "security": "starttls",
    })
}

fn request(partner_id: &str, provider: Provider, credentials: &Value) -> v1::CreateIntegrationRequest {
    let base_url = (provider == Provider::Wablas).then(|| "https://solo.wablas.com".to_owned());
    v1::CreateIntegrationRequest { base_url, ..new(partner_id, provider, credentials) }
}

fn change(integration_id: &str) -> v1::UpdateIntegrationRequest {
    v1::UpdateIntegrationRequest { integration_id: integration_id.into(), ..Default::default() }
}

async fn update(admin: &Client, request: v1::UpdateIntegrationRequest) -> v1::Integration {
    admin.integrations().update_integration(request).await.expect("updated").into_inner().integration.expect("it")
}

async fn get(admin: &Client, id: &str) -> v1::Integration {
    let request = v1::GetIntegrationRequest { integration_id: id.into() };
    admin.integrations().get_integration(request).await.expect("one").into_inner().integration.expect("it")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_is_told_added_and_shown_with_its_secrets_masked() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let mut integrations = admin.integrations();
    let told = integrations.list_providers(v1::ListProvidersRequest::default()).await.unwrap().into_inner().providers;
    assert_eq!(told.len(), 7);
    let partner_id = partner(&admin, "Ana").await;
    let mut made = Vec::new();
    for (provider, credentials) in all() {
        let info = told.iter().find(|info| info.provider() == provider).unwrap();
        let answer = integrations.create_integration(request(&partner_id, provider, &credentials)).await.unwrap();
        let v1::CreateIntegrationResponse { integration, callback_path } = answer.into_inner();
        let integration = integration.unwrap();
        assert_eq!((integration.provider(), integration.category()), (provider, info.category()));
        assert_eq!((integration.environment(), integration.is_active), (v1::IntegrationEnvironment::Sandbox, true));
        assert!(integration.created_by.is_some() && integration.last_test.is_none());
        for credential in &info.credentials {
            let given = &credentials[&credential.name];
            let shown = &integration.credentials.as_ref().unwrap().fields.get(&credential.name);
            assert_eq!(shown.is_some(), !given.is_null(), "{}", credential.name);
            let (Some(given), Some(shown)) = (given.as_str(), text(&integration.credentials, &credential.name)) else {
                continue;
            };
            let masked = format!("••••{}", &given[given.len() - 4..]);
            assert_eq!(shown, if credential.secret { masked.as_str() } else { given }, "{}", credential.name);
        }
        let path = format!("/api/webhooks/integrations/{}", integration.id);
        if info.callback_proof == "path" {
            let token = callback_path.strip_prefix(&format!("{path}/")).unwrap();
            assert_eq!((token.len(), integration.callback_path), (43, format!("{path}/••••")));
        } else {
            assert_eq!((&callback_path, &integration.callback_path), (&path, &path));
        }
        made.push(get(&admin, &integration.id).await);
        assert_eq!(logged(&hub, &integration.id).await.len(), 1);
    }
    let listed = v1::ListIntegrationsRequest { partner_id, ..Default::default() };
    let mut listed = integrations.list_integrations(listed).await.unwrap().into_inner().integrations;
    listed.reverse();
    assert_eq!(listed, made);
    let category = Some(v1::IntegrationCategory::Whatsapp.into());
    let whatsapp = integrations.list_providers(v1::ListProvidersRequest { category }).await.unwrap().into_inner();
    let names: Vec<_> = whatsapp.providers.iter().map(|info| (&*info.name, &*info.base_url_domain)).collect();
    assert_eq!(names, [("Twilio", "twilio.com"), ("Wablas", "wablas.com"), ("Fonnte", "fonnte.com")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_sends_back_what_it_was_shown_changes_nothing_but_what_was_edited() {
    let hub = Setup::default().set("INTEGRATION_ALLOWED_HOSTS", "other.example, Proxy.example.com").start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let key = json!({ "serverKey": "SB-Mid-server-first1", "signatureKey": "signature-key-1" });
    let made = add(&admin, new(&partner_id, Provider::Midtrans, &key)).await;
    let shown = v1::UpdateIntegrationRequest {
        name: Some(made.name.clone()),
        environment: Some(made.environment),
        credentials: made.credentials.clone(),
        is_active: Some(true),
        category: Some(made.category),
        provider: Some(made.provider),
        ..change(&made.id)
    };
    hub.clock.advance(chrono::TimeDelta::seconds(1));
    assert_eq!(update(&admin, shown.clone()).await, made, "nothing was edited");
    let edited = v1::UpdateIntegrationRequest {
        name: Some("Main".into()),
        environment: Some(v1::IntegrationEnvironment::Production.into()),
        base_url: Some("https://PROXY.example.com/midtrans/".into()),
        credentials: structure(&json!({ "serverKey": "SB-Mid-server-first1", "signatureKey": null })),
        ..shown
    };
    let led_away = structure(&json!({ "serverKey": "••••rst1", "signatureKey": null }));
    let led_away = v1::UpdateIntegrationRequest { credentials: led_away, ..edited.clone() };
    assert_eq!(fault(admin.integrations().update_integration(led_away).await), "credentials.serverKey");
    let edited = update(&admin, edited).await;
    assert_eq!(
        (edited.name.as_str(), edited.base_url.as_deref()),
        ("Main", Some("https://proxy.example.com/midtrans"))
    );
    assert_eq!(
        (text(&edited.credentials, "serverKey"), text(&edited.credentials, "signatureKey")),
        (Some("••••rst1"), None)
    );
    assert_eq!(edited.updated_at.unwrap().seconds, made.updated_at.unwrap().seconds + 1);
    let rekeyed = structure(&json!({ "serverKey": "Mid-server-second2" }));
    let rekeyed = v1::UpdateIntegrationRequest { credentials: rekeyed, base_url: Some("".into()), ..change(&made.id) };
    let rekeyed = update(&admin, rekeyed).await;
    assert_eq!((text(&rekeyed.credentials, "serverKey"), rekeyed.base_url.as_deref()), (Some("••••ond2"), None));
    let off = update(&admin, v1::UpdateIntegrationRequest { is_active: Some(false), ..change(&made.id) }).await;
    assert!(!off.is_active);
    assert_eq!(get(&admin, &made.id).await, off);
    assert_eq!(
        logged(&hub, &made.id).await,
        [
            r#"config_change success {"changed":["name","environment","isActive","credentials.serverKey","credentials.signatureKey"]}"#,
            r#"config_change success {"changed":["name","environment","baseUrl","credentials.signatureKey"]}"#,
            r#"config_change success {"changed":["baseUrl","credentials.serverKey"]}"#,
            r#"config_change success {"changed":["isActive"]}"#,
        ]
    );
    let who = "SELECT COUNT(*) FROM integration_logs WHERE ip_address = '127.0.0.1' AND user_id IS NOT NULL AND \
               user_agent IS NOT NULL";
    assert_eq!(hub.database.count(who).await, 4);
    let sql = format!("SELECT action FROM audit_log WHERE target_id = '{}'", made.id);
    assert_eq!(hub.database.texts(&sql).await.len(), 4);
    // What an integration is for stays.
    for other in [
        v1::UpdateIntegrationRequest { provider: Some(Provider::Stripe.into()), ..change(&made.id) },
        v1::UpdateIntegrationRequest { category: Some(v1::IntegrationCategory::Email.into()), ..change(&made.id) },
    ] {
        assert!(
            ["provider", "category"].contains(&fault(admin.integrations().update_integration(other).await).as_str())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_integration_is_named_and_nothing_is_kept_of_it() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let create = async |request: v1::CreateIntegrationRequest| admin.integrations().create_integration(request).await;
    let with = |provider, credentials: Value| new(&partner_id, provider, &credentials);
    let based = |provider, url: &str, credentials: &Value| v1::CreateIntegrationRequest {
        base_url: Some(url.into()),
        ..new(&partner_id, provider, credentials)
    };
    let key = json!({ "serverKey": "SB-Mid-server-x" });
    let mut host = smtp();
    host["host"] = json!("0x7f.1");
    for (request, field) in [
        (with(Provider::Midtrans, json!({})), "credentials.serverKey"),
        (with(Provider::Midtrans, json!({ "serverkey": "x" })), "credentials.serverkey"),
        (with(Provider::Stripe, json!({ "secretKey": "pk_test_x" })), "credentials.secretKey"),
        (with(Provider::Twilio, json!({ "accountSid": "AC1", "authToken": "x" })), "credentials.accountSid"),
        (with(Provider::Wablas, json!({ "token": "x" })), "base_url"),
        (with(Provider::Smtp, host), "credentials.host"),
        (based(Provider::Smtp, "https://mail.example.com", &smtp()), "base_url"),
        (based(Provider::Wablas, "https://wablas.evil.example", &json!({ "token": "x" })), "base_url"),
        (based(Provider::Midtrans, "https://api.stripe.com", &key), "base_url"),
        (based(Provider::Midtrans, "https://127.0.0.1", &key), "base_url"),
        (based(Provider::Midtrans, "https://[::ffff:a9fe:a9fe]/latest", &key), "base_url"),
        (based(Provider::Midtrans, "http://api.example.com", &key), "base_url"),
        (based(Provider::Midtrans, "https://a:b@api.example.com", &key), "base_url"),
        (v1::CreateIntegrationRequest { name: " \t".into(), ..with(Provider::Midtrans, key.clone()) }, "name"),
        (v1::CreateIntegrationRequest { provider: 99, ..with(Provider::Midtrans, key.clone()) }, "provider"),
        (
            v1::CreateIntegrationRequest { provider: Provider::Smtp.into(), ..with(Provider::Midtrans, key.clone()) },
            "provider",
        ),
    ] {
        assert_eq!(fault(create(request).await), field);
    }
    let stranger = new(&Uuid::now_v7().to_string(), Provider::Midtrans, &key);
    assert_eq!(refusal(create(stranger).await), (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM partner_integrations").await, 0);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM integration_logs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_nowhere_new_unless_they_are_given_again() {
    const HELD: &str = "SB-Mid-server-held1";
    let hub = Setup::default().set("INTEGRATION_ALLOWED_HOSTS", "proxy.example.com").start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let shop = add(&admin, new(&partner_id, Provider::Midtrans, &json!({ "serverKey": HELD }))).await;
    let mail = add(&admin, new(&partner_id, Provider::Smtp, &smtp())).await;
    let moved = |url: &str, given: Value| v1::UpdateIntegrationRequest {
        base_url: Some(url.into()),
        credentials: if given.is_null() { None } else { structure(&given) },
        ..change(&shop.id)
    };
    let mailed = |given: Value| v1::UpdateIntegrationRequest { credentials: structure(&given), ..change(&mail.id) };
    for (request, field) in [
        (moved("https://evil.example", json!({ "serverKey": HELD })), "base_url"),
        (moved("https://proxy.example.com", Value::Null), "credentials.serverKey"),
        (moved("https://proxy.example.com", json!({ "serverKey": "••••eld1" })), "credentials.serverKey"),
        (moved("https://api.midtrans.com:8443", json!({})), "credentials.serverKey"),
        (mailed(json!({ "host": "mail.evil.example" })), "credentials.password"),
        (mailed(json!({ "port": 25, "password": "••••rd 1" })), "credentials.password"),
        (mailed(json!({ "security": "none" })), "credentials.password"),
    ] {
        assert_eq!(fault(admin.integrations().update_integration(request.clone()).await), field, "{request:?}");
    }
    assert_eq!((get(&admin, &shop.id).await, get(&admin, &mail.id).await), (shop.clone(), mail.clone()));
    let refused = admin.integrations().update_integration(moved("https://proxy.example.com", Value::Null)).await;
    let said = format!("{:?}", refused.unwrap_err());
    assert!(said.contains("must be given again, because the address changes"), "{said}");
    // Nothing of it goes elsewhere.
    for request in [moved("https://api.sandbox.midtrans.com", Value::Null), mailed(json!({ "username": "bo" }))] {
        update(&admin, request).await;
    }
    update(&admin, moved("https://proxy.example.com", json!({ "serverKey": HELD }))).await;
    update(&admin, mailed(json!({ "host": "mail2.example.com", "port": 465, "password": "new password 2" }))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_inside_is_taken_where_its_network_is_listed() {
    let hub = Setup::default().set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8").start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let wablas = v1::CreateIntegrationRequest {
        base_url: Some("http://127.1:8080/".into()),
        ..new(&partner_id, Provider::Wablas, &json!({ "token": "wablastoken12345" }))
    };
    assert_eq!(add(&admin, wablas).await.base_url.as_deref(), Some("http://127.0.0.1:8080"));
    let mut credentials = smtp();
    credentials["host"] = json!("127.0.0.1");
    let made = add(&admin, new(&partner_id, Provider::Smtp, &credentials)).await;
    assert_eq!(text(&made.credentials, "host"), Some("127.0.0.1"));
    let beside =
        v1::UpdateIntegrationRequest { credentials: structure(&json!({ "host": "10.0.0.1" })), ..change(&made.id) };
    assert_eq!(fault(admin.integrations().update_integration(beside).await), "credentials.host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_by_a_partner_and_again_by_another_also_when_many_ask_at_once() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let (ana, bo) = (partner(&admin, "Ana").await, partner(&admin, "Bo").await);
    let named = |partner_id: &str, name: &str| v1::CreateIntegrationRequest {
        name: name.into(),
        ..new(partner_id, Provider::Fonnte, &json!({ "token": "fonntetoken12345" }))
    };
    let asking = (0..12).map(|at| {
        let (admin, request) = (admin.clone(), named(&ana, if at % 2 == 0 { "main" } else { "MAIN" }));
        tokio::spawn(async move { admin.integrations().create_integration(request).await.map(drop) })
    });
    let answers = futures::future::join_all(asking).await.into_iter().map(|answer| answer.unwrap());
    let (added, refused): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
    assert_eq!((added.len(), refused.len()), (1, 11));
    for answer in refused {
        assert_eq!(refusal(answer), (Code::AlreadyExists, "ALREADY_EXISTS".into()));
    }
    add(&admin, named(&bo, "Main")).await;
    let other = add(&admin, named(&ana, "other")).await;
    let rename = v1::UpdateIntegrationRequest { name: Some("mAIN".into()), ..change(&other.id) };
    assert_eq!(refusal(admin.integrations().update_integration(rename).await).0, Code::AlreadyExists);
    let same = v1::UpdateIntegrationRequest { name: Some("OTHER".into()), ..change(&other.id) };
    assert_eq!(update(&admin, same).await.name, "OTHER");
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM integration_logs").await, 4, "what is refused leaves no entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_change_different_credentials_at_once_both_find_theirs_kept() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let made = add(&admin, new(&partner_id, Provider::Stripe, &json!({ "secretKey": "sk_test_000000000" }))).await;
    let asking = (0..20).map(|at| {
        let name = if at % 2 == 0 { "secretKey" } else { "webhookSecret" };
        let credentials = structure(&json!({ name: format!("{name}-abcdefgh-{at:04}") }));
        let (admin, request) = (admin.clone(), v1::UpdateIntegrationRequest { credentials, ..change(&made.id) });
        tokio::spawn(async move { update(&admin, request).await })
    });
    futures::future::join_all(asking).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    let kept = get(&admin, &made.id).await;
    let last = |name| text(&kept.credentials, name).unwrap().trim_start_matches('•').parse::<u32>().unwrap();
    assert_eq!((last("secretKey") % 2, last("webhookSecret") % 2), (0, 1));
    assert_eq!(logged(&hub, &made.id).await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_integrations_are_filtered_and_paged() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let (ana, bo) = (partner(&admin, "Ana").await, partner(&admin, "Bo").await);
    let mut ids = Vec::new();
    for (provider, credentials) in all() {
        ids.push(add(&admin, request(&ana, provider, &credentials)).await.id);
    }
    add(&admin, request(&bo, Provider::Midtrans, &all()[0].1)).await;
    let production = Some(v1::IntegrationEnvironment::Production.into());
    let changed = v1::UpdateIntegrationRequest { environment: production, is_active: Some(false), ..change(&ids[1]) };
    update(&admin, changed).await;
    let all = v1::ListIntegrationsRequest { partner_id: ana.clone(), ..Default::default() };
    let listed = async |request: v1::ListIntegrationsRequest| {
        let page = admin.integrations().list_integrations(request).await.unwrap().into_inner();
        let places = page.integrations.iter().map(|one| ids.iter().position(|id| *id == one.id).unwrap());
        (places.collect::<Vec<_>>(), page.next_page_token)
    };
    let payments = Some(v1::IntegrationCategory::PaymentGateway.into());
    for (request, found) in [
        (v1::ListIntegrationsRequest { category: payments, ..all.clone() }, vec![2, 1, 0]),
        (v1::ListIntegrationsRequest { provider: Some(Provider::Twilio.into()), ..all.clone() }, vec![3]),
        (v1::ListIntegrationsRequest { environment: production, ..all.clone() }, vec![1]),
        (v1::ListIntegrationsRequest { is_active: Some(false), ..all.clone() }, vec![1]),
        (v1::ListIntegrationsRequest { is_active: Some(true), category: payments, ..all.clone() }, vec![2, 0]),
    ] {
        assert_eq!(listed(request).await.0, found);
    }
    let mut request = v1::ListIntegrationsRequest { page_size: Some(3), ..all };
    let mut pages = Vec::new();
    loop {
        let (page, next) = listed(request.clone()).await;
        pages.push(page);
        if next.is_empty() {
            break;
        }
        request.page_token = Some(next);
    }
    assert_eq!(pages, [vec![6, 5, 4], vec![3, 2, 1], vec![0]]);
    for other in [
        v1::ListIntegrationsRequest { partner_id: bo, ..request.clone() },
        v1::ListIntegrationsRequest { is_active: Some(true), ..request.clone() },
    ] {
        assert_eq!(fault(admin.integrations().list_integrations(other).await), "page_token");
    }
    let stranger = v1::ListIntegrationsRequest { partner_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(refusal(admin.integrations().list_integrations(stranger).await).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_goes_with_its_history_and_the_audit_keeps_that_it_was() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let gone = add(&admin, new(&partner_id, Provider::Fonnte, &json!({ "token": "fonntetoken12345" }))).await;
    let stays = add(&admin, new(&partner_id, Provider::Twilio, &all()[3].1)).await;
    for at in 0..5 {
        update(&admin, v1::UpdateIntegrationRequest { name: Some(format!("name {at}")), ..change(&gone.id) }).await;
    }
    let delete = || v1::DeleteIntegrationRequest { integration_id: gone.id.clone() };
    admin.integrations().delete_integration(delete()).await.unwrap();
    assert_eq!(refusal(admin.integrations().delete_integration(delete()).await).0, Code::NotFound);
    let get = v1::GetIntegrationRequest { integration_id: gone.id.clone() };
    assert_eq!(refusal(admin.integrations().get_integration(get).await).0, Code::NotFound);
    assert_eq!(refusal(admin.integrations().update_integration(change(&gone.id)).await).0, Code::NotFound);
    assert_eq!(logged(&hub, &gone.id).await.len(), 0);
    assert_eq!(logged(&hub, &stays.id).await.len(), 1);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM integration_counts WHERE span = 'total'").await, 1);
    let sql = format!("SELECT action FROM audit_log WHERE target_id = '{}' ORDER BY id DESC", gone.id);
    assert_eq!(hub.database.texts(&sql).await[0], "integration.deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_path_of_callbacks_is_made_anew_and_shown_once() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let request = new(&partner_id, Provider::Smtp, &smtp());
    let made = admin.integrations().create_integration(request).await.unwrap().into_inner();
    let id = made.integration.unwrap().id;
    let rotate = |id: &str| v1::RotateCallbackTokenRequest { integration_id: id.into() };
    let path = admin.integrations().rotate_callback_token(rotate(&id)).await.unwrap().into_inner().callback_path;
    assert!(path.starts_with(&format!("/api/webhooks/integrations/{id}/")) && path != made.callback_path);
    assert_eq!(get(&admin, &id).await.callback_path, format!("/api/webhooks/integrations/{id}/••••"));
    assert_eq!(logged(&hub, &id).await[1], r#"config_change success {"changed":["callbackToken"]}"#);
    let signed = add(&admin, request_of_midtrans(&partner_id)).await.id;
    let refused = admin.integrations().rotate_callback_token(rotate(&signed)).await;
    assert_eq!(refusal(refused), (Code::FailedPrecondition, "INVALID_STATE".into()));
    let stranger = rotate(&Uuid::now_v7().to_string());
    assert_eq!(refusal(admin.integrations().rotate_callback_token(stranger).await).0, Code::NotFound);
}

fn request_of_midtrans(partner_id: &str) -> v1::CreateIntegrationRequest {
    new(partner_id, Provider::Midtrans, &all()[0].1)
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_managed_over_http_with_the_words_of_the_sources() {
    let hub = TestHub::start().await;
    let http = Http::new();
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
    let partner_id = partner(&hub.admin().await, "Ana").await;
    let url = hub.url(&format!("/api/admin/partners/{partner_id}/integrations"));
    let body = json!({
        "category": "payment_gateway", "provider": "midtrans", "name": "Main", "environment": "production",
        "credentials": { "serverKey": "Mid-server-abcdefgh" },
    });
    let (code, made) = harness::json(http.post(&url).bearer_auth(&token).json(&body)).await;
    assert_eq!((code, &made["success"]), (201, &json!(true)), "{made}");
    let data = &made["data"];
    assert_eq!((&data["provider"], &data["environment"]), (&json!("midtrans"), &json!("production")));
    assert_eq!(data["credentials"], json!({ "serverKey": "••••efgh" }));
    let one = hub.url(&format!("/api/admin/integrations/{}", data["id"].as_str().unwrap()));
    assert_eq!(harness::json(http.get(&one).bearer_auth(&token)).await.1["data"], *data);
    let form = json!({ "name": "Renamed", "provider": "midtrans", "credentials": data["credentials"] });
    let (code, changed) = harness::json(http.put(&one).bearer_auth(&token).json(&form)).await;
    assert_eq!((code, &changed["data"]["name"]), (200, &json!("Renamed")), "{changed}");
    for (credentials, shown) in [
        (json!({ "signatureKey": "signature-key-1" }), json!({ "serverKey": "••••efgh", "signatureKey": "••••ey-1" })),
        (json!({ "signatureKey": null }), json!({ "serverKey": "••••efgh" })),
    ] {
        let form = json!({ "credentials": credentials });
        let (code, changed) = harness::json(http.patch(&one).bearer_auth(&token).json(&form)).await;
        assert_eq!((code, &changed["data"]["credentials"]), (200, &shown));
    }
    let form = json!({ "baseUrl": "https://169.254.169.254" });
    let (code, refused) = harness::json(http.patch(&one).bearer_auth(&token).json(&form)).await;
    let detail = json!({ "field": "baseUrl", "description": "is not an address the hub may call" });
    assert_eq!((code, &refused["error"]["details"][0]), (400, &detail));
    let (_, listed) = harness::json(http.get(&url).bearer_auth(&token)).await;
    assert_eq!((listed["success"].as_bool(), listed["data"].as_array().unwrap().len()), (Some(true), 1));
    let bad = json!({ "category": "email", "provider": "smtp", "name": "Mail", "credentials": { "port": 25 } });
    let (code, refused) = harness::json(http.post(&url).bearer_auth(&token).json(&bad)).await;
    assert_eq!((code, &refused["error"]["details"][0]["field"]), (400, &json!("credentials.host")), "{refused}");
    for unknown in ["paypal", ""] {
        let mut body = body.clone();
        body["provider"] = json!(unknown);
        assert_eq!(harness::json(http.post(&url).bearer_auth(&token).json(&body)).await.0, 400, "{unknown}");
    }
    let (code, told) = harness::json(http.get(hub.url("/api/admin/integration-providers")).bearer_auth(&token)).await;
    assert_eq!((code, told["data"].as_array().unwrap().len()), (200, 7));
    let member = hub.member().await.token;
    for (request, code) in [
        (http.get(&url), 401),
        (http.post(&url).bearer_auth(&member).json(&body), 403),
        (http.get(&one).bearer_auth(&member), 403),
        (http.delete(&one).bearer_auth(&token), 200),
        (http.get(&one).bearer_auth(&token), 404),
        (http.get(hub.url(&format!("/api/admin/partners/{}/integrations", Uuid::now_v7()))).bearer_auth(&token), 404),
    ] {
        assert_eq!(request.send().await.unwrap().status().as_u16(), code);
    }
}
