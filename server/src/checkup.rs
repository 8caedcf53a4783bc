//! What the hub looks at beside its database, and the gauges that tell which alerts are open.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use metrics::Gauge;
use upbridge_service::health;

use crate::domain::Hub;
use crate::model::Result;
use crate::model::alert::AlertCode;
use crate::telemetry::Meters;

/// Checks the hub up, and tells which alerts are open.
pub struct Checkup {
    hub: Arc<Hub>,
    alerts: Vec<(&'static str, Gauge)>,
}

impl Checkup {
    /// No alert is open yet.
    pub fn new(hub: Arc<Hub>, meters: &Meters) -> Checkup {
        let gauge = |code: &AlertCode| {
            let gauge = metrics::gauge!("upbridge_alert", "code" => code.as_str());
            gauge.set(0.0);
            (code.as_str(), gauge)
        };
        let alerts = meters.with(|| {
            metrics::describe_gauge!("upbridge_alert", "Whether an alert is open, by its code.");
            AlertCode::ALL.iter().map(gauge).collect()
        });
        Checkup { hub, alerts }
    }
}

impl health::Checkup for Checkup {
    fn check_up<'a>(&'a self, database: &'a Result<Duration>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let found = self.hub.check_up(database).await;
            for (code, gauge) in &self.alerts {
                let is_open = found.alerts.iter().any(|alert| alert.code == *code);
                gauge.set(f64::from(u8::from(is_open)));
            }
        })
    }
}
