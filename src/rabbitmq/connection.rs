//! One attempt to connect to one broker: name resolution, TCP, TLS and AMQP handshake within one
//! deadline. Does not decide when to retry.

mod greeting;
mod relay;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::AsyncTcpStream;
use lapin::{ConnectionProperties, ErrorKind};
use socket2::{SockRef, TcpKeepalive};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::ConnectConfig;
use super::certificate_expiry::Validity;
use super::open_connection::{OpenConnection, SocketGuard};
use super::tls::diagnosis::{self, Words};
use super::tls::{self, TlsError};
use super::url::{self, BrokerUrl};
use crate::config::rabbitmq::Tls;
use crate::slow_call;

/// Shown in the management UI.
const CONNECTION_NAME: &str = "deskbridge";
/// Addresses of one host name that are tried at most.
const ADDRESSES_MAX: usize = 8;

/// Why a connection attempt failed. Never contains a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name cannot be resolved.
    #[error("looking up `{host}`")]
    Resolve {
        /// The host of the URL.
        host: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// No address of the host accepts a TCP connection.
    #[error("connecting to `{address}`")]
    Tcp {
        /// The last address tried.
        address: SocketAddr,
        /// The error for that address.
        source: io::Error,
    },
    /// The configured certificates or the key cannot be used.
    #[error("preparing TLS towards the broker")]
    TlsFiles(#[from] TlsError),
    /// The TLS handshake failed: we rejected the broker's certificate, the broker rejected ours, or
    /// the two have nothing in common.
    #[error("negotiating TLS with the broker: {}", words.problem)]
    Tls {
        /// Problem and advice.
        words: Words,
        /// Whether one side refused, as opposed to a connection that just ended.
        is_refusal: bool,
        /// The validity of the broker's certificate, if that is the reason.
        validity: Option<Validity>,
    },
    /// The peer is not an AMQP broker, or it is the broker's TLS port.
    #[error("opening the AMQP connection: {}", .0.problem)]
    NoAmqp(Words),
    /// The AMQP handshake failed: login, vhost or protocol.
    #[error("opening the AMQP connection")]
    Handshake(#[source] lapin::Error),
    /// The broker closed the connection between TLS and AMQP. With TLS 1.3 this may be the only
    /// sign of a missing or rejected client certificate: the client's handshake completes before
    /// the broker verifies the certificate, and the alert can be lost.
    #[error(
        "the broker closed the connection after TLS; does it require another client certificate?"
    )]
    HungUp(#[source] lapin::Error),
    /// The attempt was not complete within `rabbitmq.connect_timeout`, or within the
    /// `connection_timeout` of the URL.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The connection was lost while the topology was declared or checked.
    #[error("{0}")]
    Lost(String),
}

impl ConnectError {
    /// Whether the broker or the bridge refused the connection (login, vhost, certificate), as
    /// opposed to a broker that cannot be reached. Refusals are retried at longer intervals.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TlsFiles(_) | Self::NoAmqp(_) => true,
            Self::Tls { is_refusal, .. } => *is_refusal,
            Self::Handshake(error) => match error.kind() {
                // ACCESS_REFUSED and NOT_ALLOWED; a broker that is shutting down answers 320.
                ErrorKind::ProtocolError(error) => matches!(error.get_id(), 403 | 530),
                ErrorKind::AuthProviderError(_) => true,
                // With TLS 1.3, a broker rejects our certificate after the handshake.
                ErrorKind::IOError(error) => error.kind() == io::ErrorKind::InvalidData,
                _ => false,
            },
            Self::Resolve { .. }
            | Self::Tcp { .. }
            | Self::HungUp(_)
            | Self::Timeout(_)
            | Self::Lost(_) => false,
        }
    }

    /// What the operator can do about it; `None` if only the failure itself is known.
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

    /// The error and its chain of sources in one line, without repetitions.
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

/// No broker accepted a connection; carries the error of the last one tried.
#[derive(Debug, thiserror::Error)]
#[error("connecting to `{url}`")]
pub struct Unreachable {
    /// URL of the last broker tried, without credentials.
    pub url: String,
    /// The error of that attempt.
    pub source: ConnectError,
}

/// The largest frame that the broker may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameSize {
    /// The negotiated `frame_max`.
    Agreed,
    /// More than the negotiated `frame_max`; see [`relay`]. Only for connections that do not
    /// publish: lapin's own frames would exceed what the broker accepts.
    Large,
}

/// Connects within `rabbitmq.connect_timeout`, or within the URL's `connection_timeout` if it has
/// one.
///
/// # Errors
/// The first step that failed; the attempt leaves no socket or task behind.
pub(super) async fn connect(
    settings: &ConnectConfig,
    url: &BrokerUrl,
    frames: FrameSize,
) -> Result<OpenConnection, ConnectError> {
    let timeout = url.parameters().connection_timeout;
    let timeout = timeout.unwrap_or(settings.connect_timeout);
    match open_within(timeout, url, &settings.tls, For::Amqp(frames)).await? {
        Open::Amqp(connection) => Ok(*connection),
        _ => unreachable!("a connection was asked for"),
    }
}

/// Connects to the first broker that accepts a connection. Each is tried once, in order.
///
/// # Errors
/// The error of the last broker, if none accepts.
pub(super) async fn connect_to_any(
    settings: &ConnectConfig,
    frames: FrameSize,
) -> Result<OpenConnection, Unreachable> {
    let mut failed = None;
    for url in &settings.urls {
        match connect(settings, url, frames).await {
            Ok(connection) => return Ok(connection),
            Err(source) => {
                let url = url.to_string();
                failed = Some(Unreachable { url, source });
            }
        }
    }
    Err(failed.expect("there is at least one broker"))
}

/// The first frame that the broker sends, before the login (`connection.start`).
pub(super) async fn greeting(url: &BrokerUrl, tls: &Tls, timeout: Duration) -> Option<Vec<u8>> {
    match open_within(timeout, url, tls, For::Greeting).await {
        Ok(Open::Greeting(greeting)) => greeting,
        _ => None,
    }
}

/// The validity of the certificate that the broker presents, also of one that is refused because of
/// it. `None` if there is no TLS connection for another reason.
pub async fn presented(url: &BrokerUrl, tls: &Tls, timeout: Duration) -> Option<Validity> {
    match open_within(timeout, url, tls, For::Certificate).await {
        Ok(Open::Certificate(validity)) | Err(ConnectError::Tls { validity, .. }) => validity,
        _ => None,
    }
}

/// What a stream is opened for. An enum, and not a function that returns the stream, because the
/// type of lapin's stream cannot be named here.
enum For {
    Amqp(FrameSize),
    Greeting,
    Certificate,
}

/// The result of [`open`].
enum Open {
    Amqp(Box<OpenConnection>),
    Greeting(Option<Vec<u8>>),
    Certificate(Option<Validity>),
}

async fn open_within(
    timeout: Duration,
    url: &BrokerUrl,
    tls: &Tls,
    purpose: For,
) -> Result<Open, ConnectError> {
    tokio::time::timeout(timeout, open(url, tls, timeout, purpose))
        .await
        .unwrap_or(Err(ConnectError::Timeout(timeout)))
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
        let connector = slow_call::run("certificates", move || tls::connector(&files))
            .await
            .map_err(|source| ConnectError::Tcp { address, source })??;
        stream
            .into_rustls(&connector, url.host())
            .await
            .map_err(|error| tls_failed(&error, url, tls))?
    } else {
        stream
    };
    let validity = match &stream {
        AsyncTcpStream::Rustls(stream) => {
            let presented = stream.get_ref().1.peer_certificates();
            presented.and_then(|chain| Validity::of(chain.first()?))
        }
        _ => None,
    };
    let frames = match purpose {
        For::Amqp(frames) => frames,
        For::Greeting => return Ok(Open::Greeting(greeting::read(stream.compat()).await)),
        For::Certificate => return Ok(Open::Certificate(validity)),
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
    let expires_at = validity.map(|validity| validity.until);
    let connection = OpenConnection::new(amqp, socket, expires_at);
    Ok(Open::Amqp(Box::new(connection)))
}

fn tls_failed(error: &io::Error, url: &BrokerUrl, tls: &Tls) -> ConnectError {
    let rustls = diagnosis::rustls(error);
    ConnectError::Tls {
        words: rustls.map_or_else(diagnosis::hung_up, |error| {
            diagnosis::of(error, url.host(), tls)
        }),
        is_refusal: rustls.is_some(),
        validity: rustls.and_then(Validity::rejected),
    }
}

fn handshake_failed(url: &BrokerUrl, tls: &Tls, error: lapin::Error) -> ConnectError {
    match error.kind() {
        // With TLS 1.3, a broker rejects our certificate after the handshake.
        ErrorKind::IOError(io) if diagnosis::rustls(io.as_ref()).is_some() => {
            tls_failed(io, url, tls)
        }
        ErrorKind::IOError(_) if url.is_tls() => ConnectError::HungUp(error),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            ConnectError::NoAmqp(diagnosis::no_amqp())
        }
        _ => ConnectError::Handshake(error),
    }
}

/// Connects to the first address that accepts. Each address gets an equal share of `timeout`.
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
    if let Ok(ip) = url.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, url.port())]);
    }
    let (host, port) = (url.host().to_owned(), url.port());
    let lookup = slow_call::run(url.host(), move || (host, port).to_socket_addrs());
    let found = lookup.await.flatten().map_err(failed)?;
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
