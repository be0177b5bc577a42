//! Asks the broker's management API what exists in our virtual host. Never shows its password.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use data_encoding::BASE64;
use deskbridge::config::http_url::HttpUrl;
use deskbridge::config::sources::Secret;
use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::pem;
use deskbridge::rabbitmq::url::BrokerUrl;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, DATE};
use hyper::{Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::finding::Finding;
use super::permissions::{Permissions, TopicPermissions};
use crate::cli::http_client::{Answer, Client};

/// What is asked of every queue; without it the answer holds statistics, a hundred times as much.
const QUEUE_COLUMNS: &str = "name,type,durable,auto_delete,exclusive,arguments,policy,\
    effective_policy_definition,state,messages,messages_unacknowledged,message_bytes_ready";

/// What stands for itself in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Everything the API told.
pub struct Told {
    /// Exchanges, queues, bindings.
    pub existing: Existing,
    /// Resources that are short, such as `memory on rabbit@host`.
    pub alarms: Vec<String>,
    /// What our user may do; `None` if we may not know.
    pub permissions: Option<Permissions>,
    /// Exchanges where our user may publish with some keys only; `None` if we may not know.
    pub topics: Option<Vec<TopicPermissions>>,
    /// How far our clock is ahead of the broker's.
    pub clock_ahead: Option<SignedDuration>,
    /// What could not be looked at.
    pub unseen: Vec<Finding>,
}

/// The API at one URL, as one user.
pub struct Management {
    base: String,
    shown: String,
    authorization: String,
    client: Client,
}

/// Another answer than the one that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("it answered {} {_1}", .0.as_u16())]
struct Refused(StatusCode, String);

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

#[derive(Deserialize)]
struct Policy {
    name: String,
    definition: Value,
}

#[derive(Deserialize)]
struct Alarms {
    #[serde(default)]
    alarms: Vec<Alarm>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Alarm {
    node: String,
    resource: String,
}

impl Management {
    /// The URL's own user and password, or else the broker's; trusts the broker's authorities.
    pub fn new(url: &Secret, broker: &BrokerUrl, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let url = HttpUrl::parse(url.expose())?;
        let (user, password) = url.login().unwrap_or_else(|| broker.credentials());
        let request = url.request();
        let base = request.trim_end_matches('/').trim_end_matches("/api");
        let authorization = format!(
            "Basic {}",
            BASE64.encode(format!("{user}:{password}").as_bytes())
        );
        Ok(Self {
            authorization,
            client: Client::trusting(&base.parse()?, 1, ca_file.map(authorities).transpose()?)?,
            base: base.to_owned(),
            shown: url.to_string(),
        })
    }

    /// Where it is, without what may be secret.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Asks for everything.
    pub async fn ask(&self, vhost: &str, user: &str) -> anyhow::Result<Told> {
        let overview = self.get("overview").await?;
        let clock_ahead = clock_ahead(&overview, Timestamp::now());
        let overview: Overview = parsed(&overview)?;
        let place = encoded(vhost);
        let mut existing = Existing {
            version: overview.rabbitmq_version,
            exchanges: self.list(&format!("exchanges/{place}")).await?,
            queues: self
                .list(&format!("queues/{place}?columns={QUEUE_COLUMNS}"))
                .await?,
            bindings: self.list(&format!("bindings/{place}")).await?,
            ..Existing::default()
        };
        for queue in &mut existing.queues {
            // Queues without a type are those of a broker that knows only one.
            if queue.kind.is_empty() {
                queue.kind = "classic".into();
            }
        }
        self.add_policies(&mut existing, &place).await?;
        let mut unseen = Vec::new();
        let alarms = self.alarms().await.unwrap_or_else(|error| {
            let problem = format!("alarms were not looked at: {error:#}");
            unseen.push(Finding::unseen(problem));
            Vec::new()
        });
        let path = format!("permissions/{place}/{}", encoded(user));
        let permissions = self.get(&path).await?;
        let permissions = match permissions.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                unseen.push(Finding::unseen(format!(
                    "what user `{user}` may declare was not looked at: that takes a user with the tag `administrator` in `rabbitmq.management_url`"
                )));
                None
            }
            StatusCode::NOT_FOUND => Some(Permissions::default()),
            _ => Some(parsed(&permissions)?),
        };
        let path = format!("topic-permissions/{place}/{}", encoded(user));
        let topics = self.get(&path).await?;
        let topics = match topics.status {
            StatusCode::NOT_FOUND => Some(Vec::new()),
            _ => parsed(&topics).ok(),
        };
        Ok(Told {
            existing,
            alarms,
            permissions,
            topics,
            clock_ahead,
            unseen,
        })
    }

    /// Policies may give an exchange its alternate. Not everybody may read them.
    async fn add_policies(&self, existing: &mut Existing, place: &str) -> anyhow::Result<()> {
        let answer = self.get(&format!("policies/{place}")).await?;
        if answer.status.is_success() {
            let policies: Vec<Policy> = parsed(&answer)?;
            existing.knows_policies = true;
            existing.alternates = policies
                .into_iter()
                .filter_map(|policy| {
                    let alternate = policy.definition.get("alternate-exchange")?.as_str()?;
                    Some((policy.name, alternate.to_owned()))
                })
                .collect();
        }
        Ok(())
    }

    async fn alarms(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.get("health/checks/alarms").await?;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return parsed::<Value>(&answer).map(|_| Vec::new());
        }
        let told: Alarms = serde_json::from_slice(&answer.body)?;
        let alarms: Vec<_> = told
            .alarms
            .iter()
            .map(|alarm| format!("{} on {}", alarm.resource, alarm.node))
            .collect();
        Ok(if alarms.is_empty() {
            vec![told.reason]
        } else {
            alarms
        })
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        parsed(&self.get(path).await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let request = Request::get(format!("{}/api/{path}", self.base))
            .header(AUTHORIZATION, &self.authorization)
            .body(Full::<Bytes>::default())?;
        self.client.ask(request).await
    }
}

fn authorities(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    pem::certificates(file).context("reading `rabbitmq.tls.ca_file`")
}

/// What to do when it cannot be asked.
pub fn advice(error: &anyhow::Error) -> &'static str {
    let refused = error.downcast_ref::<Refused>();
    if refused.is_some_and(|refused| refused.0 == StatusCode::UNAUTHORIZED) {
        "a user with the tag `management` and access to the vhost (`rabbitmqctl set_user_tags USER management`), with its password in the URL"
    } else {
        "is this where the management API listens (`rabbitmq-plugins enable rabbitmq_management`; its port is 15672 unless configured otherwise)?"
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    if !answer.status.is_success() {
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = told["reason"].as_str().unwrap_or_default().to_owned();
        return Err(Refused(answer.status, reason).into());
    }
    serde_json::from_slice(&answer.body).context("its answer is none of RabbitMQ's")
}

fn clock_ahead(answer: &Answer, now: Timestamp) -> Option<SignedDuration> {
    let date = answer.headers.get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(now.duration_since(theirs))
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, base: &str, login: &str) {
        let broker = BrokerUrl::parse("amqp://bridge:p%40ss@rabbit/chat").unwrap();
        let management = Management::new(&Secret::new(url), &broker, None).unwrap();
        let expected = format!("Basic {}", BASE64.encode(login.as_bytes()));
        assert_eq!(
            (management.base.as_str(), &management.authorization),
            (base, &expected)
        );
        assert!(!management.url().contains("rabbit/rabbit"));
    }

    #[test]
    fn the_login_is_the_urls_or_else_the_brokers_and_is_not_shown() {
        check("http://rabbit:15672", "http://rabbit:15672", "bridge:p@ss");
        check(
            "http://a%3Ab:c%20d@rabbit:15672/api/",
            "http://rabbit:15672",
            "a:b:c d",
        );
        check(
            "http://op@[::1]:15672/rabbit/",
            "http://[::1]:15672/rabbit",
            "op:",
        );
    }

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!(encoded("/"), "%2F");
        assert_eq!(encoded("a b/ü-_.~"), "a%20b%2F%C3%BC-_.~");
    }
}
