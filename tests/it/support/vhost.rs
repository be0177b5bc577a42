//! A vhost for one test: created through the management API, used through AMQP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use data_encoding::BASE64;
use hyper::Method;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::broker::Broker;
use super::http::{Answer, Client};
use super::message::{Message, arguments};
use super::wait::{SOON, eventually};

/// An isolated vhost of a broker; deleted when dropped.
pub struct Vhost {
    /// Its name, without characters that a URL would have to escape.
    pub name: String,
    /// The URL for the bridge and for consumers, with user `guest`.
    pub amqp_url: String,
    amqp: SocketAddr,
    management: SocketAddr,
    connection: Mutex<Option<Connection>>,
}

impl Vhost {
    pub(super) async fn create(broker: &Broker) -> Self {
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        let amqp = SocketAddr::from(([127, 0, 0, 1], broker.port("AMQP_PORT")));
        let vhost = Self {
            amqp_url: format!("amqp://guest:guest@{amqp}/{name}"),
            amqp,
            management: SocketAddr::from(([127, 0, 0, 1], broker.port("MANAGEMENT_PORT"))),
            connection: Mutex::new(None),
            name,
        };
        vhost.make().await;
        vhost
    }

    /// Creates the vhost, or creates it again on a broker that has lost its data.
    pub async fn make(&self) {
        self.management(Method::PUT, &format!("vhosts/{}", self.name), &json!({}))
            .await;
        self.allow("guest", ".*", ".*", ".*").await;
    }

    /// The AMQP URL with another host and port, for instance of a proxy.
    pub fn amqp_url_through(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/{}", self.name)
    }

    /// The AMQP URL with another user.
    pub fn amqp_url_as(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@{}/{}", self.amqp, self.name)
    }

    /// The URL of the management API, with the administrator's login.
    pub fn management_url(&self) -> String {
        format!("http://guest:guest@{}", self.management)
    }

    /// Sets a policy for one queue or exchange (`apply_to` is `queues` or `exchanges`).
    pub async fn policy(&self, apply_to: &str, name: &str, definition: Value) {
        let policy = json!({
            "pattern": format!("^{name}$"), "apply-to": apply_to, "definition": definition,
        });
        let path = format!("policies/{}/for-{name}", self.name);
        self.management(Method::PUT, &path, &policy).await;
    }

    /// The AMQP address of the broker.
    pub fn amqp_address(&self) -> SocketAddr {
        self.amqp
    }

    /// Creates a user or changes its password; the user has all permissions in this vhost.
    pub async fn user(&self, name: &str, password: &str) {
        self.user_with_tags(name, password, "").await;
    }

    /// As [`Vhost::user`], with these tags (comma-separated).
    pub async fn user_with_tags(&self, name: &str, password: &str, tags: &str) {
        let user = json!({"password": password, "tags": tags});
        self.management(Method::PUT, &format!("users/{name}"), &user)
            .await;
        self.allow(name, ".*", ".*", ".*").await;
    }

    /// Sets what a user may configure, write and read in this vhost (regular expressions).
    pub async fn allow(&self, user: &str, configure: &str, write: &str, read: &str) {
        let permissions = json!({"configure": configure, "write": write, "read": read});
        let path = format!("permissions/{}/{user}", self.name);
        self.management(Method::PUT, &path, &permissions).await;
    }

    /// Whether the broker supports delayed retry itself (4.3 and later).
    pub async fn has_delayed_retry(&self) -> bool {
        let overview = self.management(Method::GET, "overview", &Value::Null).await;
        let version = overview.json()["rabbitmq_version"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut numbers = version.split('.').map(|one| one.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (4, 3)
    }

    /// Declares a durable exchange.
    pub async fn declare_exchange(&self, name: &str, kind: &str, with: Value) {
        let kind = match kind {
            "topic" => ExchangeKind::Topic,
            "fanout" => ExchangeKind::Fanout,
            "direct" => ExchangeKind::Direct,
            other => panic!("no exchange of kind {other}"),
        };
        let options = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let channel = self.channel().await;
        let declared = channel
            .exchange_declare(name.into(), kind, options, arguments(&with))
            .await;
        declared.expect("the exchange is declared");
    }

    /// Declares a durable queue.
    pub async fn declare_queue(&self, name: &str, with: Value) {
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let channel = self.channel().await;
        channel
            .queue_declare(name.into(), options, arguments(&with))
            .await
            .expect("the queue is declared");
    }

    /// Declares a durable queue and binds it to an existing exchange.
    pub async fn queue_bound(&self, name: &str, exchange: &str, key: &str) {
        self.declare_queue(name, json!({})).await;
        self.bind(name, exchange, key).await;
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let channel = self.channel().await;
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("the queue is bound");
    }

    /// Removes a binding.
    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let channel = self.channel().await;
        channel
            .queue_unbind(
                queue.into(),
                exchange.into(),
                key.into(),
                FieldTable::default(),
            )
            .await
            .expect("the queue is unbound");
    }

    /// Deletes a queue with all its messages.
    pub async fn delete_queue(&self, name: &str) {
        let channel = self.channel().await;
        let deleted = channel
            .queue_delete(name.into(), QueueDeleteOptions::default())
            .await;
        deleted.expect("the queue is deleted");
    }

    /// Deletes the messages of a queue.
    pub async fn purge_queue(&self, name: &str) {
        let channel = self.channel().await;
        let purged = channel
            .queue_purge(name.into(), QueuePurgeOptions::default())
            .await;
        purged.expect("the queue is purged");
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, name: &str) {
        let channel = self.channel().await;
        let deleted = channel
            .exchange_delete(name.into(), ExchangeDeleteOptions::default())
            .await;
        deleted.expect("the exchange is deleted");
    }

    /// Whether the exchange exists.
    pub async fn has_exchange(&self, name: &str) -> bool {
        let options = ExchangeDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let kind = ExchangeKind::Topic; // a passive declaration does not compare it
        let channel = self.channel().await;
        channel
            .exchange_declare(name.into(), kind, options, FieldTable::default())
            .await
            .is_ok()
    }

    /// How many messages are ready in a queue, or `None` if the queue does not exist.
    pub async fn message_count(&self, queue: &str) -> Option<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let channel = self.channel().await;
        let found = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        found.ok().map(|queue| queue.message_count())
    }

    /// Waits until a queue exists and has this many bindings, of which one is to the default
    /// exchange. A program that declares a queue binds it a moment later: what is published
    /// between the two is not routed to it.
    pub async fn has_bindings(&self, queue: &str, count: usize) {
        let what = format!("queue `{queue}` has {count} bindings");
        eventually(&what, SOON * 2, || async {
            if self.message_count(queue).await.is_none() {
                return false;
            }
            let bindings = self.describe("queues", &format!("{queue}/bindings")).await;
            bindings.as_array().is_some_and(|all| all.len() == count)
        })
        .await;
    }

    /// Takes all messages that are ready in a queue.
    pub async fn messages(&self, queue: &str) -> Vec<Message> {
        let channel = self.channel().await;
        let mut messages = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = channel
            .basic_get(queue.into(), options)
            .await
            .expect("the queue is there")
        {
            messages.push(got.delivery.into());
        }
        messages
    }

    /// Publishes a message and waits for its confirm; false if it was nacked or returned.
    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> bool {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = BasicProperties::default();
        let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        matches!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None))
    }

    /// A queue, exchange or other object of this vhost as the management API shows it:
    /// `describe("queues", "chat-sessions.unrouted")["arguments"]`.
    pub async fn describe(&self, kind: &str, name: &str) -> Value {
        let path = format!("{kind}/{}/{name}", self.name);
        self.management(Method::GET, &path, &Value::Null)
            .await
            .json()
    }

    /// How many connections with this name there are.
    pub async fn connections_named(&self, name: &str) -> usize {
        let path = format!("vhosts/{}/connections", self.name);
        let told = self.management(Method::GET, &path, &Value::Null).await;
        let told = told.json();
        let all = told.as_array().expect("a list of connections");
        let is_named = |one: &&Value| one["client_properties"]["connection_name"] == name;
        all.iter().filter(is_named).count()
    }

    /// Sends a request to the management API; panics unless it answers 2xx.
    pub async fn management(&self, method: Method, path: &str, body: &Value) -> Answer {
        let login = guest_login();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = Client::new(self.management)
            .request(
                method.clone(),
                &format!("/api/{path}"),
                &[("authorization", &login), ("connection", "close")],
                body,
            )
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {}",
            answer.text()
        );
        answer
    }

    /// Opens a channel on the connection of this vhost: a channel error closes only this channel.
    pub async fn channel(&self) -> Channel {
        let mut connection = self.connection.lock().await;
        if connection
            .as_ref()
            .is_none_or(|open| !open.status().connected())
        {
            *connection = Some(connect(&self.amqp_url).await);
        }
        let open = connection.as_ref().expect("just connected");
        open.create_channel().await.expect("a channel is opened")
    }
}

/// The administrator's login for the management API.
pub(super) fn guest_login() -> String {
    format!("Basic {}", BASE64.encode(b"guest:guest"))
}

/// Connects at once or panics; there are no retries.
pub async fn connect(amqp_url: &str) -> Connection {
    let properties = ConnectionProperties::default().with_connection_name("test".into());
    tokio::time::timeout(
        Duration::from_secs(15),
        Connection::connect(amqp_url, properties),
    )
    .await
    .expect("the broker answers within 15 s")
    .expect("the broker accepts the connection")
}

impl Drop for Vhost {
    /// Deletes the vhost to free the broker's memory, without waiting for the result.
    fn drop(&mut self) {
        let (server, name) = (self.management, self.name.clone());
        std::thread::spawn(move || {
            let Ok(mut stream) = TcpStream::connect_timeout(&server, Duration::from_secs(1)) else {
                return;
            };
            let login = guest_login();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(
                stream,
                "DELETE /api/vhosts/{name} HTTP/1.1\r\nHost: {server}\r\n\
                 Authorization: {login}\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.read(&mut [0]);
        });
    }
}
