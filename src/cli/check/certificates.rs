//! How long the certificates of `[rabbitmq.tls]` and of the broker are good.

use std::path::Path;
use std::time::Duration;

use deskbridge::config::paths;
use deskbridge::config::rabbitmq::RabbitMq;
use deskbridge::rabbitmq::url::BrokerUrl;
use deskbridge::rabbitmq::validity::{Validity, candidates, good_until};
use deskbridge::rabbitmq::{pem, presented};
use deskbridge::telemetry::status::CertificateRole;
use jiff::{SignedDuration, Timestamp};

use super::finding::{Finding, Subject};

/// Time to get another one.
const NOTICE: SignedDuration = SignedDuration::from_hours(21 * 24);

/// Certificates that are not good now, or not for long.
pub fn look(rabbitmq: &RabbitMq) -> Vec<Finding> {
    let now = Timestamp::now();
    let tls = &rabbitmq.tls;
    let is_used = rabbitmq
        .urls
        .iter()
        .any(|url| BrokerUrl::parse(url.expose()).is_ok_and(|url| url.is_tls()));
    let files = [
        (
            CertificateRole::Ca,
            "ca_file",
            &tls.ca_file,
            "the broker's certificate is not trusted",
        ),
        (
            CertificateRole::Client,
            "cert_file",
            &tls.cert_file,
            "the broker refuses our certificate",
        ),
    ];
    let mut lines = Vec::new();
    for (role, key, file, then) in files {
        let Some(file) = file else { continue };
        let key = format!("rabbitmq.tls.{key}");
        let what = format!("the certificate in {}", paths::in_words(file));
        let line = match read(&key, file) {
            Ok(validities) => judge(&key, &what, candidates(role, &validities), now),
            Err(line) => {
                let line = line.losing(format!("{then}: events wait in the journal"));
                lines.push(if is_used { line } else { line.unused() });
                continue;
            }
        };
        lines.extend(line.map(|line| {
            let line = line
                .losing(format!("{then}: events wait in the journal"))
                .trying("put the renewed certificate into the file; it is read at every connect, no restart is needed");
            if is_used { line.about([Subject::Certificate]) } else { line.unused() }
        }));
    }
    lines
}

/// The certificates that the brokers present.
pub async fn look_at_brokers(urls: &[BrokerUrl], patience: Duration) -> Vec<Finding> {
    let now = Timestamp::now();
    let mut lines = Vec::new();
    for url in urls.iter().filter(|url| url.is_tls()) {
        // One that cannot be reached is told of elsewhere.
        let Ok(certificate) = presented::certificate(url, patience).await else {
            continue;
        };
        let validity = Validity::of(&certificate);
        let line = judge(
            "rabbitmq.urls",
            &format!("the certificate that {url} presents"),
            validity.as_slice(),
            now,
        );
        lines.extend(line.map(|line| {
            line.losing("we refuse the broker: events wait in the journal")
                .trying("renew it there (`ssl_options.certfile`), then `rabbitmqctl eval 'ssl:clear_pem_cache().'`")
                .about([Subject::Certificate])
        }));
    }
    lines
}

/// By the one that is good for longest.
fn judge(key: &str, what: &str, validities: &[Validity], now: Timestamp) -> Option<Finding> {
    let from = validities.iter().map(|validity| validity.from).min()?;
    if from > now {
        let problem = format!("{key}: {what} is not good before {from}");
        return Some(Finding::error(problem));
    }
    let until = good_until(validities, now)?;
    let left = until.duration_since(now);
    if left <= SignedDuration::ZERO {
        return Some(Finding::error(format!(
            "{key}: {what} has expired on {until}"
        )));
    }
    (left < NOTICE).then(|| {
        let days = left.as_hours() / 24;
        Finding::warning(format!("{key}: {what} expires on {until}, in {days} days"))
    })
}

fn read(key: &str, file: &Path) -> Result<Vec<Validity>, Box<Finding>> {
    let certificates = pem::certificates(file).map_err(|error| {
        Box::new(Finding::error(format!("{key}: {error}")).trying(error.advice()))
    })?;
    let validities: Option<Vec<_>> = certificates.iter().map(Validity::of).collect();
    validities.ok_or_else(|| {
        let file = paths::in_words(file);
        let problem = format!("{key}: {file} holds a certificate that cannot be read");
        Box::new(
            Finding::error(problem)
                .trying("issue it again; `openssl x509 -text` shows what is in it"),
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
        let line = judge(key, "it", candidates(role, &validities), now);
        let line = line.map(|line| line.to_string()).unwrap_or_default();
        assert_eq!(line, expected);
    }

    #[test]
    fn a_certificate_that_is_not_good_is_told_and_one_that_soon_will_not_be() {
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
            "error: cert_file: it is not good before 2026-06-03T00:00:00Z",
        );
        check("ca_file", &[(-10, -1), (-10, 100)], "");
        check(
            "ca_file",
            &[(-10, -1), (-10, -5)],
            "error: ca_file: it has expired on 2026-05-31T00:00:00Z",
        );
    }
}
