//! Where providers may be reached instead of their usual addresses. Whoever is asked is shown the credentials, so an
//! address has to be the provider's own, or one that the operator names; and one that changes brings new credentials.

use std::sync::Arc;

use super::credentials::Credentials;
use super::{Integration, Provider, check};
use crate::model::outward::{Callable, NotCallable, Outward};
use crate::model::{Error, Result};

/// What of SMTP's credentials says where its password goes, and how well it is hidden on the way.
const MAIL_ADDRESS: &[&str] = &["host", "port", "security"];

/// Judges the addresses of providers.
#[derive(Clone)]
pub struct Addresses {
    outward: Arc<dyn Outward>,
    /// Names of hosts the operator allows beside the providers' own, such as a proxy's.
    hosts: Arc<[String]>,
}

impl Addresses {
    /// Allows these hosts beside the providers' own.
    pub fn new(outward: Arc<dyn Outward>, hosts: &[String]) -> Addresses {
        Addresses { outward, hosts: hosts.into() }
    }

    /// Whoever judges addresses in general.
    pub fn outward(&self) -> &dyn Outward {
        self.outward.as_ref()
    }

    /// Where a provider is reached, as somebody gives it; nothing is its usual address.
    pub fn base_url(&self, provider: Provider, given: Option<&str>) -> Result<Option<String>> {
        const WABLAS: &str = "must be https:// and the server of the account, such as https://solo.wablas.com";
        let wrong = |what: &str| Error::invalid("base_url", what);
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            return if provider == Provider::Wablas { Err(wrong(WABLAS)) } else { Ok(None) };
        };
        let Some(domain) = provider.spec().domain else {
            return Err(wrong("is not taken by SMTP, whose server is credentials.host"));
        };
        let callable = self.outward.judge(given).map_err(|why| wrong(&why.to_string()))?;
        if !self.is_allowed(domain, &callable) {
            return Err(wrong(&allowed(domain)));
        }
        Ok(Some(callable.url))
    }

    /// Why a provider may not be asked any more at the address an integration has: what is allowed may have changed
    /// since it was given. Where an address leads is not judged here, but where it is called.
    pub fn refusal(&self, integration: &Integration) -> Option<String> {
        let (url, domain) = (integration.base_url.as_deref()?, integration.provider.spec().domain?);
        match self.outward.judge(url) {
            Ok(callable) if self.is_allowed(domain, &callable) => None,
            Ok(_) => Some(allowed(domain)),
            Err(NotCallable::Blocked) => None,
            Err(why) => Some(why.to_string()),
        }
    }

    fn is_allowed(&self, domain: &str, callable: &Callable) -> bool {
        let host = callable.url.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next());
        callable.is_listed
            || host.is_some_and(|host| is_within(host, domain) || self.hosts.iter().any(|allowed| allowed == host))
    }
}

/// What is allowed, for people.
fn allowed(domain: &str) -> String {
    format!(
        "must be https:// and {domain} or a name below it, a host in INTEGRATION_ALLOWED_HOSTS, or an address in \
         OUTBOUND_ALLOWED_NETWORKS"
    )
}

fn is_within(host: &str, domain: &str) -> bool {
    let below = host.strip_suffix(domain);
    below.is_some_and(|below| below.is_empty() || (below.len() > 1 && below.ends_with('.')))
}

/// Refuses a change that sends held secrets to where they were not given for: who may change an address need not know
/// what is sent there. Both integrations are as they are shown.
pub fn secrets_stay(before: &Integration, after: &Integration, given: Option<&Credentials>) -> Result<()> {
    if is_same_place(before, after) {
        return Ok(());
    }
    let is_given = |name: &str| {
        let value = given.and_then(|given| given.values().get(name));
        value.is_some_and(|value| !value.as_str().is_some_and(|text| text.starts_with(check::MASK)))
    };
    let secrets = before.provider.spec().credentials.iter().filter(|spec| spec.secret);
    let mut kept = secrets.filter(|spec| before.masked.get(spec.name).is_some() && !is_given(spec.name));
    kept.next().map_or(Ok(()), |spec| {
        let what = "must be given again, because the address changes";
        Err(Error::invalid(format!("credentials.{}", spec.name), what))
    })
}

fn is_same_place(before: &Integration, after: &Integration) -> bool {
    if before.provider == Provider::Smtp {
        return MAIL_ADDRESS.iter().all(|name| before.masked.get(name) == after.masked.get(name));
    }
    // The usual addresses of both environments are the provider's.
    before.base_url == after.base_url || origin(before) == origin(after)
}

/// Whom an integration's credentials are shown, and how.
fn origin(integration: &Integration) -> Option<&str> {
    let usual = integration.provider.usual_url(integration.environment);
    let url = integration.base_url.as_deref().or(usual)?;
    let host = url.find("://").map_or(0, |place| place + 3);
    Some(&url[..url[host..].find('/').map_or(url.len(), |end| host + end)])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::model::Json;
    use crate::model::integration::Environment;

    /// Takes what begins with https, lists what has `listed` in it, and lets nobody inside.
    struct Judge;

    impl Outward for Judge {
        fn judge(&self, url: &str) -> Result<Callable, NotCallable> {
            match url {
                url if url.contains("inside") => Err(NotCallable::Blocked),
                url if url.contains("plain") => Err(NotCallable::Insecure),
                url => Ok(Callable { url: url.to_owned(), is_listed: url.contains("listed") }),
            }
        }

        fn judge_host(&self, host: &str) -> Result<String, NotCallable> {
            Ok(host.to_owned())
        }
    }

    fn addresses() -> Addresses {
        Addresses::new(Arc::new(Judge), &["proxy.example.com".to_owned()])
    }

    fn integration(provider: Provider, base_url: Option<&str>, masked: Json) -> Integration {
        let now = chrono::DateTime::UNIX_EPOCH;
        Integration {
            id: Uuid::nil(),
            partner_id: Uuid::nil(),
            provider,
            name: "Shop".to_owned(),
            environment: Environment::Sandbox,
            masked,
            base_url: base_url.map(str::to_owned),
            callback_digest: None,
            is_active: true,
            last_test: None,
            key_id: String::new(),
            created_by: None,
            created_at: now,
            updated_at: now,
        }
    }

    #[test]
    fn a_provider_is_reached_at_its_own_domain_or_where_the_operator_says() {
        let judged = |provider, given: &str| addresses().base_url(provider, Some(given));
        let taken = |provider, given: &str| judged(provider, given).unwrap().as_deref() == Some(given);
        for (provider, url) in [
            (Provider::Midtrans, "https://api.sandbox.midtrans.com"),
            (Provider::Xendit, "https://api.xendit.co/v2"),
            (Provider::Stripe, "https://api.stripe.com:8443"),
            (Provider::Twilio, "https://twilio.com"),
            (Provider::Wablas, "https://solo.wablas.com"),
            (Provider::Fonnte, "https://api.fonnte.com"),
            (Provider::Midtrans, "https://proxy.example.com/midtrans"),
            (Provider::Wablas, "http://listed"),
        ] {
            assert!(taken(provider, url), "{url}");
            let held = integration(provider, Some(url), Value::Null);
            assert_eq!(addresses().refusal(&held), None, "{url}");
        }
        for (provider, url) in [
            (Provider::Midtrans, "https://evil.example"),
            (Provider::Midtrans, "https://evilmidtrans.com"),
            (Provider::Midtrans, "https://.midtrans.com"),
            (Provider::Midtrans, "https://midtrans.com.evil.example"),
            (Provider::Midtrans, "https://api.stripe.com"),
            (Provider::Midtrans, "https://evil.example/.midtrans.com"),
            (Provider::Midtrans, "https://evil.example:443/proxy.example.com"),
            (Provider::Midtrans, "https://sub.proxy.example.com"),
            (Provider::Wablas, "https://wablas.evil.example"),
            (Provider::Wablas, "http://solo.wablas.com"),
            (Provider::Stripe, "https://plain"),
        ] {
            let Err(Error::Invalid { field, description }) = judged(provider, url) else { panic!("{url}") };
            assert_eq!(field, "base_url");
            assert_eq!(addresses().refusal(&integration(provider, Some(url), Value::Null)), Some(description), "{url}");
        }
        assert!(judged(Provider::Stripe, "https://inside").is_err());
        let inside = integration(Provider::Stripe, Some("https://inside"), Value::Null);
        assert_eq!(addresses().refusal(&inside), None, "the guard says it, in its own words");
    }

    #[test]
    fn an_address_is_required_of_wablas_and_refused_to_smtp() {
        for usual in [None, Some("")] {
            assert_eq!(addresses().base_url(Provider::Midtrans, usual).unwrap(), None);
            assert_eq!(addresses().base_url(Provider::Smtp, usual).unwrap(), None);
            assert!(addresses().base_url(Provider::Wablas, usual).is_err());
        }
        assert!(addresses().base_url(Provider::Smtp, Some("https://listed")).is_err());
    }

    #[test]
    fn secrets_come_anew_when_they_would_go_elsewhere() {
        let shown = json!({ "secretKey": "••••1234", "webhookSecret": "••••5678" });
        let usual = integration(Provider::Stripe, None, shown.clone());
        let at = |url| integration(Provider::Stripe, Some(url), shown.clone());
        let judged = |before: &Integration, after: &Integration, given: Json| {
            let Value::Object(given) = given else { panic!("an object") };
            match secrets_stay(before, after, Some(&Credentials::new(given, None))) {
                Ok(()) => String::new(),
                Err(Error::Invalid { field, .. }) => field,
                Err(other) => panic!("{other:?}"),
            }
        };
        let away = at("https://proxy.example.com");
        for (given, field) in [
            (json!({}), "credentials.secretKey"),
            (shown.clone(), "credentials.secretKey"),
            (json!({ "secretKey": "sk_new" }), "credentials.webhookSecret"),
            (json!({ "secretKey": "sk_new", "webhookSecret": "whsec_new" }), ""),
            (json!({ "secretKey": "sk_new", "webhookSecret": null }), ""),
        ] {
            assert_eq!(judged(&usual, &away, given.clone()), field, "{given}");
            assert_eq!(judged(&away, &usual, given.clone()), field, "{given}");
        }
        let mut live = usual.clone();
        live.environment = Environment::Production;
        let same =
            [(&usual, &at("https://api.stripe.com")), (&away, &at("https://proxy.example.com/v2")), (&usual, &live)];
        for (before, after) in same {
            assert_eq!(judged(before, after, json!({})), "", "{:?}", after.base_url);
        }
        assert_eq!(judged(&away, &at("https://proxy.example.com:8443"), json!({})), "credentials.secretKey");
        assert_eq!(judged(&at("https://listed"), &at("http://listed"), json!({})), "credentials.secretKey");

        let mail =
            json!({ "host": "a.example", "port": 587, "security": "tls", "username": "ana", "password": "••••" });
        let before = integration(Provider::Smtp, None, mail.clone());
        for (name, value) in [("host", json!("b.example")), ("port", json!(25)), ("security", json!("none"))] {
            let mut changed = mail.clone();
            changed[name] = value;
            let after = integration(Provider::Smtp, None, changed);
            assert_eq!(judged(&before, &after, json!({})), "credentials.password", "{name}");
            assert_eq!(judged(&before, &after, json!({ "password": "new" })), "", "{name}");
        }
        let mut renamed = mail;
        renamed["username"] = json!("bo");
        assert_eq!(judged(&before, &integration(Provider::Smtp, None, renamed), json!({})), "");
    }
}
