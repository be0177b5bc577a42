//! `make bench`: measures the bridge as a process of its own, between a cheap sender and a real
//! RabbitMQ. The same run measures an upper limit (a pipelined publisher) and the alternative (a
//! forwarder without a journal). All figures of `docs/performance.md` come from here.
//!
//! If there is no broker, too little disk space or a busy machine, there are no figures: nothing is
//! written for the part that was being measured, and the exit code is 1. The `BENCH_*` variables
//! are in [`settings`].

mod answers;
mod bodies;
mod clock;
mod consumer;
mod cost;
mod ext4;
mod forwarder;
mod idle;
mod machine;
mod outage;
mod overload;
mod place;
mod publisher;
mod results;
mod retention;
mod role;
mod rounds;
mod scale;
mod sender;
mod settings;
mod speed;
mod statistics;
mod steady;
mod subject;

/// Broker and bridge as the integration tests start them.
#[allow(dead_code, reason = "only a part of it is needed here")]
#[path = "../../tests/it"]
mod it {
    pub mod support;
}
use it::support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};

use place::Place;
use settings::{Part, Settings};

fn main() -> ExitCode {
    if let Some(role) = role::of_this_process() {
        role.play();
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run())));
    let outcome = outcome.unwrap_or_else(|_| Err("the benchmark failed, see above".into()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("no figures: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let settings = Settings::read()?;
    if cfg!(debug_assertions) {
        return Err("this is no release build: `make bench`".into());
    }
    machine::examine(&settings)?;
    let commit = machine::commit();
    let place = Place::make(settings.dir.clone()).await?;
    let machine = machine::describe(&settings.dir, &place.rabbitmq().await);
    for part in &settings.parts {
        eprintln!("== {}", part.name());
        let measured = match part {
            Part::Speed => speed::measure(&place, &settings).await?,
            Part::Answers => answers::measure(&place, &settings).await,
            Part::Outage => outage::measure(&place, &settings).await,
            Part::Idle => idle::measure(&place, &settings).await,
            Part::Overload => overload::measure(&place, &settings).await,
            Part::Steady => steady::measure(&place, &settings).await,
            Part::Retention => retention::measure(&place, &settings).await,
            Part::Ext4 => match ext4::measure(&place, &settings).await {
                Some(measured) => measured,
                None => continue,
            },
            Part::Scale => scale::measure(&place, &settings).await,
        };
        let dropped = results::write(&settings.results, &commit, &machine, part.name(), measured)?;
        for part in dropped {
            eprintln!(
                "`{part}` was of another commit or machine and was dropped: BENCH_ONLY={part}"
            );
        }
    }
    show(&settings.results);
    Ok(())
}

/// Prints the tables. The results are written even if Python is missing.
fn show(results: &Path) {
    println!("results: {}", results.display());
    let script = support::process::script("figures.py");
    let _ = Command::new("python3")
        .arg(script)
        .arg("show")
        .arg(results)
        .status();
}
