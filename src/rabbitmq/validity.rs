//! From when to when certificates are good.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::link::Shared;
use super::pem;
use super::url::BrokerUrl;
use crate::config::rabbitmq::Tls;
use crate::telemetry::status::CertificateRole;

/// A renewed file is noticed within this time.
const INTERVAL: Duration = Duration::from_mins(1);

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore` (RFC 5280, 4.1.2.5).
    pub from: Timestamp,
    /// `notAfter`.
    pub until: Timestamp,
}

impl Validity {
    /// `None` if the certificate cannot be read.
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
}

/// Those of a file that count. A file of authorities may hold expired certificates beside good
/// ones; of a chain the first certificate is ours.
#[must_use]
pub fn candidates(role: CertificateRole, validities: &[Validity]) -> &[Validity] {
    match role {
        CertificateRole::Ca => validities,
        CertificateRole::Client | CertificateRole::Broker => &validities[..validities.len().min(1)],
    }
}

/// Until when one of these is good: the latest of those that are good already, else the latest.
#[must_use]
pub fn good_until(validities: &[Validity], now: Timestamp) -> Option<Timestamp> {
    let begun = validities.iter().filter(|validity| validity.from <= now);
    let until = |validity: &Validity| validity.until;
    let latest = begun.map(until).max();
    latest.or_else(|| validities.iter().map(until).max())
}

/// Tells the board until when the certificates in the files of `[rabbitmq.tls]` are good.
pub(super) async fn keep_reading(shared: Arc<Shared>) {
    let settings = &shared.settings;
    if !settings.urls.iter().any(BrokerUrl::is_tls) {
        return;
    }
    loop {
        let tls = settings.tls.clone();
        let read = tokio::task::spawn_blocking(move || read(&tls)).await;
        for (role, until) in read.unwrap_or_default() {
            shared.board.set_certificate(role, until);
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Nothing of a file that cannot be read: connecting says why.
fn read(tls: &Tls) -> Vec<(CertificateRole, Option<Timestamp>)> {
    let now = Timestamp::now();
    let files = [
        (CertificateRole::Ca, &tls.ca_file),
        (CertificateRole::Client, &tls.cert_file),
    ];
    let until = |role, file: Option<&Path>| {
        let found = pem::certificates(file?).ok()?;
        let validities: Vec<_> = found.iter().filter_map(Validity::of).collect();
        good_until(candidates(role, &validities), now)
    };
    files
        .into_iter()
        .map(|(role, file)| (role, until(role, file.as_deref())))
        .collect()
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
        let until = good_until(candidates(role, &validities), at(100));
        assert_eq!(until, Some(at(expected)));
    }

    #[test]
    fn of_authorities_the_longest_counts_and_of_a_chain_the_first() {
        let file = [(0, 150), (0, 90), (0, 200), (110, 300)];
        check(CertificateRole::Ca, &file, 200);
        check(CertificateRole::Client, &file, 150);
        check(CertificateRole::Ca, &[(110, 300), (120, 400)], 400);
    }
}
