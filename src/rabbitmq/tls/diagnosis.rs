//! Translates TLS handshake errors into a sentence and an advice, instead of the library's names.

use std::error::Error;
use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError};

use crate::config::rabbitmq::Tls;

/// Advice for a broker that is not trusted.
pub(super) const TRUST: &str = "put the certificate of the broker's authority (its `ssl_options.cacertfile`; a self-signed \
    certificate itself) as PEM into the file that `rabbitmq.tls.ca_file` names";
/// Advice for a scheme that does not match the port.
const PORTS: &str = "`amqps://` with the port for TLS (5671 unless configured otherwise), or `amqp://` with the plain one (5672)";
/// Length to which each name of a certificate is cut when it is shown.
const NAME_BYTES_MAX: usize = 80;
const NAMES_MAX: usize = 5;

/// Why a handshake failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The problem, as one sentence without a full stop.
    pub problem: String,
    /// What the operator can try, in the same form.
    pub advice: String,
}

impl Words {
    fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            advice: advice.into(),
        }
    }
}

/// Finds the error of the TLS library in a chain of errors; `None` if there is none.
#[must_use]
pub fn rustls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e RustlsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls) = error.downcast_ref::<RustlsError>() {
            return Some(rustls);
        }
        // `source` of an I/O error skips the error inside it, so look at that one first.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whether a certificate was rejected because it is X.509 version 1.
pub(super) fn is_version_1(error: &CertificateError) -> bool {
    named(error) == "UnsupportedCertVersion"
}

/// Describes the error of a handshake with the server `host`.
#[must_use]
pub fn of(error: &RustlsError, host: &str, tls: &Tls) -> Words {
    let (problem, advice) = match error {
        RustlsError::InvalidCertificate(error) => return of_certificate(error, host, tls),
        RustlsError::AlertReceived(alert) => return of_alert(*alert, tls),
        RustlsError::InvalidMessage(_) | RustlsError::PeerSentOversizedRecord => {
            ("what answers does not speak TLS", PORTS)
        }
        RustlsError::PeerIncompatible(_) => (
            "it has no TLS version or no cipher in common with the bridge, which speaks TLS 1.2 and 1.3",
            "`ssl_options.versions` and `ssl_options.ciphers` of the broker",
        ),
        RustlsError::NoCertificatesPresented => (
            "it presents no certificate",
            "`ssl_options.certfile` of the broker",
        ),
        _ => ("the TLS handshake failed", PORTS),
    };
    Words::new(problem, advice)
}

/// Describes a connection that ended before the handshake was complete.
#[must_use]
pub fn hung_up() -> Words {
    Words::new("it ended the connection during the TLS handshake", PORTS)
}

/// Describes an answer that is not AMQP, on a connection without TLS.
#[must_use]
pub fn no_amqp() -> Words {
    Words::new("what answers does not speak plain AMQP", PORTS)
}

fn of_certificate(error: &CertificateError, host: &str, tls: &Tls) -> Words {
    let (problem, advice) = match error {
        CertificateError::UnknownIssuer if tls.ca_file.is_some() => (
            "the broker's certificate is signed by an authority that is not in `rabbitmq.tls.ca_file`, or is self-signed".to_owned(),
            TRUST.to_owned(),
        ),
        CertificateError::UnknownIssuer => (
            "the broker's certificate is signed by an authority that this system does not trust, or is self-signed".to_owned(),
            TRUST.to_owned(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the broker's certificate has expired".to_owned(),
            "renew it on the broker (`ssl_options.certfile`); is the clock of this machine right?".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the broker's certificate is not valid yet".to_owned(),
            "is the clock of this machine right (`timedatectl`)?".to_owned(),
        ),
        CertificateError::NotValidForName => (
            format!("the broker's certificate is not for `{host}`"),
            format!("a host in `rabbitmq.urls` that the certificate names, or a certificate with `subjectAltName` for `{host}`"),
        ),
        CertificateError::NotValidForNameContext { presented, .. } => (
            format!("the broker's certificate is not for `{host}` but for {}", names(presented)),
            format!("a host in `rabbitmq.urls` that the certificate names, or a certificate with `subjectAltName` for `{host}`"),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "the broker's certificate is not issued for use by servers".to_owned(),
            "issue one with `extendedKeyUsage = serverAuth`".to_owned(),
        ),
        CertificateError::Revoked => (
            "the broker's certificate was revoked".to_owned(),
            "issue a new one".to_owned(),
        ),
        CertificateError::BadEncoding => (
            "the broker's certificate cannot be read".to_owned(),
            "reissue it; `openssl x509 -text` shows its content".to_owned(),
        ),
        error if is_version_1(error) => (
            "the broker's certificate is of X.509 version 1, and TLS needs version 3".to_owned(),
            format!("issue it with extensions: `openssl x509 -req -extfile` with `subjectAltName = DNS:{host}`"),
        ),
        error => match named(error).as_str() {
            "CaUsedAsEndEntity" => (
                "the broker presents the certificate of an authority as its own (self-signed, `CA:TRUE`)".to_owned(),
                format!("issue a certificate for the server, with `basicConstraints = CA:FALSE` and `subjectAltName = DNS:{host}`"),
            ),
            name if name.contains("Signature") => (
                "the broker's certificate has a signature that is not accepted (such as SHA-1), or not of the authority that it names".to_owned(),
                "reissue it with SHA-256".to_owned(),
            ),
            _ => (
                "the broker's certificate is not accepted".to_owned(),
                "`openssl verify -CAfile` and `openssl x509 -text` show why".to_owned(),
            ),
        },
    };
    Words::new(problem, advice)
}

/// Describes a TLS alert of the broker, which may be about our certificate.
fn of_alert(alert: AlertDescription, tls: &Tls) -> Words {
    let is_ours = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
    );
    let (problem, advice) = if !is_ours {
        ("ended the TLS handshake", PORTS)
    } else if tls.cert_file.is_some() {
        (
            "rejects our client certificate",
            "a certificate in `rabbitmq.tls.cert_file` that an authority in the broker's `ssl_options.cacertfile` has signed, and that has not expired",
        )
    } else {
        (
            "requires a client certificate",
            "`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file`",
        )
    };
    Words::new(format!("the broker {problem} ({alert:?})"), advice)
}

/// The name of an error, also of one that has no variant of its own.
fn named(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(other) => format!("{:?}", other.0),
        error => format!("{error:?}"),
    }
}

/// The names in an untrusted certificate: at most [`NAMES_MAX`], and only characters of host names.
fn names(presented: &[String]) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-._*:".contains(*c);
    let name = |name: &String| {
        // `DnsName("localhost")`
        let inner = name.split('"').nth(1).unwrap_or(name);
        inner
            .chars()
            .filter(plain)
            .take(NAME_BYTES_MAX)
            .collect::<String>()
    };
    let names: Vec<_> = presented.iter().take(NAMES_MAX).map(name).collect();
    if names.is_empty() {
        "no host at all (no `subjectAltName`)".into()
    } else {
        format!("`{}`", names.join("`, `"))
    }
}
