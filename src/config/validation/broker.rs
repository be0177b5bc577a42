//! URLs of the broker, and what belongs to them.

use super::super::finding::Finding;
use super::super::rabbitmq::{RabbitMq, Tls};
use super::super::sources::Secret;

pub(super) fn check_broker(rabbitmq: &RabbitMq, findings: &mut Vec<Finding>) {
    if rabbitmq.urls.is_empty() {
        let problem = "there is no URL of a broker, such as \"amqp://user:password@host:5672/%2f\"";
        findings.push(Finding::new("rabbitmq.urls", problem));
    }
    for (index, url) in rabbitmq.urls.iter().enumerate() {
        if !is_url(url, &["amqp://", "amqps://"]) {
            let problem = format!(
                "URL number {} must be amqp://… or amqps://… with a host",
                index + 1
            );
            findings.push(Finding::new("rabbitmq.urls", problem));
        }
    }
    if !rabbitmq.management_url.expose().is_empty()
        && !is_url(&rabbitmq.management_url, &["http://", "https://"])
    {
        findings.push(Finding::new(
            "rabbitmq.management_url",
            "must be http://… or https://… with a host",
        ));
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

fn is_url(url: &Secret, schemes: &[&str]) -> bool {
    let url = url.expose();
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    !host.is_empty() && !host.starts_with(':') && !url.contains(char::is_whitespace)
}
