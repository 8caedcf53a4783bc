//! The variables of the line to the DevOps module.

use upbridge_service::config::Reader;

use crate::delivery::BaseUrl;
use crate::model::hook::secret::Secret;

/// Where it is, and what proves the hub to it.
#[derive(Clone, Debug)]
pub struct Devops {
    /// `DEVOPS_MODULE_URL`
    pub url: BaseUrl,
    /// `DEVOPS_WEBHOOK_SECRET`
    pub secret: Secret,
}

/// Reads them. The secret is asked for when there is somebody to prove oneself to.
pub(super) fn read(reader: &mut Reader<'_>, production: bool) -> Option<Devops> {
    let url = reader.optional("DEVOPS_MODULE_URL")?;
    let secret = reader.secret("DEVOPS_WEBHOOK_SECRET", production);
    let url = BaseUrl::parse(&url).or_else(|| {
        let what = "must be an http or https address such as https://devops.example.com/hook, without user, query and \
                    fragment";
        reader.problem("DEVOPS_MODULE_URL", what)
    });
    // One that is required and missing has been named.
    let secret = (!secret.expose().is_empty()).then(|| Secret::parse(secret.expose()))?;
    let secret = secret.map_err(|what| reader.problem::<()>("DEVOPS_WEBHOOK_SECRET", what)).ok();
    Some(Devops { url: url?, secret: secret? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(variables: &[(&str, &str)], production: bool) -> (Option<Devops>, Vec<String>) {
        let data = tempfile::tempdir().unwrap();
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut reader = Reader::new(&variables, data.path());
        let devops = super::read(&mut reader, production);
        (devops, reader.finish().err().map(|problems| problems.list().to_vec()).unwrap_or_default())
    }

    #[test]
    fn without_an_address_there_is_nobody_and_no_secret_is_asked_for() {
        for variables in [&[][..], &[("DEVOPS_WEBHOOK_SECRET", "short")]] {
            let (devops, problems) = read(variables, true);
            assert!(devops.is_none() && problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn with_an_address_the_secret_is_made_in_development_and_required_in_production() {
        let address = ("DEVOPS_MODULE_URL", "https://devops.example.com/hook/");
        let (devops, problems) = read(&[address], false);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(devops.expect("somebody").url.to_string(), "https://devops.example.com/hook");
        let (_, problems) = read(&[address], true);
        assert_eq!(problems, ["DEVOPS_WEBHOOK_SECRET is required in production"]);
        for bad in [
            [address, ("DEVOPS_WEBHOOK_SECRET", "whsec_hunter2")],
            [("DEVOPS_MODULE_URL", "https://hunter2@devops.example.com"), ("DEVOPS_WEBHOOK_SECRET", "long enough")],
        ] {
            let (devops, problems) = read(&bad, false);
            assert!(devops.is_none() && problems.len() == 1 && !problems[0].contains("hunter2"), "{problems:?}");
        }
    }
}
