//! `admin.hosts`: names alone, as they stand in the `Host` of a request.

use super::super::finding::Finding;

pub(super) fn check_hosts(hosts: &[String], findings: &mut Vec<Finding>) {
    for (index, host) in hosts.iter().enumerate() {
        let is_part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_part_of_name) {
            let problem = "expected a host name without scheme, port and path, such as \
                           \"bridge.example.net\"";
            findings.push(Finding::new(format!("admin.hosts[{index}]"), problem));
        }
    }
}
