//! Mail servers: every behaviour the fact sheet has seen, bounded in time, and no password said twice.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Client, v1};

use super::{LONG, Stage, fault, hasty, near, test};
use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, TestDatabase, eventually};
use crate::integrations::{add, new, partner};
use crate::peer::{Begins, HttpPeer, MAIL_PASSWORD, MAIL_USER, Manners, OwnTls, Reply, SmtpPeer, Stall};

fn credentials(host: &str, port: u16, security: &str) -> Value {
    json!({
        "host": host, "port": port, "username": MAIL_USER, "password": MAIL_PASSWORD,
        "from": MAIL_USER, "security": security,
    })
}

async fn tested(
    stage: &Stage,
    manners: Manners,
    security: &str,
) -> (v1::ConnectionTest, v1::ConnectionDiagnosis, usize) {
    let peer = SmtpPeer::start(manners).await;
    let id = stage.add(Provider::Smtp, &credentials("127.0.0.1", peer.address.port(), security), None).await;
    let begun = Instant::now();
    let (test, diagnosis) = stage.test(&id).await;
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    let shown = format!("{test:?} {diagnosis:?}");
    assert!(!shown.contains(MAIL_PASSWORD), "{shown}");
    let tries = peer.heard().iter().filter(|line| line.starts_with("AUTH")).count();
    (test, diagnosis, tries)
}

/// Waits until a server has heard that the hub takes leave. For that the hub itself waits a moment only.
async fn took_leave(peer: &SmtpPeer) {
    eventually("it takes leave", async || peer.heard().last().is_some_and(|line| line == "QUIT")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_is_let_in_and_takes_leave() {
    let stage = Stage::of(near()).await;
    let peer = SmtpPeer::start(Manners::default()).await;
    let id = stage.add(Provider::Smtp, &credentials("localhost", peer.address.port(), "none"), None).await;
    let (test, diagnosis) = stage.test(&id).await;
    assert_eq!((fault(&diagnosis), test.message.as_str()), (None, "SMTP connection successful"));
    assert_eq!(diagnosis.provider_status, Some(235));
    assert!(diagnosis.warnings[0].contains("unencrypted"), "{diagnosis:?}");
    took_leave(&peer).await;
    let verbs: Vec<String> = peer.heard().iter().map(|line| line[..4].to_owned()).collect();
    assert_eq!(verbs, ["EHLO", "AUTH", "QUIT"]);
    let asked =
        stage.hub.database.texts("SELECT CAST(request_data AS TEXT) FROM integration_logs WHERE action = 'test'");
    let asked: Value = serde_json::from_str(&asked.await[0]).unwrap();
    assert_eq!(asked, json!({ "provider": "smtp", "environment": "sandbox", "host": "localhost" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_nothing_but_login_is_signed_in_to_with_the_right_password_alone() {
    let stage = Stage::of(near()).await;
    let peer = SmtpPeer::start(Manners { mechanisms: "LOGIN", ..Manners::default() }).await;
    let good = credentials("localhost", peer.address.port(), "none");
    let id = stage.add(Provider::Smtp, &good, None).await;
    let (test, diagnosis) = stage.test(&id).await;
    assert_eq!((fault(&diagnosis), test.message.as_str()), (None, "SMTP connection successful"));
    assert_eq!(diagnosis.provider_status, Some(235));
    let encoded = [MAIL_USER, MAIL_PASSWORD].map(|text| STANDARD.encode(text));
    took_leave(&peer).await;
    let heard = peer.heard();
    assert_eq!(heard[1..], ["AUTH LOGIN".to_owned(), encoded[0].clone(), encoded[1].clone(), "QUIT".to_owned()]);
    for (member, wrong) in [("password", "another-password"), ("username", "somebody@mail.example")] {
        let mut credentials = good.clone();
        credentials[member] = json!(wrong);
        let id = stage.add(Provider::Smtp, &credentials, None).await;
        let before = peer.heard().iter().filter(|line| line.starts_with("AUTH")).count();
        let (test, diagnosis) = stage.test(&id).await;
        assert_eq!(fault(&diagnosis), Some(("auth", "auth_failed")), "{member}: {}", test.message);
        assert_eq!(diagnosis.provider_status, Some(535), "{member}");
        let tries = peer.heard().iter().filter(|line| line.starts_with("AUTH")).count() - before;
        assert_eq!(tries, 1, "{member}: no password is tried twice");
        let shown = format!("{test:?} {diagnosis:?}");
        assert!(!shown.contains(wrong) && !shown.contains(MAIL_PASSWORD), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_told_apart_and_the_password_is_given_once() {
    let stage = Stage::of(near()).await;
    let plain = Manners::default;
    let says = |verdict| Manners { verdict: Some(verdict), ..plain() };
    let greets = |greeting: &[u8]| Manners { greeting: greeting.to_vec(), ..plain() };
    let auth = ("auth", "auth_failed");
    let config = ("config", "configuration");
    let down = ("provider_down", "provider_unavailable");
    for (manners, security, meaning, code, hint) in [
        (says("535 5.7.8 Username and Password not accepted"), "none", auth, Some(535), "app password"),
        (
            says("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"),
            "none",
            auth,
            Some(535),
            "enable SMTP AUTH",
        ),
        (says("534 5.7.9 Application-specific password required"), "none", auth, Some(534), "app password"),
        (says("530 5.7.0 Must issue a STARTTLS command first"), "none", config, Some(530), "starttls"),
        (says("454 4.7.0 Temporary authentication failure"), "none", down, Some(454), "later"),
        (greets(b"421 Service not available\r\n"), "none", down, Some(421), "later"),
        (greets(b"421 4.7.0 Too many connections\r\n"), "none", ("rate_limited", "rate_limited"), Some(421), "minutes"),
        (greets(b"554 No SMTP service here\r\n"), "none", config, Some(554), "blocked"),
        (Manners { mechanisms: "", ..plain() }, "none", config, None, "takes no password"),
        (Manners { mechanisms: "XOAUTH2", ..plain() }, "none", config, None, "OAuth2"),
        (plain(), "starttls", config, None, "no STARTTLS"),
        (plain(), "tls", config, None, "does not begin with TLS"),
        (Manners { tls: Begins::Asked, ..plain() }, "none", config, None, "takes no password"),
        (Manners { tls: Begins::Asked, ..plain() }, "starttls", ("tls", "tls"), None, "certificate"),
        (Manners { tls: Begins::AtOnce, ..plain() }, "tls", ("tls", "tls"), None, "certificate"),
        (
            greets(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "none",
            ("invalid_answer", "unexpected_response"),
            None,
            "no mail server",
        ),
        (greets(b"SSH-2.0-OpenSSH_9.6\r\n"), "none", ("invalid_answer", "unexpected_response"), None, "no mail server"),
        (greets(b"\xff\xfe\xfd\r\n"), "none", ("invalid_answer", "unexpected_response"), None, "no mail server"),
    ] {
        let (test, diagnosis, tries) = tested(&stage, manners.clone(), security).await;
        assert_eq!(fault(&diagnosis), Some(meaning), "{security} {manners:?}: {}", test.message);
        assert_eq!(diagnosis.provider_status, code, "{manners:?}");
        assert!(test.message.contains(hint), "{manners:?}: {}", test.message);
        assert!(tries <= 1 && tries == usize::from(manners.verdict.is_some()), "{manners:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_anywhere_is_given_up_in_time() {
    let stage = Stage::of(hasty()).await;
    let stalls = [
        (Stall::Connect, Begins::Never, "none"),
        (Stall::Ehlo, Begins::Never, "none"),
        (Stall::Auth, Begins::Never, "none"),
        (Stall::StartTls, Begins::Asked, "starttls"),
        // A port that is plain waits for the hub to speak, and one that is TLS does so too.
        (Stall::Connect, Begins::Never, "tls"),
        (Stall::Connect, Begins::AtOnce, "none"),
    ];
    let each = stalls.map(async |(stall, tls, security)| {
        let (test, diagnosis, _) =
            tested(&stage, Manners { stall: Some(stall), tls, ..Manners::default() }, security).await;
        assert_eq!(fault(&diagnosis), Some(("timeout", "timeout")), "{stall:?} {security}: {}", test.message);
    });
    futures::future::join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_without_end_is_not_read_to_its_end() {
    let stage = Stage::of(near()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = 0_usize;
        while let Ok(written) = stream.write(&[b'2'; 64 * 1024]).await {
            sent += written;
        }
        sent
    });
    let id = stage.add(Provider::Smtp, &credentials("127.0.0.1", port, "none"), None).await;
    assert_eq!(fault(&stage.test(&id).await.1), Some(("invalid_answer", "unexpected_response")));
    let sent = flood.await.unwrap();
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_nowhere_or_inside_are_told_apart() {
    let stage = Stage::of(near()).await;
    let unknown = stage.add(Provider::Smtp, &credentials("mail.invalid", 587, "starttls"), None).await;
    let (test, diagnosis) = stage.test(&unknown).await;
    assert_eq!(fault(&diagnosis), Some(("network", "connection")), "{}", test.message);
    let peer = SmtpPeer::start(Manners::default()).await;
    let inside = stage.add(Provider::Smtp, &credentials("localhost", peer.address.port(), "none"), None).await;
    let hub = crate::harness::Setup::default().start_on(stage.hub.stop().await).await;
    let (test, diagnosis) = super::test(&hub.admin().await, &inside).await;
    assert_eq!(fault(&diagnosis), Some(("blocked_target", "blocked_target")), "{}", test.message);
    assert!(peer.heard().is_empty());
}

/// Signs in to a hub that runs as a process.
async fn admin(hub: &HubProcess) -> Client {
    let client = hub.client().await;
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let token = client.auth().login(login).await.expect("signed in").into_inner().token;
    client.with_bearer(token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_is_good_for_the_host_it_names_and_for_no_other() {
    let (tls, database) = (OwnTls::new(), TestDatabase::new().await);
    let trusted = database.directory.path().join("trusted.pem");
    std::fs::write(&trusted, &tls.pem).unwrap();
    let mut command = HubProcess::command(&database);
    command.env("SSL_CERT_FILE", &trusted).env("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8");
    let hub = HubProcess::run(&mut command);
    let admin = admin(&hub).await;
    let partner_id = partner(&admin, "Contoh").await;
    let ends = [(Begins::Asked, "starttls"), (Begins::AtOnce, "tls")];
    for (begins, security) in ends {
        let peer = SmtpPeer::with_tls(Manners { tls: begins, ..Manners::default() }, &tls).await;
        // Another name for the same machine, which the certificate does not have.
        for (host, meaning) in [("localhost", None), ("127.0.0.2", Some(("network", "connection")))] {
            let request = v1::CreateIntegrationRequest {
                name: format!("{security} {host}"),
                ..new(&partner_id, Provider::Smtp, &credentials(host, peer.address.port(), security))
            };
            let (test, diagnosis) = test(&admin, &add(&admin, request).await.id).await;
            assert_eq!(fault(&diagnosis), meaning, "{security} {host}: {}", test.message);
            if meaning.is_none() {
                assert!(diagnosis.warnings.is_empty() && diagnosis.provider_status == Some(235), "{diagnosis:?}");
            }
        }
    }
    let peer = HttpPeer::at("127.0.0.1:0".parse().unwrap(), Some(tls.acceptor.clone())).await;
    peer.always(Reply::json(200, r#"{"balance":1}"#));
    let xendit = v1::CreateIntegrationRequest {
        base_url: Some(peer.url()),
        ..new(&partner_id, Provider::Xendit, &json!({ "secretKey": "xnd_development_key" }))
    };
    let (test, diagnosis) = test(&admin, &add(&admin, xendit).await.id).await;
    assert_eq!((fault(&diagnosis), test.message.as_str()), (None, "Xendit connection successful"));
}
