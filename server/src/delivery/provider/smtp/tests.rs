//! What is told of a mail server, for every behaviour one was seen to have.

use super::super::check::account;
use super::*;
use crate::model::integration::Provider;
use serde_json::{Value, json};

fn whole() -> Value {
    json!({
        "host": "mail.example.com", "port": 587, "username": "u@example.com", "password": "hunter22",
        "from": "DigiUp <no-reply@example.com>", "security": "starttls",
    })
}

fn server(port: u16, security: Security) -> Server<'static> {
    Server { host: "mail.example.com", port, security, credentials: Credentials::new(String::new(), String::new()) }
}

#[test]
fn every_field_that_is_missing_or_wrong_is_named() {
    let read = |credentials: Value| configured(&account(Provider::Smtp, credentials)).map(|server| server.security);
    assert_eq!(read(whole()), Ok(Security::StartTls));
    let bad = [
        ("host", json!("")),
        ("port", json!(0)),
        ("port", json!(65536)),
        ("port", json!("587")),
        ("username", Value::Null),
        ("password", json!(" ")),
        ("from", json!("nobody")),
        ("from", json!("@example.com")),
        ("security", json!("ssl")),
    ];
    for (name, value) in bad {
        let mut credentials = whole();
        credentials[name] = value.clone();
        let fault = read(credentials).unwrap_err();
        assert!(fault.code == FaultCode::Configuration && fault.hint.starts_with(name), "{name} {value}: {fault:?}");
        assert!(!fault.hint.contains("hunter22"));
    }
}

#[test]
fn every_row_of_the_fact_sheet_is_understood() {
    use FaultCode::*;
    let said = |code: u16, text: &str| Trouble::Refused(code, text.to_owned());
    for (trouble, expected, hint) in [
        (said(535, "5.7.8 Username and Password not accepted"), AuthFailed, "app password"),
        (said(535, "5.7.139 Authentication unsuccessful"), AuthFailed, "enable SMTP AUTH"),
        (said(535, "5.7.3 Authentication unsuccessful"), AuthFailed, "enable SMTP AUTH"),
        (said(534, "5.7.9 Application-specific password required"), AuthFailed, "app password"),
        (said(432, "4.7.12"), AuthFailed, "password"),
        (said(530, "5.7.0 Must issue a STARTTLS command first"), Configuration, "starttls"),
        (said(538, "5.7.11"), Configuration, "secured"),
        (said(454, "4.7.0 Temporary authentication failure"), ProviderUnavailable, "later"),
        (said(421, "Service not available"), ProviderUnavailable, "later"),
        (said(421, "4.7.0 Try again later"), RateLimited, "minutes"),
        (said(421, "Too many connections"), RateLimited, "minutes"),
        (said(450, "mailbox busy"), RateLimited, "minutes"),
        (said(451, "local error"), ProviderUnavailable, "later"),
        (said(554, "No SMTP service here"), Configuration, "blocked"),
        (said(500, ""), Configuration, "port"),
        (said(502, ""), Configuration, "port"),
        (said(504, ""), Configuration, "port"),
        (Trouble::Late, Timeout, "firewall"),
        (Trouble::NoPassword, Configuration, "OAuth2"),
        (Trouble::NoStartTls, Configuration, "465"),
        (Trouble::Untrusted, Tls, "certificate"),
        (Trouble::NoTls, Configuration, "starttls"),
        (Trouble::NoConnection, Connection, "firewall"),
        (Trouble::Broken, Connection, "closed"),
        (Trouble::NotSmtp, UnexpectedResponse, "no mail server"),
    ] {
        let fault = judge(&trouble, &server(587, Security::StartTls));
        assert!(fault.code == expected && fault.hint.contains(hint), "{trouble:?}: {fault:?}");
        let Trouble::Refused(_, text) = trouble else { continue };
        assert!(text.is_empty() || !fault.hint.contains(&text), "the server's own words are passed on: {fault:?}");
    }
}

#[test]
fn silence_at_the_port_of_tls_has_a_reason() {
    let silent = |port, security| judge(&Trouble::Late, &server(port, security)).hint.contains("needs security `tls`");
    assert!(silent(465, Security::StartTls) && silent(465, Security::None));
    assert!(!silent(465, Security::Tls) && !silent(587, Security::StartTls));
}
