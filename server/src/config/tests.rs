//! What a configuration says, and what is wrong with one.

use upbridge_service::config::{SECRET_BYTES, secrets_file};

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let data = tempfile::tempdir().unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::read(&variables, data.path())
}

#[test]
fn nothing_set_is_a_hub_for_development() {
    let config = read(&[]).unwrap();
    assert_eq!((config.port, config.cors_origins.len(), config.reflection), (3345, 3, true));
    assert!(config.jwt_secret.expose().len() >= SECRET_BYTES);
}

#[test]
fn every_problem_is_named_at_once_and_no_value_is_shown() {
    let problems = read(&[
        ("PORT", "http"),
        ("DATABASE_URL", "mysql://hunter2@host/db"),
        ("RATE_LIMIT_USER", "many"),
        ("UPBRIDGE_PROT", "1"),
        ("TLS_CERT_FILE", "cert.pem"),
        ("DATABASE_POOL_SIZE", "0"),
    ]);
    let text = problems.unwrap_err().to_string();
    for name in ["PORT", "DATABASE_URL", "RATE_LIMIT_USER", "UPBRIDGE_PROT", "TLS_KEY_FILE", "DATABASE_POOL_SIZE"] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn production_refuses_missing_short_and_placeholder_secrets() {
    let text = read(&[("UPBRIDGE_ENV", "production"), ("CREATORUP_API_KEY", "your_creatorup_api_key")])
        .unwrap_err()
        .to_string();
    assert!(text.contains("JWT_SECRET is required") && text.contains("CREATORUP_API_KEY must be"), "{text}");
    assert!(!text.contains("your_creatorup_api_key"), "{text}");
}

#[test]
fn a_secret_is_made_once_and_kept_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let first = Config::read(&BTreeMap::new(), &data).unwrap();
    let second = Config::read(&BTreeMap::new(), &data).unwrap();
    assert_eq!(first.jwt_secret.expose(), second.jwt_secret.expose());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(secrets_file(&data)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(!format!("{first:?}").contains(first.jwt_secret.expose()));
}

#[test]
fn a_secret_of_webhooks_is_a_key_and_networks_are_networks() {
    let config = read(&[
        ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("WEBHOOK_SECRET_PREVIOUS", "the one before"),
        ("WEBHOOK_ALLOWED_IPS", "192.0.2.0/24, 2001:db8::1"),
    ]);
    let config = config.unwrap();
    assert_eq!((config.webhooks.keys.len(), config.webhooks.tolerance), (2, 300));
    assert!(config.webhooks.allowed.contain("192.0.2.9".parse().unwrap()));
    assert!(read(&[]).unwrap().webhooks.keys.len() == 1, "development makes a secret");
    let problems = read(&[
        ("WEBHOOK_SECRET", "whsec_hunter2"),
        ("WEBHOOK_TOLERANCE_SECONDS", "0"),
        ("WEBHOOK_ALLOWED_IPS", "example.com"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("RATE_LIMIT_WEBHOOK", "lots"),
    ]);
    let text = problems.unwrap_err().to_string();
    for name in
        ["WEBHOOK_SECRET", "WEBHOOK_TOLERANCE_SECONDS", "WEBHOOK_ALLOWED_IPS", "TRUSTED_PROXIES", "RATE_LIMIT_WEBHOOK"]
    {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}
