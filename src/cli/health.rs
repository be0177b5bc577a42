//! `health`: asks the running bridge whether it accepts webhooks; for container health checks.

use deskbridge::http_client::{Answer, Client, reachable};
use hyper::Uri;

use super::failure::failed;
use super::output::say;
use super::{ConfigArguments, Exit, runtime};

pub const AFTER_HELP: &str = "\
Asks /readyz of the running bridge (admin.listen). The answer does not depend on the broker: webhooks are \
accepted while it is unavailable.

Exit codes: 0 the bridge accepts webhooks, 1 it does not, or there was no answer.

Example:
  deskbridge health && echo accepting";

/// Sends one request. If the bridge is not ready, prints the reason on standard error.
pub fn run(layering: &ConfigArguments) -> anyhow::Result<Exit> {
    let listen = reachable(layering.peek()?.admin.listen);
    let url: Uri = format!("http://{listen}/readyz").parse()?;
    let answer = runtime()?.block_on(Client::get(&url)).map_err(|why| {
        let advice =
            "start the bridge (`deskbridge serve`), or name its configuration with --config, so that `admin.listen` is the same";
        failed(format!("asking {url}"), why, advice)
    })?;
    if answer.status.is_success() {
        return Ok(Exit::Done);
    }
    say(format_args!("not ready: {}", reason(&answer)));
    Ok(Exit::No)
}

/// The `detail` of the problem document, otherwise the body as text; then the status.
fn reason(answer: &Answer) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str());
    let text = String::from_utf8_lossy(&answer.body);
    format!("{} ({})", detail.unwrap_or(text.trim()), answer.status)
}
