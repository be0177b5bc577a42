//! Queries the broker's management API for what exists in the virtual host. Never prints its
//! password.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, DATE};
use hyper::{Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::finding::{Findings, Subject};
use super::input::CheckInput;
use super::permissions::Permissions;
use super::remedy::ALARMS;
use crate::config::http_url::HttpUrl;
use crate::config::sources::Secret;
use crate::config::url_text::encoded;
use crate::http_client::{Answer, Client};
use crate::rabbitmq::pem;
use crate::rabbitmq::snapshot::BrokerSnapshot;
use crate::rabbitmq::url::BrokerUrl;

/// Maximum difference between the clocks of this machine and the broker, in seconds.
const CLOCK_SECONDS_MAX: i64 = 60;
/// The columns to query for each queue. Without them the answer contains statistics and is a
/// hundred times as large.
const QUEUE_COLUMNS: &str = "name,type,durable,auto_delete,exclusive,arguments,policy,\
    effective_policy_definition,state,consumers,messages,messages_unacknowledged,message_bytes_ready";

/// What the API says about the broker itself.
pub struct ManagementAnswer {
    /// Resource alarms, such as `memory on rabbit@host`.
    pub alarms: Vec<String>,
    /// How far the clock of this machine is ahead of the broker's.
    pub clock_ahead: Option<SignedDuration>,
}

/// Findings about alarms and the clock.
pub fn judge(told: &ManagementAnswer, list: &mut Findings) {
    for alarm in &told.alarms {
        list.error(format!("the broker has an alarm: {alarm}"))
            .impact("it accepts no messages until the alarm is over: events wait in the journal")
            .fix(ALARMS)
            .about([Subject::Broker]);
    }
    let ahead = told.clock_ahead.map_or(0, |ahead| ahead.as_secs());
    let (seconds, way) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
    if seconds > CLOCK_SECONDS_MAX {
        list.warning(format!("the clock of this machine is {seconds} s {way} the broker's"))
            .impact("`received-at`, the age of events, TTLs and certificates are judged by a wrong time on one of the two machines")
            .fix("run `timedatectl` on both; start chrony or systemd-timesyncd where the time is wrong");
    }
}

/// A client of the API at one URL, for one user.
pub struct Management {
    base: String,
    shown: String,
    authorization: String,
    client: Client,
}

/// An answer with a status other than 2xx.
#[derive(Debug, thiserror::Error)]
#[error("it answered {} {_1}", .0.as_u16())]
struct Refused(StatusCode, String);

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

impl Management {
    /// A client with the user and password of the URL, otherwise with those for the broker. Trusts
    /// the authorities of `ca_file`, if it is given.
    pub fn new(url: &Secret, broker: &BrokerUrl, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let url = HttpUrl::parse(url.expose())?;
        let (user, password) = url.login().unwrap_or_else(|| broker.credentials());
        let request = url.request();
        let base = request.trim_end_matches('/').trim_end_matches("/api");
        let login = BASE64.encode(format!("{user}:{password}").as_bytes());
        let authorities = ca_file.map(pem::certificates).transpose();
        let authorities = authorities.context("reading `rabbitmq.tls.ca_file`")?;
        Ok(Self {
            authorization: format!("Basic {login}"),
            client: Client::trusting(&base.parse()?, 1, authorities)?,
            base: base.to_owned(),
            shown: url.to_string(),
        })
    }

    /// The URL for messages, without parts that may be secret.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Queries everything. Adds what exists and the permissions of the user to the case, and notes
    /// about what could not be inspected.
    pub async fn ask(
        &self,
        input: &mut CheckInput<'_>,
        list: &mut Findings,
    ) -> anyhow::Result<ManagementAnswer> {
        let overview = self.get("overview").await?;
        let clock_ahead = clock_ahead(&overview, Timestamp::now());
        let overview: Overview = parsed(&overview)?;
        let user = &mut input.user;
        let (vhost, name) = (encoded(&user.vhost), encoded(&user.name));
        let queues = format!("queues/{vhost}?columns={QUEUE_COLUMNS}");
        let mut existing = BrokerSnapshot {
            version: overview.rabbitmq_version,
            exchanges: self.read(&format!("exchanges/{vhost}")).await?,
            queues: self.read(&queues).await?,
            bindings: self.read(&format!("bindings/{vhost}")).await?,
            ..BrokerSnapshot::default()
        };
        let policies = self.get(&format!("policies/{vhost}")).await?;
        existing.knows_policies = policies.status.is_success();
        if existing.knows_policies {
            let policies: Vec<Value> = parsed(&policies)?;
            let alternate = |policy: &Value| {
                let alternate = text(&policy["definition"]["alternate-exchange"])?;
                Some((text(&policy["name"])?, alternate))
            };
            existing.alternates = policies.iter().filter_map(alternate).collect();
        }
        let alarms = self.alarms().await.unwrap_or_else(|error| {
            list.note(format!("alarms were not inspected: {error:#}"))
                .not_inspected();
            Vec::new()
        });
        let path = format!("permissions/{vhost}/{name}");
        let permissions = self.get(&path).await?;
        user.permissions = match permissions.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                list.note(format!("what user `{}` may declare was not inspected: that needs a user with the tag `administrator` in `rabbitmq.management_url`", user.name))
                    .not_inspected();
                None
            }
            StatusCode::NOT_FOUND => Some(Permissions::default()),
            _ => Some(parsed(&permissions)?),
        };
        let path = format!("topic-permissions/{vhost}/{name}");
        let topics = self.get(&path).await?;
        user.topics = match topics.status {
            StatusCode::NOT_FOUND => Some(Vec::new()),
            _ => parsed(&topics).ok(),
        };
        input.present = existing;
        Ok(ManagementAnswer {
            alarms,
            clock_ahead,
        })
    }

    async fn alarms(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.get("health/checks/alarms").await?;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return parsed::<Value>(&answer).map(|_| Vec::new());
        }
        let told: Value = serde_json::from_slice(&answer.body)?;
        let alarm = |alarm: &Value| {
            let (resource, node) = (text(&alarm["resource"])?, text(&alarm["node"])?);
            Some(format!("{resource} on {node}"))
        };
        let alarms = told["alarms"].as_array().into_iter().flatten();
        let alarms: Vec<_> = alarms.filter_map(alarm).collect();
        if alarms.is_empty() {
            return Ok(vec![text(&told["reason"]).unwrap_or_default()]);
        }
        Ok(alarms)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        parsed(&self.get(path).await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let request = Request::get(format!("{}/api/{path}", self.base))
            .header(AUTHORIZATION, &self.authorization)
            .body(Full::<Bytes>::default())?;
        self.client.ask(request).await
    }
}

/// What to do when the API cannot be queried.
pub fn advice(error: &anyhow::Error) -> &'static str {
    let refused = error.downcast_ref::<Refused>();
    if refused.is_some_and(|refused| refused.0 == StatusCode::UNAUTHORIZED) {
        "use a user with the tag `management` and access to the vhost (`rabbitmqctl set_user_tags USER management`), with its password in the URL"
    } else {
        "is this where the management API listens (`rabbitmq-plugins enable rabbitmq_management`; its port is 15672 unless configured otherwise)?"
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    if !answer.status.is_success() {
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = text(&told["reason"]).unwrap_or_default();
        return Err(Refused(answer.status, reason).into());
    }
    serde_json::from_slice(&answer.body)
        .context("its answer is not one of RabbitMQ's management API")
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn clock_ahead(answer: &Answer, now: Timestamp) -> Option<SignedDuration> {
    let date = answer.headers.get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(now.duration_since(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, base: &str, login: &str) {
        let broker = BrokerUrl::parse("amqp://bridge:p%40ss@rabbit/chat").unwrap();
        let management = Management::new(&Secret::new(url), &broker, None).unwrap();
        let expected = format!("Basic {}", BASE64.encode(login.as_bytes()));
        assert_eq!(management.base, base);
        assert_eq!(management.authorization, expected);
        assert!(!management.url().contains("rabbit/rabbit"));
    }

    #[test]
    fn login_defaults_to_the_brokers_and_is_hidden() {
        check("http://rabbit:15672", "http://rabbit:15672", "bridge:p@ss");
        let with_login = "http://a%3Ab:c%20d@rabbit:15672/api/";
        check(with_login, "http://rabbit:15672", "a:b:c d");
        let behind = "http://[::1]:15672/rabbit";
        check("http://op@[::1]:15672/rabbit/", behind, "op:");
    }

    #[test]
    fn names_are_encoded_as_one_path_segment() {
        assert_eq!(encoded("/"), "%2F");
        assert_eq!(encoded("a b/ü-_.~"), "a%20b%2F%C3%BC-_.~");
    }
}
