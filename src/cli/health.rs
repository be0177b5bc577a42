//! `health`: asks the running bridge whether it accepts webhooks; for container health checks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::{Request, Uri};

use super::failure::failed;
use super::http_client::{Answer, Client};
use super::output::say;
use super::{Exit, Layering, runtime};

const AFTER_HELP: &str = "\
Asks /readyz of the listener in [admin]; exits with 0 if the bridge accepts webhooks. It does not ask \
for the broker: webhooks are accepted without one.

Example:
  deskbridge health && echo accepting";

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {}

/// Asks once.
pub fn run(layering: &Layering, _: &Arguments) -> anyhow::Result<Exit> {
    let listen = reachable(layering.peek()?.admin.listen);
    let url: Uri = format!("http://{listen}/readyz").parse()?;
    let answer = runtime()?.block_on(ask(&url)).map_err(|why| {
        let advice =
            "is the bridge running (`deskbridge serve`), and is it the same `admin.listen`?";
        failed(format!("asking {url}"), why, advice)
    })?;
    if answer.status.is_success() {
        return Ok(Exit::Done);
    }
    say(format_args!("not ready: {}", reason(&answer)));
    Ok(Exit::No)
}

async fn ask(url: &Uri) -> anyhow::Result<Answer> {
    let request = Request::get(url).body(Full::new(Bytes::new()))?;
    Client::for_url(url, 1)?.ask(request).await
}

/// A wildcard address is asked on loopback.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The detail of a problem, or whatever text came with the status.
fn reason(answer: &Answer) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str());
    let text = String::from_utf8_lossy(&answer.body);
    format!("{} ({})", detail.unwrap_or(text.trim()), answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_on_loopback() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0:9180", "127.0.0.1:9180");
        check("[::]:9180", "[::1]:9180");
        check("10.1.2.3:9180", "10.1.2.3:9180");
    }
}
