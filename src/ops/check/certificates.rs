//! How long the certificates of `[rabbitmq.tls]` and of the broker are valid.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::finding::{Finding, Findings, Severity, Subject};
use crate::config::paths;
use crate::config::rabbitmq::RabbitMq;
use crate::rabbitmq::certificate_expiry::{Validity, candidates, expires_at};
use crate::rabbitmq::url::BrokerUrl;
use crate::rabbitmq::{ConnectConfig, connection, pem};
use crate::telemetry::status::CertificateRole;

/// How long before its expiry a certificate is reported: time to renew it.
const NOTICE: SignedDuration = SignedDuration::from_hours(21 * 24);

/// Findings about certificate files that are not valid now, or expire within 21 days.
pub fn judge_files(rabbitmq: &RabbitMq, list: &mut Findings) {
    let now = Timestamp::now();
    let is_tls = |url: BrokerUrl| url.is_tls();
    let mut urls = rabbitmq.urls.iter();
    let is_used = urls.any(|url| BrokerUrl::parse(url.expose()).is_ok_and(is_tls));
    let files = [
        (CertificateRole::Ca, &rabbitmq.tls.ca_file),
        (CertificateRole::Client, &rabbitmq.tls.cert_file),
    ];
    for (role, file) in files {
        let Some(file) = file else { continue };
        let (key, then) = if role == CertificateRole::Ca {
            ("ca_file", "the broker's certificate is not trusted")
        } else {
            ("cert_file", "the broker refuses the bridge's certificate")
        };
        let key = format!("rabbitmq.tls.{key}");
        let finding = match read(&key, file) {
            Ok(validities) => {
                let what = format!("the certificate in {}", paths::in_words(file));
                let subject = is_used.then_some(Subject::Certificate);
                judge(&key, &what, candidates(role, &validities), now, list).map(|finding| {
                    finding
                        .fix("put the renewed certificate into the file; it is read at every connect, no restart is needed")
                        .about(subject)
                })
            }
            Err((problem, fix)) => Some(list.error(problem).fix(fix)),
        };
        if let Some(finding) = finding {
            finding.impact(format!("{then}: events wait in the journal"));
            if !is_used {
                finding.severity = Severity::Warning;
            }
        }
    }
}

/// Findings about the certificates that the brokers present.
pub async fn judge_brokers(settings: &ConnectConfig, list: &mut Findings) {
    let now = Timestamp::now();
    for url in settings.urls.iter().filter(|url| url.is_tls()) {
        // A broker that cannot be reached is reported by `connecting`.
        let validity = connection::presented(url, &settings.tls, settings.connect_timeout).await;
        let what = format!("the certificate that {url} presents");
        if let Some(finding) = judge("rabbitmq.urls", &what, validity.as_slice(), now, list) {
            finding
                .impact("the bridge refuses the broker: events wait in the journal")
                .fix("renew it there (`ssl_options.certfile`), then `rabbitmqctl eval 'ssl:clear_pem_cache().'`")
                .about([Subject::Certificate]);
        }
    }
}

/// Judges a file by the certificate in it that is valid for longest.
fn judge<'l>(
    key: &str,
    what: &str,
    validities: &[Validity],
    now: Timestamp,
    list: &'l mut Findings,
) -> Option<&'l mut Finding> {
    let from = validities.iter().map(|validity| validity.from).min()?;
    let until = expires_at(validities, now)?;
    let left = until.duration_since(now);
    let days = left.as_hours() / 24;
    if from > now {
        Some(list.error(format!("{key}: {what} is not valid before {from}")))
    } else if left <= SignedDuration::ZERO {
        Some(list.error(format!("{key}: {what} has expired on {until}")))
    } else if left < NOTICE {
        Some(list.warning(format!("{key}: {what} expires on {until}, in {days} days")))
    } else {
        None
    }
}

/// The validities of the certificates in a file, or the problem and its fix.
fn read(key: &str, file: &Path) -> Result<Vec<Validity>, (String, String)> {
    let certificates =
        pem::certificates(file).map_err(|error| (format!("{key}: {error}"), error.advice()))?;
    let validities: Option<Vec<_>> = certificates.iter().map(Validity::of).collect();
    validities.ok_or_else(|| {
        let file = paths::in_words(file);
        let fix = "issue it again; `openssl x509 -text` shows what is in it";
        (
            format!("{key}: {file} holds a certificate that cannot be read"),
            fix.into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, days: &[(i64, i64)], expected: &str) {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let at = |days: i64| now + SignedDuration::from_hours(24 * days);
        let validities: Vec<_> = days
            .iter()
            .map(|(from, until)| Validity {
                from: at(*from),
                until: at(*until),
            })
            .collect();
        let role = match key {
            "ca_file" => CertificateRole::Ca,
            _ => CertificateRole::Client,
        };
        let mut list = Findings::default();
        judge(key, "it", candidates(role, &validities), now, &mut list);
        let line = list.0.first().map(ToString::to_string);
        assert_eq!(line.unwrap_or_default(), expected);
    }

    #[test]
    fn invalid_and_expiring_certificates_are_reported() {
        check("cert_file", &[(-10, 30)], "");
        check(
            "cert_file",
            &[(-10, 10), (-10, 100)],
            "warning: cert_file: it expires on 2026-06-11T00:00:00Z, in 10 days",
        );
        check(
            "cert_file",
            &[(-10, -1)],
            "error: cert_file: it has expired on 2026-05-31T00:00:00Z",
        );
        check(
            "cert_file",
            &[(2, 9)],
            "error: cert_file: it is not valid before 2026-06-03T00:00:00Z",
        );
        check("ca_file", &[(-10, -1), (-10, 100)], "");
        check(
            "ca_file",
            &[(-10, -1), (-10, -5)],
            "error: ca_file: it has expired on 2026-05-31T00:00:00Z",
        );
    }
}
