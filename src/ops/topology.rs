//! The exchanges, queues and bindings that `serve` declares: which they are, and declaring them now.

use super::broker_settings;
use super::check::remedy::quoted;
use super::failure::failed;
use crate::config::Config;
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::topology::{DeclareResult, DeclaredObject, Topology};
use crate::rabbitmq::{ConnectConfig, Version, provision};

/// A planned topology and the vhost that it is for.
#[derive(Debug)]
pub struct Plan {
    /// Exchanges, queues and bindings.
    pub topology: Topology,
    /// The vhost of the first broker URL.
    pub vhost: String,
}

/// The topology that `serve` uses on a broker of this version. Without a version, the broker is
/// asked, but only if the topology depends on it: if a queue has a `retry_delay`.
///
/// # Errors
/// If a URL of the configuration is not valid, or if the broker does not answer.
pub async fn plan(config: &Config, version: Option<Version>) -> anyhow::Result<Plan> {
    let settings = broker_settings(config)?;
    let planned = &settings.topology;
    let topology = match version {
        Some(version) => planned.for_version(version),
        None if planned.by_broker.is_empty() => planned.clone(),
        None => provision::chosen(&settings).await.map_err(|error| {
            let advice = "--broker-version with the version of RabbitMQ, such as 4.3: the arguments of queues with a `retry_delay` depend on it";
            failed("asking the broker for its version", error, advice)
        })?,
    };
    let vhost = settings.urls[0].vhost().to_owned();
    Ok(Plan { topology, vhost })
}

/// Declares the topology, as `serve` does with `topology = "declare"`, and whatever the
/// configuration says about that. Returns what happened to each object.
///
/// # Errors
/// If a URL of the configuration is not valid, or if the broker does not answer.
pub async fn apply(config: &Config) -> anyhow::Result<Vec<DeclaredObject>> {
    let mut settings = broker_settings(config)?;
    settings.topology.mode = TopologyMode::Declare;
    provision::apply(&settings).await.map_err(|error| {
        let advice = error.advice.clone();
        let usual = || "`deskbridge check`; run it again when the broker answers".to_owned();
        let advice = advice.unwrap_or_else(usual);
        failed("declaring the topology", error, advice)
    })
}

/// The error to report if an object is not as it was planned.
///
/// # Errors
/// If there is such an object.
pub fn judge(config: &Config, declared: &[DeclaredObject]) -> anyhow::Result<()> {
    let count = |result| declared.iter().filter(|one| one.result == result).count();
    let [failing, differing] = [DeclareResult::Failed, DeclareResult::Differs].map(count);
    let of = declared.len();
    let why = match (failing, differing) {
        (0, 0) => return Ok(()),
        (0, differing) => format!("{differing} of {of} exist with other arguments"),
        (failing, 0) => format!("{failing} of {of} cannot be declared"),
        (failing, differing) => {
            format!("{failing} of {of} cannot be declared, {differing} exist with other arguments")
        }
    };
    let details = declared
        .iter()
        .filter(|one| one.result == DeclareResult::Failed);
    let mut details = details.filter_map(|one| one.detail.as_deref());
    let advice = if details.any(|detail| detail.contains("ACCESS_REFUSED")) {
        permission(&broker_settings(config)?)
    } else if failing > 0 {
        "`deskbridge check`".into()
    } else {
        "`deskbridge check` prints how to change each; only deleting and declaring it again changes the arguments of a queue or an exchange".into()
    };
    Err(failed("declaring the topology", why, advice))
}

fn permission(settings: &ConnectConfig) -> String {
    let url = &settings.urls[0];
    let (vhost, user) = (quoted(url.vhost()), quoted(url.credentials().0));
    format!(
        "`rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'` (configure, write, read), or another user's URL: --set rabbitmq.url_file=FILE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rabbitmq::topology::{Object, PlannedQueue};

    #[track_caller]
    fn check(results: &[DeclareResult], detail: &str, expected: Option<(&str, &str)>) {
        let declared = results.iter().map(|result| DeclaredObject {
            object: Object::Queue(PlannedQueue {
                name: "q".into(),
                arguments: Vec::new(),
            }),
            result: *result,
            detail: Some(detail.into()),
        });
        let declared = declared.collect::<Vec<_>>();
        let urls = serde_json::json!({"rabbitmq": {"urls": ["amqp://it%27s:p@h/v"]}});
        let config: Config = serde_json::from_value(urls).unwrap();
        let judged = judge(&config, &declared);
        let Some((why, advice)) = expected else {
            return judged.unwrap();
        };
        let error = judged.unwrap_err();
        assert!(format!("{error:#}").contains(why), "{error:#}");
        let failed: &crate::ops::failure::Failed = error.downcast_ref().unwrap();
        assert!(failed.advice.contains(advice), "{}", failed.advice);
    }

    #[test]
    fn objects_that_are_not_as_planned_are_an_error() {
        use DeclareResult::{Bound, Declared, Differs, Existed, Failed};
        check(&[], "", None);
        // An existing object that the user may not declare is no problem.
        check(&[Declared, Existed, Bound], "ACCESS_REFUSED", None);
        let differs = Some(("1 of 2 exist with other arguments", "deleting"));
        check(&[Differs, Existed], "inequivalent arg", differs);
        let both = "1 of 3 cannot be declared, 1 exist with other arguments";
        check(&[Failed, Differs, Declared], "no", Some((both, "check")));
        let command = r"`rabbitmqctl set_permissions -p 'v' 'it'\''s' '.*' '.*' '.*'`";
        let refused = Some(("2 of 2 cannot be declared", command));
        check(&[Failed, Failed], "403 ACCESS_REFUSED", refused);
    }
}
