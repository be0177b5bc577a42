//! TLS towards the broker: the trusted authorities and the client certificate. The files are read
//! again for every connection, so that a renewed certificate needs no restart. There is no fallback
//! to an unencrypted connection.

pub mod diagnosis;

use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use tokio_rustls::rustls::Error as RustlsError;

use super::pem::{self, PemError};
use crate::config::paths;
use crate::config::rabbitmq::Tls;

/// Why TLS cannot be set up. The cause is always our own configuration or system, not the broker.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file contains no usable certificate or key.
    #[error(transparent)]
    File(#[from] PemError),
    /// Only one of certificate and key is configured.
    #[error("`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file` must be set together")]
    HalfIdentity,
    /// The key does not belong to the certificate.
    #[error(
        "the key in {} belongs to another certificate than the one in {}",
        paths::in_words(key),
        paths::in_words(cert)
    )]
    OtherKey {
        /// `rabbitmq.tls.key_file`.
        key: PathBuf,
        /// `rabbitmq.tls.cert_file`.
        cert: PathBuf,
    },
    /// The key cannot be parsed, or its type is not supported.
    #[error("the key in {} is not an RSA, ECDSA or Ed25519 key", paths::in_words(.0))]
    Key(PathBuf),
    /// The client certificate cannot be presented.
    #[error("the certificate in {} {problem}", paths::in_words(path))]
    Certificate {
        /// `rabbitmq.tls.cert_file`.
        path: PathBuf,
        /// Completes the sentence "the certificate in FILE …".
        problem: &'static str,
    },
    /// `rabbitmq.tls.ca_file` contains certificates, but none that can be parsed as an authority.
    #[error("no certificate in {} can be read", paths::in_words(.0))]
    Authorities(PathBuf),
    /// No `ca_file` is configured, and the system has no authorities.
    #[error("this system has no certificate authorities")]
    System,
}

impl TlsError {
    /// How the operator can fix it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::File(error) => error.advice(),
            Self::HalfIdentity => "set both, or neither if the broker requires no client certificate".into(),
            Self::OtherKey { .. } | Self::Key(_) => {
                "configure the key that the certificate was issued for; `openssl x509 -noout -pubkey -in CERT` and `openssl pkey -pubout -in KEY` print the same for a pair".into()
            }
            Self::Certificate { .. } => {
                "reissue it as X.509 version 3, for example with `openssl x509 -req -extfile`".into()
            }
            Self::Authorities(_) => diagnosis::TRUST.into(),
            Self::System => format!("install `ca-certificates`, or {}", diagnosis::TRUST),
        }
    }
}

/// Reads the files and builds a connector. Blocks on file I/O.
pub(super) fn connector(tls: &Tls) -> Result<RustlsConnector, TlsError> {
    let config = match &tls.ca_file {
        Some(path) => {
            let mut config = RustlsConnectorConfig::default();
            config.add_parsable_certificates(pem::certificates(path)?);
            config
        }
        None => RustlsConnectorConfig::new_with_platform_verifier(),
    };
    let ca_file = tls.ca_file.clone();
    let nobody = || ca_file.map_or(TlsError::System, TlsError::Authorities);
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => config
            .connector_with_single_cert(pem::certificates(cert)?, pem::key(key)?)
            .map_err(|error| match diagnosis::rustls(&error) {
                Some(error) => of_identity(error, cert, key),
                None => nobody(),
            }),
        (None, None) => config.connector_with_no_client_auth().map_err(|_| nobody()),
        _ => Err(TlsError::HalfIdentity),
    }
}

/// Translates the library's errors about our own certificate, which it words as if a peer had
/// presented it.
fn of_identity(error: &RustlsError, cert: &Path, key: &Path) -> TlsError {
    let of_certificate = |problem| TlsError::Certificate {
        path: cert.into(),
        problem,
    };
    match error {
        RustlsError::InconsistentKeys(_) => TlsError::OtherKey {
            key: key.into(),
            cert: cert.into(),
        },
        RustlsError::InvalidCertificate(error) if diagnosis::is_version_1(error) => {
            of_certificate("is of X.509 version 1")
        }
        RustlsError::InvalidCertificate(_) => of_certificate("cannot be read"),
        _ => TlsError::Key(key.into()),
    }
}
