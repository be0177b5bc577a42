//! The periods of validity of certificates.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error as RustlsError};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::ConnectConfig;
use super::link::Shared;
use super::pem;
use super::url::BrokerUrl;
use crate::config::rabbitmq::Tls;
use crate::slow_call;
use crate::telemetry::status::CertificateRole;

/// Interval at which the certificate files are read again.
const INTERVAL: Duration = Duration::from_mins(1);

/// The period of validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore` (RFC 5280, 4.1.2.5).
    pub from: Timestamp,
    /// `notAfter` (RFC 5280, 4.1.2.5).
    pub until: Timestamp,
}

impl Validity {
    /// Reads the validity of a certificate; `None` if it cannot be parsed.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        let at = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some(Self {
            from: at(validity.not_before)?,
            until: at(validity.not_after)?,
        })
    }

    /// As far as it is known from the error with which a certificate was refused; `None` if its
    /// validity was not the reason.
    pub(super) fn rejected(error: &RustlsError) -> Option<Self> {
        let at = |time: &UnixTime| Timestamp::from_second(time.as_secs().try_into().ok()?).ok();
        let RustlsError::InvalidCertificate(error) = error else {
            return None;
        };
        let (from, until) = match error {
            CertificateError::ExpiredContext { not_after, .. } => (Timestamp::MIN, at(not_after)?),
            CertificateError::NotValidYetContext { not_before, .. } => {
                (at(not_before)?, Timestamp::MAX)
            }
            _ => return None,
        };
        Some(Self { from, until })
    }
}

/// The certificates of a file that count. All of a CA file, which may contain expired certificates
/// next to valid ones; of a chain only the first, which is the certificate itself.
#[must_use]
pub fn candidates(role: CertificateRole, validities: &[Validity]) -> &[Validity] {
    match role {
        CertificateRole::Ca => validities,
        CertificateRole::Client | CertificateRole::Broker => &validities[..validities.len().min(1)],
    }
}

/// The latest expiry of the certificates whose validity has begun, or of all if none has begun.
#[must_use]
pub fn expires_at(validities: &[Validity], now: Timestamp) -> Option<Timestamp> {
    let begun = validities.iter().filter(|validity| validity.from <= now);
    let until = |validity: &Validity| validity.until;
    let latest = begun.map(until).max();
    latest.or_else(|| validities.iter().map(until).max())
}

/// Publishes to the broker status when the certificates in the files of `[rabbitmq.tls]` expire, as
/// long as some URL uses TLS. Runs until shutdown.
pub(super) async fn keep_reading(shared: &Shared) {
    let reading = async {
        loop {
            let ConnectConfig { urls, tls, .. } = shared.settings();
            if urls.iter().any(BrokerUrl::is_tls) {
                let read = slow_call::run("certificates", move || read(&tls)).await;
                for (role, until) in read.unwrap_or_default() {
                    shared.status.set_certificate(role, until);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    shared.shutdown.run_until_cancelled(reading).await;
}

/// Reads the expiry of each file; `None` for one that cannot be read, which connecting reports.
fn read(tls: &Tls) -> Vec<(CertificateRole, Option<Timestamp>)> {
    let until = |role, file: Option<&Path>| {
        let found = pem::certificates(file?).ok()?;
        let validities: Vec<_> = found.iter().filter_map(Validity::of).collect();
        expires_at(candidates(role, &validities), Timestamp::now())
    };
    [
        (CertificateRole::Ca, &tls.ca_file),
        (CertificateRole::Client, &tls.cert_file),
    ]
    .map(|(role, file)| (role, until(role, file.as_deref())))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(role: CertificateRole, seconds: &[(i64, i64)], expected: i64) {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let validities: Vec<_> = seconds
            .iter()
            .map(|(from, until)| Validity {
                from: at(*from),
                until: at(*until),
            })
            .collect();
        let until = expires_at(candidates(role, &validities), at(100));
        assert_eq!(until, Some(at(expected)));
    }

    #[test]
    fn validity_uses_longest_ca_and_first_of_a_chain() {
        let file = [(0, 150), (0, 90), (0, 200), (110, 300)];
        check(CertificateRole::Ca, &file, 200);
        check(CertificateRole::Client, &file, 150);
        check(CertificateRole::Ca, &[(110, 300), (120, 400)], 400);
    }

    #[test]
    fn a_rejected_certificate_tells_its_validity() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let rejected = |error| Validity::rejected(&RustlsError::InvalidCertificate(error));
        let expired = rejected(CertificateError::ExpiredContext {
            time: at(20),
            not_after: at(10),
        });
        assert_eq!(expired.unwrap().until.as_second(), 10);
        let early = rejected(CertificateError::NotValidYetContext {
            time: at(20),
            not_before: at(30),
        });
        assert_eq!(early.unwrap().from.as_second(), 30);
        assert_eq!(rejected(CertificateError::UnknownIssuer), None);
    }
}
