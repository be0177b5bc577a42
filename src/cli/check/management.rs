//! Asks the broker's management API what exists in our virtual host. Never shows its password.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use data_encoding::BASE64;
use deskbridge::config::sources::Secret;
use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::url::BrokerUrl;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, DATE};
use hyper::{Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::line::Line;
use super::permissions::Permissions;
use crate::cli::http_client::{Answer, Client};

/// What is asked of every queue; without it the answer holds statistics, a hundred times as much.
const QUEUE_COLUMNS: &str = "name,type,durable,auto_delete,exclusive,arguments,policy,\
    effective_policy_definition,state,messages,messages_unacknowledged,message_bytes_ready";

/// Everything the API told.
pub struct Told {
    /// Exchanges, queues, bindings.
    pub existing: Existing,
    /// Resources that are short, such as `memory on rabbit@host`.
    pub alarms: Vec<String>,
    /// What our user may do; `None` if we may not know.
    pub permissions: Option<Permissions>,
    /// How far our clock is ahead of the broker's.
    pub clock_ahead: Option<SignedDuration>,
    /// What could not be looked at.
    pub unseen: Vec<Line>,
}

/// The API at one URL, as one user.
pub struct Management {
    base: String,
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
        let url = url.expose().trim();
        let (scheme, rest) = url.split_once("://").context("it is no URL")?;
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        let host = host.trim_end_matches('/').trim_end_matches("/api");
        let (user, password) = if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (decoded(user), decoded(password))
        } else {
            let (user, password) = broker.credentials();
            (user.to_owned(), password.to_owned())
        };
        let base = format!("{scheme}://{host}");
        let uri = base.parse().context("it is no URL")?;
        Ok(Self {
            authorization: format!(
                "Basic {}",
                BASE64.encode(format!("{user}:{password}").as_bytes())
            ),
            client: Client::trusting(&uri, 1, ca_file.map(authorities).transpose()?)?,
            base,
        })
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.base
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
            unseen.push(Line::unseen(problem));
            Vec::new()
        });
        let path = format!("permissions/{place}/{}", encoded(user));
        let permissions = self.get(&path).await?;
        let permissions = match permissions.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                unseen.push(Line::unseen(format!(
                    "what user `{user}` may declare was not looked at: that takes a user with the tag `administrator` in `rabbitmq.management_url`"
                )));
                None
            }
            StatusCode::NOT_FOUND => Some(Permissions::default()),
            _ => Some(parsed(&permissions)?),
        };
        Ok(Told {
            existing,
            alarms,
            permissions,
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
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.with_context(|| format!("reading `{}` (rabbitmq.tls.ca_file)", file.display()))
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
    let segment = name.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    segment.collect()
}

/// What stands in a URL for characters it cannot hold.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = escaped.map_or(after, |_| &after[2..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
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
            (management.url(), &management.authorization),
            (base, &expected)
        );
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
        assert_eq!(decoded("%2F%zz%"), "/%zz%");
    }
}
