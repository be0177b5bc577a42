//! One attempt to connect to one broker: name, TCP, TLS, AMQP handshake, all within one deadline.
//! Knows nothing of when to try again.

mod relay;

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lapin::tcp::AsyncTcpStream;
use lapin::{ConnectionProperties, ErrorKind};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::Settings;
use super::tls::words::{self, Words};
use super::tls::{self, TlsError};
use super::url::{self, BrokerUrl};
use super::validity::Validity;
use super::version;
use crate::config::rabbitmq::Tls;

/// Shown in the broker's management pages.
const CONNECTION_NAME: &str = "deskbridge";
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why an attempt to connect failed. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is not known.
    #[error("looking up `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No address of it takes a connection.
    #[error("connecting to `{address}`")]
    Tcp {
        /// The last address tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Our own certificates.
    #[error("preparing TLS towards the broker")]
    TlsFiles(#[from] TlsError),
    /// The broker's certificate, or the broker about ours.
    #[error("negotiating TLS with the broker: {}", words.problem)]
    Tls {
        /// Why, and what to do.
        words: Words,
        /// Whether it is a decision and not just the end of a connection.
        is_refusal: bool,
    },
    /// Something else than a broker, or its port for TLS.
    #[error("opening the AMQP connection: {}", .0.problem)]
    NoAmqp(Words),
    /// Login, vhost or protocol.
    #[error("opening the AMQP connection")]
    Handshake(#[source] lapin::Error),
    /// The broker hung up between TLS and AMQP. With TLS 1.3 that may be all we learn of a client
    /// certificate that is missing or not welcome: its words come behind its decision.
    #[error("the broker hung up after TLS; does it want another client certificate?")]
    HungUp(#[source] lapin::Error),
    /// Nothing of the above within `rabbitmq.connect_timeout`.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
}

impl ConnectError {
    /// Whether the broker (or we) said no, rather than nothing: login, vhost, certificate.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TlsFiles(_) | Self::NoAmqp(_) => true,
            Self::Tls { is_refusal, .. } => *is_refusal,
            Self::Handshake(error) => match error.kind() {
                // ACCESS_REFUSED and NOT_ALLOWED; a broker going down answers 320 here.
                ErrorKind::ProtocolError(error) => matches!(error.get_id(), 403 | 530),
                ErrorKind::AuthProviderError(_) => true,
                // A broker that refuses our certificate says so after the handshake of TLS 1.3.
                ErrorKind::IOError(error) => error.kind() == io::ErrorKind::InvalidData,
                _ => false,
            },
            Self::Resolve { .. } | Self::Tcp { .. } | Self::HungUp(_) | Self::Timeout(_) => false,
        }
    }

    /// What to do about it, where more is known than that it failed.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::TlsFiles(error) => Some(error.advice()),
            Self::Tls { words, .. } | Self::NoAmqp(words) => Some(words.advice.clone()),
            Self::HungUp(_) => Some(
                "`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file` with a certificate that the broker's `ssl_options.cacertfile` knows".into(),
            ),
            _ => None,
        }
    }

    /// The whole chain in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let text = error.to_string();
            if !text.is_empty() && !reason.ends_with(&text) {
                reason = format!("{reason}: {text}");
            }
            source = error.source();
        }
        reason
    }
}

/// No broker could be connected to; the last one's reason.
#[derive(Debug, thiserror::Error)]
#[error("connecting to `{url}`")]
pub struct Unreachable {
    /// Which, without credentials.
    pub url: String,
    /// Why.
    pub source: ConnectError,
}

/// An open AMQP connection and the means to end it whatever lapin is doing.
pub(super) struct Connection {
    pub(super) amqp: lapin::Connection,
    pub(super) socket: SocketGuard,
    /// Until when the broker's certificate is good.
    pub(super) good_until: Option<Timestamp>,
}

/// A second handle on the connection's socket. Shuts it down when dropped: that is what ends
/// lapin's thread when a peer is silent.
pub(super) struct SocketGuard(Socket);

impl SocketGuard {
    /// Ends the conversation in both directions, at once.
    pub(super) fn shut_down(&self) {
        // Fails only if it is closed already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// How much the broker may send in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameSize {
    /// As much as was agreed with it.
    Agreed,
    /// More. Only for a connection that publishes nothing: its own frames would be too large.
    Large,
}

/// Connects, within `timeout` in all.
///
/// # Errors
/// The first thing that failed; nothing of the attempt is left behind.
pub(super) async fn connect(
    url: &BrokerUrl,
    tls: &Tls,
    timeout: Duration,
) -> Result<Connection, ConnectError> {
    connect_with(url, tls, timeout, FrameSize::Agreed).await
}

/// As [`connect`], with a say in the size of frames.
///
/// # Errors
/// As for [`connect`].
pub(super) async fn connect_with(
    url: &BrokerUrl,
    tls: &Tls,
    timeout: Duration,
    frames: FrameSize,
) -> Result<Connection, ConnectError> {
    let timeout = url.parameters().connection_timeout.unwrap_or(timeout);
    tokio::time::timeout(timeout, attempt(url, tls, timeout, frames))
        .await
        .unwrap_or(Err(ConnectError::Timeout(timeout)))
}

/// Connects to the first broker that takes us, each asked once.
///
/// # Errors
/// The last one's, if none does.
pub(super) async fn connect_to_any(settings: &Settings) -> Result<Connection, Unreachable> {
    connect_to_any_with(settings, FrameSize::Agreed).await
}

/// As [`connect_to_any`], with a say in the size of frames.
///
/// # Errors
/// As for [`connect_to_any`].
pub(super) async fn connect_to_any_with(
    settings: &Settings,
    frames: FrameSize,
) -> Result<Connection, Unreachable> {
    let mut failed = None;
    for url in &settings.urls {
        match connect_with(url, &settings.tls, settings.connect_timeout, frames).await {
            Ok(connection) => return Ok(connection),
            Err(source) => {
                let url = url.to_string();
                failed = Some(Unreachable { url, source });
            }
        }
    }
    Err(failed.expect("there is at least one broker"))
}

async fn attempt(
    url: &BrokerUrl,
    tls: &Tls,
    timeout: Duration,
    frames: FrameSize,
) -> Result<Connection, ConnectError> {
    match open(url, tls, timeout, For::Amqp(frames)).await? {
        Open::Amqp(connection) => Ok(*connection),
        Open::Greeting(_) => unreachable!("a connection was asked for"),
    }
}

/// What a broker says of itself before the login: the first frame.
pub(super) async fn greeting(url: &BrokerUrl, tls: &Tls, timeout: Duration) -> Option<Vec<u8>> {
    let opening = open(url, tls, timeout, For::Greeting);
    match tokio::time::timeout(timeout, opening).await {
        Ok(Ok(Open::Greeting(greeting))) => greeting,
        _ => None,
    }
}

/// What a stream is opened for. lapin's type of it cannot be named here.
enum For {
    Amqp(FrameSize),
    Greeting,
}

/// What came of it.
enum Open {
    Amqp(Box<Connection>),
    Greeting(Option<Vec<u8>>),
}

async fn open(
    url: &BrokerUrl,
    tls: &Tls,
    timeout: Duration,
    purpose: For,
) -> Result<Open, ConnectError> {
    let runtime = lapin::runtime::default_runtime().map_err(ConnectError::Handshake)?;
    let connect = |address| {
        let runtime = runtime.clone();
        async move { AsyncTcpStream::connect(&runtime, address).await }
    };
    let (address, stream) = first_open(resolve(url).await?, timeout, connect).await?;
    let AsyncTcpStream::Plain(tcp) = &stream else {
        unreachable!("a stream just connected is plain");
    };
    let socket = tune(&SockRef::from(tcp.get_ref()))
        .map_err(|source| ConnectError::Tcp { address, source })?;
    let stream = if url.is_tls() {
        let files = tls.clone();
        let connector = tokio::task::spawn_blocking(move || tls::connector(&files))
            .await
            .expect("reading certificates does not panic")?;
        stream
            .into_rustls(&connector, url.host())
            .await
            .map_err(|error| tls_failed(&error, url, tls))?
    } else {
        stream
    };
    let good_until = match &stream {
        AsyncTcpStream::Rustls(stream) => {
            let presented = stream.get_ref().1.peer_certificates();
            presented.and_then(|chain| Validity::of(chain.first()?))
        }
        _ => None,
    }
    .map(|validity| validity.until);
    let frames = match purpose {
        For::Amqp(frames) => frames,
        For::Greeting => return Ok(Open::Greeting(version::greeting(stream.compat()).await)),
    };
    let mut uri = url::uri(url);
    let stream = match frames {
        FrameSize::Agreed => stream,
        FrameSize::Large => {
            uri.query.frame_max = Some(relay::FRAME_BYTES_MAX);
            let near = |source| ConnectError::Tcp { address, source };
            let address = relay::start(stream.compat()).await.map_err(near)?;
            let stream = AsyncTcpStream::connect(&runtime, address).await;
            let stream = stream.map_err(near)?;
            if let AsyncTcpStream::Plain(tcp) = &stream {
                let socket = SockRef::from(tcp.get_ref());
                socket.set_tcp_nodelay(true).map_err(near)?;
            }
            stream
        }
    };
    let once = Mutex::new(Some(stream));
    let hand_over = async move |_, _| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionAborted)))
    };
    let properties = ConnectionProperties::default()
        .with_connection_name(CONNECTION_NAME.into())
        .with_client_property("product".into(), env!("CARGO_PKG_NAME").into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let amqp = lapin::Connection::connector(uri, runtime, hand_over, properties)
        .await
        .map_err(|error| handshake_failed(url, tls, error))?;
    let connection = Connection {
        amqp,
        socket,
        good_until,
    };
    Ok(Open::Amqp(Box::new(connection)))
}

fn tls_failed(error: &io::Error, url: &BrokerUrl, tls: &Tls) -> ConnectError {
    match words::rustls(error) {
        Some(rustls) => ConnectError::Tls {
            words: words::told(rustls, url.host(), tls),
            is_refusal: true,
        },
        None => ConnectError::Tls {
            words: words::hung_up(),
            is_refusal: false,
        },
    }
}

fn handshake_failed(url: &BrokerUrl, tls: &Tls, error: lapin::Error) -> ConnectError {
    match error.kind() {
        // With TLS 1.3 a broker decides on our certificate after the handshake.
        ErrorKind::IOError(io) if words::rustls(io.as_ref()).is_some() => tls_failed(io, url, tls),
        ErrorKind::IOError(_) if url.is_tls() => ConnectError::HungUp(error),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            ConnectError::NoAmqp(words::no_amqp())
        }
        _ => ConnectError::Handshake(error),
    }
}

/// The first address that takes a connection; each has its share of the time.
async fn first_open<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    timeout: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), ConnectError> {
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(1);
    let mut failed = None;
    for address in addresses {
        let source = match tokio::time::timeout(share, connect(address)).await {
            Ok(Ok(stream)) => return Ok((address, stream)),
            Ok(Err(source)) => source,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        failed = Some(ConnectError::Tcp { address, source });
    }
    Err(failed.expect("there is at least one address, and it failed"))
}

async fn resolve(url: &BrokerUrl) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |source| ConnectError::Resolve {
        host: url.host().into(),
        source,
    };
    let found = tokio::net::lookup_host((url.host(), url.port()))
        .await
        .map_err(failed)?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        Err(failed(io::ErrorKind::NotFound.into()))
    } else {
        Ok(addresses)
    }
}

fn tune(socket: &SockRef<'_>) -> io::Result<SocketGuard> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.try_clone().map(SocketGuard)
}
