//! How an integration is: read from running counts at every call, so that what was committed is in the next answer.

use uuid::Uuid;

use super::Hub;
use crate::model::failure::FailureClass;
use crate::model::integration::LogStatus;
use crate::model::integration_health::{Figures, HealthWindow, IntegrationHealth, days_since, distribution};
use crate::model::recommendation::{Evidence, recommend};
use crate::model::{Error, Result};
use crate::storage::{self, integration_count};

impl Hub {
    /// How an integration is, over the window of so many hours that ends now.
    pub async fn integration_health(&self, id: Uuid, hours: Option<i32>) -> Result<IntegrationHealth> {
        let window = HealthWindow::new(hours, self.now())?;
        let (read, dialect) = (self.store.read(), self.store.dialect());
        let integration = storage::integration::find(read, id).await?;
        let integration = integration.ok_or(Error::NotFound { what: "integration" })?;
        let counted = integration_count::of_window(read, dialect, id, &window).await?;
        let webhooks = storage::integration_health::webhooks(read, dialect, id).await?;
        let last_test = integration.last_test;
        let is_refused = last_test
            .as_ref()
            .is_some_and(|test| test.status == LogStatus::Failed && test.class == Some(FailureClass::Auth));
        let figures = Figures::of(&counted, is_refused);
        let errors = distribution(&counted.failures);
        let recommendations = recommend(&Evidence {
            window,
            counted: &counted,
            figures,
            errors: &errors,
            last_test: last_test.as_ref(),
            is_active: integration.is_active,
            webhooks: &webhooks,
        });
        let days_since_last_test = last_test.as_ref().map(|test| days_since(test.at, window.end));
        Ok(IntegrationHealth {
            integration_id: id,
            window,
            counted,
            figures,
            last_test,
            days_since_last_test,
            errors,
            recommendations,
        })
    }
}
