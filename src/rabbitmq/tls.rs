//! Encryption towards the broker: whom we trust and who we are. Reads the files anew for every
//! connection, so that a renewed certificate needs no restart. Never falls back to plain.

use std::io;
use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::rabbitmq::Tls;

/// Why there is no TLS to offer. Always ours to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds nothing usable.
    #[error("reading `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("`{}` holds no PEM certificate", .0.display())]
    Empty(PathBuf),
    /// Only one of the two is configured.
    #[error("`rabbitmq.tls.cert_file` and `rabbitmq.tls.key_file` need each other")]
    HalfIdentity,
    /// The key does not fit the certificate, or the system has no authorities.
    #[error("preparing TLS")]
    Connector(#[source] io::Error),
}

/// Reads the files and builds a connector. Blocks on the disk.
pub(super) fn connector(tls: &Tls) -> Result<RustlsConnector, TlsError> {
    let config = match &tls.ca_file {
        Some(path) => {
            let mut config = RustlsConnectorConfig::default();
            config.add_parsable_certificates(certificates(path)?);
            config
        }
        None => RustlsConnectorConfig::new_with_platform_verifier(),
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                path: key.clone(),
                source,
            })?;
            config.connector_with_single_cert(certificates(cert)?, key)
        }
        (None, None) => config.connector_with_no_client_auth(),
        _ => return Err(TlsError::HalfIdentity),
    }
    .map_err(TlsError::Connector)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::File {
            path: path.into(),
            source,
        })?;
    if certificates.is_empty() {
        Err(TlsError::Empty(path.into()))
    } else {
        Ok(certificates)
    }
}
