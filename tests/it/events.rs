//! `events`: events in the journal are listed, shown and published again, with or without a running
//! bridge.

mod archive;
mod discard;
mod errors;
mod list;
mod replay;
mod replay_interrupted;
mod speed;

use std::process::Output;

use serde_json::Value;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;

/// Exit code, standard output and standard error.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Panics unless `events …` exited with 0; returns its standard output.
#[track_caller]
fn done(output: &Output) -> String {
    let (code, out, err) = told(output);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

/// Panics unless `events …` exited with this code; returns its standard error.
#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    let (found, out, err) = told(output);
    assert_eq!(found, Some(code), "{out}{err}");
    err
}

/// The JSON objects of the text, one per line.
fn objects(text: &str) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(object).collect()
}

fn field<'v>(objects: &'v [Value], name: &str) -> Vec<&'v Value> {
    objects.iter().map(|object| &object[name]).collect()
}

/// A bridge with a queue that receives everything.
async fn bridge_with_queue(vhost: &Vhost, name: &str) -> Bridge {
    let queue = format!("queues = [{{name = '{name}', keys = ['#']}}]");
    BridgeBuilder::new(vhost).with(&queue).start().await
}

/// Posts sessions as one webhook.
async fn accept(bridge: &Bridge, sessions: &[(&str, &str)]) {
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|(id, status)| session(id, status, serde_json::json!({})))
        .collect();
    assert_eq!(bridge.post(array_of(&sessions)).await.status, 202);
}
