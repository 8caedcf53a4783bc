//! Tests nobody asks for: of integrations that were not tested for long, once, whichever hub notices.

use chrono::TimeDelta;
use upbridge_client::v1;
use upbridge_client::v1::IntegrationProvider as Provider;

use super::{Stage, fault, near, test};
use crate::harness::{Setup, TestDatabase, TestHub, eventually, noon};
use crate::peer::{HttpPeer, Reply};

const GOOD: &str = r#"{"balance":1250000}"#;

/// A hub on the same database, so many hours after everything there; it looks whose turn it is when it starts, because
/// nobody has looked since.
async fn later(setup: Setup, database: TestDatabase, hours: i64) -> TestHub {
    let at = (noon() - TimeDelta::hours(hours)).format("'%Y-%m-%dT%H:%M:%S+00:00'").to_string();
    let at = if database.is_postgres() { format!("{at}::timestamptz") } else { at };
    let moved = format!(
        "UPDATE partner_integrations SET last_test_at = CASE WHEN last_test_at IS NULL THEN NULL ELSE {at} END, \
         created_at = {at}"
    );
    database.execute(&moved).await;
    database.execute("DELETE FROM schedules").await;
    setup.start_on(database).await
}

async fn set_active(stage: &Stage, id: &str, is_active: bool) {
    let request =
        v1::UpdateIntegrationRequest { integration_id: id.into(), is_active: Some(is_active), ..Default::default() };
    stage.admin.integrations().update_integration(request).await.expect("updated");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_tested_for_a_day_is_and_nobody_else() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    peer.always(Reply::json(200, GOOD));
    let (never, long_ago) = (stage.at(Provider::Xendit, &peer).await, stage.at(Provider::Xendit, &peer).await);
    let asleep = stage.at(Provider::Xendit, &peer).await;
    stage.test(&long_ago).await;
    set_active(&stage, &asleep, false).await;
    let hub = later(near(), stage.hub.stop().await, 23).await;
    let due = "SELECT COUNT(*) FROM jobs WHERE kind = 'connection_test'";
    let looked = "SELECT COUNT(*) FROM schedules WHERE name = 'connection_tests'";
    eventually("it was looked", async || hub.database.count(looked).await == 1).await;
    assert_eq!((hub.database.count(due).await, peer.count()), (0, 1), "a day has not passed");
    let hub = later(near(), hub.stop().await, 25).await;
    eventually("both are tested", async || {
        // They are spread until the next look.
        hub.clock.advance(TimeDelta::seconds(30));
        peer.count() == 3
    })
    .await;
    let tests = "SELECT COUNT(*) FROM integration_logs WHERE action = 'test'";
    eventually("and that is kept", async || hub.database.count(tests).await == 3).await;
    let nobody =
        "SELECT COUNT(*) FROM integration_logs WHERE action = 'test' AND user_id IS NULL AND ip_address IS NULL";
    assert_eq!(hub.database.count(nobody).await, 2);
    let admin = hub.admin().await;
    for (id, is_tested) in [(never, true), (long_ago, true), (asleep, false)] {
        let request = v1::GetIntegrationRequest { integration_id: id };
        let found = admin.integrations().get_integration(request).await.unwrap().into_inner().integration.unwrap();
        assert_eq!(found.last_test.is_some(), is_tested);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_somebody_made_meanwhile_is_not_repeated() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    peer.always(Reply::json(200, GOOD));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stage.at(Provider::Xendit, &peer).await);
    }
    let database = stage.hub.stop().await;
    let hub = later(near(), database, 48).await;
    let ended = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'connection_test'";
    eventually("the first is tested at once", async || hub.database.count(ended).await == 1).await;
    let admin = hub.admin().await;
    for id in &ids[1..] {
        assert_eq!(fault(&test(&admin, id).await.1), None);
    }
    let waiting = "SELECT COUNT(*) FROM jobs WHERE kind = 'connection_test'";
    eventually("the others have their turn", async || {
        hub.clock.advance(TimeDelta::seconds(30));
        hub.database.count(waiting).await == 0
    })
    .await;
    assert_eq!(peer.count(), 4, "each was tested once");
}

#[tokio::test(flavor = "multi_thread")]
async fn partners_at_rest_are_not_tested_and_zero_hours_are_never() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    peer.always(Reply::json(200, GOOD));
    stage.at(Provider::Xendit, &peer).await;
    let rest = v1::UpdatePartnerRequest {
        partner_id: stage.partner_id.clone(),
        status: Some(v1::PartnerStatus::Inactive.into()),
        ..Default::default()
    };
    stage.admin.partners().update_partner(rest).await.expect("updated");
    let looked = "SELECT COUNT(*) FROM schedules WHERE name = 'connection_tests'";
    let hub = later(near(), stage.hub.stop().await, 48).await;
    eventually("it was looked", async || hub.database.count(looked).await == 1).await;
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM jobs").await, 0);
    let database = hub.stop().await;
    database.execute("UPDATE partners SET status = 'active'").await;
    let hub = later(near().set("INTEGRATION_TEST_INTERVAL", "0"), database, 48).await;
    hub.admin().await;
    assert_eq!((hub.database.count(looked).await, peer.count()), (0, 0));
}
