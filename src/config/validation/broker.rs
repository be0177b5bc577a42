//! URLs of the broker, and what belongs to them.

use super::super::broker_url::BrokerUrl;
use super::super::finding::Finding;
use super::super::rabbitmq::{RabbitMq, Tls};
use super::super::secrets::management_problem;

pub(super) fn check_broker(rabbitmq: &RabbitMq, findings: &mut Vec<Finding>) {
    if rabbitmq.urls.is_empty() {
        let problem = "there is no URL of a broker, such as \"amqp://user:password@host:5672/%2f\"";
        findings.push(Finding::new("rabbitmq.urls", problem));
    }
    for (index, url) in rabbitmq.urls.iter().enumerate() {
        if let Err(error) = BrokerUrl::parse(url.expose()) {
            let key = format!("rabbitmq.urls[{index}]");
            findings.push(Finding::new(key, error.to_string()));
        }
    }
    let management_url = rabbitmq.management_url.expose();
    if !management_url.is_empty() {
        let problem = management_problem(management_url);
        findings.extend(problem.map(|problem| Finding::new("rabbitmq.management_url", problem)));
    }
    let Tls {
        cert_file,
        key_file,
        ..
    } = &rabbitmq.tls;
    if cert_file.is_some() != key_file.is_some() {
        let (key, other) = if cert_file.is_some() {
            ("cert_file", "key_file")
        } else {
            ("key_file", "cert_file")
        };
        let problem = format!("a client certificate needs both; set `rabbitmq.tls.{other}` too");
        findings.push(Finding::new(format!("rabbitmq.tls.{key}"), problem));
    }
}
