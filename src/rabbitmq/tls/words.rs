//! Why a handshake failed, in a sentence and with what to do, instead of the library's names.

use std::error::Error;
use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError};

use crate::config::rabbitmq::Tls;

/// How to trust a broker.
pub(super) const TRUST: &str = "put the certificate of the broker's authority (its `ssl_options.cacertfile`; a self-signed \
    certificate itself) as PEM into the file that `rabbitmq.tls.ca_file` names";
/// The wrong port.
const PORTS: &str = "`amqps://` with the port for TLS (5671 unless configured otherwise), or `amqp://` with the plain one (5672)";
/// A name of a certificate that is shown.
const NAME_BYTES_MAX: usize = 80;
const NAMES_MAX: usize = 5;

/// Why it failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// One sentence.
    pub problem: String,
    /// One more.
    pub advice: String,
}

/// The error of the TLS library behind an error, if there is one.
#[must_use]
pub fn rustls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e RustlsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls) = error.downcast_ref::<RustlsError>() {
            return Some(rustls);
        }
        // The source of an I/O error is that of the error in it.
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

/// Whether a certificate is refused for being of X.509 version 1.
pub(super) fn is_version_1(error: &CertificateError) -> bool {
    named(error) == "UnsupportedCertVersion"
}

/// What a handshake with a server of that name came to.
#[must_use]
pub fn told(error: &RustlsError, host: &str, tls: &Tls) -> Words {
    let (problem, advice) = match error {
        RustlsError::InvalidCertificate(error) => return of_certificate(error, host, tls),
        RustlsError::AlertReceived(alert) => return of_alert(*alert, tls),
        RustlsError::InvalidMessage(_) | RustlsError::PeerSentOversizedRecord => {
            ("what answers does not speak TLS".to_owned(), PORTS)
        }
        RustlsError::PeerIncompatible(_) => (
            "it has no version of TLS and no cipher in common with the bridge, which speaks TLS 1.2 and 1.3".to_owned(),
            "`ssl_options.versions` and `ssl_options.ciphers` of the broker",
        ),
        RustlsError::NoCertificatesPresented => (
            "it presents no certificate".to_owned(),
            "`ssl_options.certfile` of the broker",
        ),
        _ => ("the TLS handshake failed".to_owned(), PORTS),
    };
    Words {
        problem,
        advice: advice.into(),
    }
}

/// The end of a connection before the handshake was done.
#[must_use]
pub fn hung_up() -> Words {
    Words {
        problem: "it ended the connection during the TLS handshake".into(),
        advice: PORTS.into(),
    }
}

/// Something that is not AMQP, on a connection without TLS.
#[must_use]
pub fn no_amqp() -> Words {
    Words {
        problem: "what answers does not speak plain AMQP".into(),
        advice: PORTS.into(),
    }
}

fn of_certificate(error: &CertificateError, host: &str, tls: &Tls) -> Words {
    let (problem, advice) = match error {
        CertificateError::UnknownIssuer if tls.ca_file.is_some() => (
            "the broker's certificate is signed by an authority that is not in `rabbitmq.tls.ca_file`, or by itself".to_owned(),
            TRUST.to_owned(),
        ),
        CertificateError::UnknownIssuer => (
            "the broker's certificate is signed by an authority that this system does not know, or by itself".to_owned(),
            TRUST.to_owned(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the broker's certificate has expired".to_owned(),
            "renew it there (`ssl_options.certfile`); is the clock of this machine right?".to_owned(),
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
            "the broker's certificate is not for servers".to_owned(),
            "issue one with `extendedKeyUsage = serverAuth`".to_owned(),
        ),
        CertificateError::Revoked => (
            "the broker's certificate was revoked".to_owned(),
            "issue a new one".to_owned(),
        ),
        CertificateError::BadEncoding => (
            "the broker's certificate cannot be read".to_owned(),
            "issue it anew; `openssl x509 -text` shows what is in it".to_owned(),
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
                "the broker's certificate is signed in a way that is not accepted, as with SHA-1, or not by the authority it names".to_owned(),
                "issue it anew with SHA-256".to_owned(),
            ),
            _ => (
                "the broker's certificate is not accepted".to_owned(),
                "`openssl verify -CAfile` and `openssl x509 -text` show what is in it".to_owned(),
            ),
        },
    };
    Words { problem, advice }
}

/// What the broker says about our certificate.
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
        (
            format!("the broker ended the TLS handshake ({alert:?})"),
            PORTS,
        )
    } else if tls.cert_file.is_some() {
        (
            format!("the broker refuses our client certificate ({alert:?})"),
            "a certificate in `rabbitmq.tls.cert_file` that an authority in the broker's `ssl_options.cacertfile` has signed, and that has not expired",
        )
    } else {
        (
            format!("the broker wants a client certificate ({alert:?})"),
            "`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file`",
        )
    };
    Words {
        problem,
        advice: advice.into(),
    }
}

/// The name of an error that has no variant of its own.
fn named(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(other) => format!("{:?}", other.0),
        error => format!("{error:?}"),
    }
}

/// Names that a stranger's certificate gives itself.
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
