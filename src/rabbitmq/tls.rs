//! Encryption towards the broker: whom we trust and who we are. Reads the files anew for every
//! connection, so that a renewed certificate needs no restart. Never falls back to plain.

pub mod words;

use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use tokio_rustls::rustls::Error as RustlsError;

use super::pem::{self, FileError};
use crate::config::paths;
use crate::config::rabbitmq::Tls;

/// Why there is no TLS to offer. Always ours to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file gives no certificate or key.
    #[error(transparent)]
    File(#[from] FileError),
    /// Only one of the two is configured.
    #[error("`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file` need each other")]
    HalfIdentity,
    /// The two files do not belong together.
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
    /// It is none, or of a kind that is not known.
    #[error("the key in {} is none of RSA, ECDSA or Ed25519", paths::in_words(.0))]
    Key(PathBuf),
    /// Our own certificate cannot be presented.
    #[error("the certificate in {} {problem}", paths::in_words(path))]
    Certificate {
        /// `rabbitmq.tls.cert_file`.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file holds certificates, and none can be trusted.
    #[error("no certificate in {} can be read", paths::in_words(.0))]
    Authorities(PathBuf),
    /// Nobody is trusted.
    #[error("this system has no certificate authorities")]
    System,
}

impl TlsError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::File(error) => error.advice(),
            Self::HalfIdentity => "set both, or none for a broker that asks for no certificate".into(),
            Self::OtherKey { .. } | Self::Key(_) => {
                "name the key that the certificate was issued for; `openssl x509 -noout -pubkey -in CERT` and `openssl pkey -pubout -in KEY` print the same for a pair".into()
            }
            Self::Certificate { .. } => {
                "issue it anew as X.509 version 3, for example with `openssl x509 -req -extfile`".into()
            }
            Self::Authorities(_) => words::TRUST.into(),
            Self::System => format!("install `ca-certificates`, or {}", words::TRUST),
        }
    }
}

/// Reads the files and builds a connector. Blocks on the disk.
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
            .map_err(|error| match words::rustls(&error) {
                Some(error) => of_identity(error, cert, key),
                None => nobody(),
            }),
        (None, None) => config.connector_with_no_client_auth().map_err(|_| nobody()),
        _ => Err(TlsError::HalfIdentity),
    }
}

/// The library speaks of our own certificate as if a peer had presented it.
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
        RustlsError::InvalidCertificate(error) if words::is_version_1(error) => {
            of_certificate("is of X.509 version 1")
        }
        RustlsError::InvalidCertificate(_) => of_certificate("cannot be read"),
        _ => TlsError::Key(key.into()),
    }
}
