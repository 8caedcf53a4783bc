//! `upbridge integrations`: partners' integrations in a running hub.

mod show;

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use upbridge_client::v1;
use upbridge_server::http::to_json;
use upbridge_server::model::integration::{Action, Category, Environment, LogStatus, PartnerStatus, Provider};

use super::connection::{Connection, Session, confirm, refused};
use super::table::columns;
use super::{ask, print, say};
use show::{last_test, lines, time, word};

const EXAMPLES: &str = "\
Examples:
  export UPBRIDGE_TOKEN=…                       # an administrator's token, or sign in with --email
  upbridge integrations providers
  upbridge integrations partners --query toko
  upbridge integrations list <partner id> --provider midtrans
  upbridge integrations test <integration id>
  upbridge integrations logs <integration id> --action test --status failed
  upbridge integrations health <integration id> --hours 168
  upbridge integrations rotate-encryption";

/// Partners' integrations in a running hub: look at them, test them, encrypt their secrets anew.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Integrations {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON: one object, or one a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the providers there are: the credentials each takes, and how its callbacks prove themselves.
    Providers {
        /// Only of this category.
        #[arg(long, value_parser = words(Category::ALL, Category::as_str))]
        category: Option<i32>,
    },
    /// List partners, newest first.
    Partners {
        /// Only those whose name contains this.
        #[arg(long)]
        query: Option<String>,
        /// Only of this status.
        #[arg(long, value_parser = words(PartnerStatus::ALL, PartnerStatus::as_str))]
        status: Option<i32>,
    },
    /// List a partner's integrations, newest first.
    List {
        /// The partner's id.
        partner_id: String,
        /// Only of this provider.
        #[arg(long, value_parser = words(Provider::ALL, Provider::as_str))]
        provider: Option<i32>,
        /// Only of this environment.
        #[arg(long, value_parser = words(Environment::ALL, Environment::as_str))]
        environment: Option<i32>,
    },
    /// Show one integration, its secrets masked.
    Get {
        /// The integration's id.
        id: String,
    },
    /// Test the connection to the provider; fails when the test does.
    Test {
        /// The integration's id.
        id: String,
    },
    /// List what happened to an integration, newest first.
    Logs {
        /// The integration's id.
        id: String,
        /// Only of this action.
        #[arg(long, value_parser = words(Action::ALL, Action::as_str))]
        action: Option<i32>,
        /// Only with this status.
        #[arg(long, value_parser = words(LogStatus::ALL, LogStatus::as_str))]
        status: Option<i32>,
        /// Only from this time on: a date, or an RFC 3339 time.
        #[arg(long)]
        start_date: Option<String>,
        /// Only before this time: a date, to its end, or an RFC 3339 time.
        #[arg(long)]
        end_date: Option<String>,
        /// The page, from 1.
        #[arg(long, default_value_t = 1)]
        page: i32,
        /// Entries on a page, up to 200.
        #[arg(long, default_value_t = 50)]
        limit: i32,
    },
    /// Show how an integration is.
    Health {
        /// The integration's id.
        id: String,
        /// Hours of the window, up to 720; 24 when not given.
        #[arg(long)]
        hours: Option<i32>,
    },
    /// Encrypt with ENCRYPTION_KEY what is still encrypted with a previous one, until nothing remains.
    RotateEncryption {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The contract's number of one of these words.
fn words<T: Copy>(all: &'static [T], word: fn(T) -> &'static str) -> impl TypedValueParser<Value = i32> {
    let words: Vec<&'static str> = all.iter().map(|value| word(*value)).collect();
    let names = PossibleValuesParser::new(words.clone());
    names.map(move |name| words.iter().position(|word| *word == name).map_or(0, |place| place as i32 + 1))
}

impl Integrations {
    /// Does what was asked for.
    pub async fn run(self) -> anyhow::Result<()> {
        if let Verb::RotateEncryption { yes } = self.verb {
            confirm("every secret that a previous key encrypts will be encrypted anew", yes)?;
        }
        let session = self.connection.open().await?;
        let done = tokio::select! {
            done = self.verb.run(&session, self.json) => done,
            // A session that was opened for the command is ended with it.
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        session.close().await;
        done
    }
}

impl Verb {
    async fn run(self, session: &Session, json: bool) -> anyhow::Result<()> {
        let mut integrations = session.client.integrations();
        match self {
            Verb::Providers { category } => {
                let told = integrations.list_providers(v1::ListProvidersRequest { category }).await.map_err(refused)?;
                let told = told.into_inner().providers;
                print(&if json { lines(told.iter().map(to_json)) } else { show::providers(&told) })
            }
            Verb::Partners { query, status } => partners(session, query, status, json).await,
            Verb::List { partner_id, provider, environment } => {
                let request = v1::ListIntegrationsRequest { partner_id, provider, environment, ..Default::default() };
                list(session, request, json).await
            }
            Verb::Get { id } => {
                let request = v1::GetIntegrationRequest { integration_id: id };
                let found = integrations.get_integration(request).await.map_err(refused)?.into_inner();
                let found = found.integration.unwrap_or_default();
                print(&if json { to_json(&found) } else { show::one(&found) })
            }
            Verb::Test { id } => {
                let request = v1::TestConnectionRequest { integration_id: id };
                let tested = integrations.test_connection(request).await.map_err(refused)?.into_inner();
                print(&if json { to_json(&tested) } else { show::test(&tested) })?;
                match tested.test.is_some_and(|test| test.status() == v1::IntegrationOutcome::Success) {
                    true => Ok(()),
                    false => bail!("the test failed"),
                }
            }
            Verb::Logs { id, action, status, start_date, end_date, page, limit } => {
                let (page, limit, integration_id) = (Some(page), Some(limit), id);
                let request = v1::ListIntegrationLogsRequest {
                    integration_id,
                    page,
                    limit,
                    action,
                    status,
                    start_date,
                    end_date,
                };
                let listed = integrations.list_integration_logs(request).await.map_err(refused)?.into_inner();
                print(&if json { lines(listed.logs.iter().map(to_json)) } else { show::logs(&listed) })
            }
            Verb::Health { id, hours } => print(&show::health(&ask!(
                json,
                integrations.get_integration_health(v1::GetIntegrationHealthRequest { integration_id: id, hours })
            ))),
            Verb::RotateEncryption { .. } => rotate(session, json).await,
        }
    }
}

/// Calls until nothing remains; each call is bounded, so the hub has time for others between them.
async fn rotate(session: &Session, json: bool) -> anyhow::Result<()> {
    let mut total = 0;
    loop {
        let request = v1::RotateEncryptionRequest {};
        let mut step = session.client.integrations().rotate_encryption(request).await.map_err(refused)?.into_inner();
        total += step.rotated;
        if step.remaining == 0 {
            step.rotated = total;
            let text = format!("encrypted anew: {total}; everything is encrypted with key {}", step.key_id);
            return print(&if json { to_json(&step) } else { text });
        }
        if step.rotated == 0 {
            bail!("{} secrets remain and none could be encrypted anew", step.remaining);
        }
        eprintln!("encrypted anew: {total}, remaining: {}", step.remaining);
    }
}

/// Prints page after page, so that a long list begins at once.
async fn partners(session: &Session, query: Option<String>, status: Option<i32>, json: bool) -> anyhow::Result<()> {
    let mut request = v1::ListPartnersRequest { query, status, page_size: Some(200), page_token: None };
    let mut begun = false;
    loop {
        let page = session.client.partners().list_partners(request.clone()).await.map_err(refused)?.into_inner();
        let row = |partner: &v1::Partner| {
            let status = word(PartnerStatus::ALL, partner.status, PartnerStatus::as_str);
            [partner.id.clone(), partner.name.clone(), status, time(partner.created_at.as_ref())]
        };
        let text = match json {
            true => lines(page.partners.iter().map(to_json)),
            false => rows(["ID", "NAME", "STATUS", "ADDED"], page.partners.iter().map(row).collect(), !begun),
        };
        begun = true;
        if !(text.is_empty() || say(&text)?) || page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = Some(page.next_page_token);
    }
}

/// Prints page after page.
async fn list(session: &Session, mut request: v1::ListIntegrationsRequest, json: bool) -> anyhow::Result<()> {
    request.page_size = Some(200);
    let mut begun = false;
    loop {
        let page =
            session.client.integrations().list_integrations(request.clone()).await.map_err(refused)?.into_inner();
        let row = |one: &v1::Integration| {
            [
                one.id.clone(),
                word(Provider::ALL, one.provider, Provider::as_str),
                one.name.clone(),
                word(Environment::ALL, one.environment, Environment::as_str),
                if one.is_active { "yes" } else { "no" }.to_owned(),
                one.last_test.as_ref().map_or_else(|| "never".to_owned(), last_test),
            ]
        };
        let headings = ["ID", "PROVIDER", "NAME", "ENVIRONMENT", "ACTIVE", "LAST TEST"];
        let text = match json {
            true => lines(page.integrations.iter().map(to_json)),
            false => rows(headings, page.integrations.iter().map(row).collect(), !begun),
        };
        begun = true;
        if !(text.is_empty() || say(&text)?) || page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = Some(page.next_page_token);
    }
}

/// Rows of a page, under headings on the first.
fn rows<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>, is_first: bool) -> String {
    let table = columns(headings, &rows);
    if is_first { table } else { table.split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default() }
}
