//! Validates `[rabbitmq]`: broker URLs, management URL and client certificate.

use super::super::broker_url::BrokerUrl;
use super::super::finding::ConfigFinding;
use super::super::rabbitmq::RabbitMq;
use super::super::secrets::management_problem;

pub(super) fn check_broker(rabbitmq: &RabbitMq, findings: &mut Vec<ConfigFinding>) {
    if rabbitmq.urls.is_empty() {
        let problem = "there is no broker URL; for example \"amqp://user:password@host:5672/%2f\"";
        findings.push(ConfigFinding::new("rabbitmq.urls", problem));
    }
    for (index, url) in rabbitmq.urls.iter().enumerate() {
        if let Err(error) = BrokerUrl::parse(url.expose()) {
            let key = format!("rabbitmq.urls[{index}]");
            findings.push(ConfigFinding::new(key, error.to_string()));
        }
    }
    let management_url = rabbitmq.management_url.expose();
    if !management_url.is_empty() {
        let problem = management_problem(management_url);
        findings
            .extend(problem.map(|problem| ConfigFinding::new("rabbitmq.management_url", problem)));
    }
    let tls = &rabbitmq.tls;
    let (key, other) = match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => ("cert_file", "key_file"),
        (None, Some(_)) => ("key_file", "cert_file"),
        _ => return,
    };
    let problem = format!("a client certificate needs both; set `rabbitmq.tls.{other}` too");
    findings.push(ConfigFinding::new(format!("rabbitmq.tls.{key}"), problem));
}
