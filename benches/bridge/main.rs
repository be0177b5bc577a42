//! `make bench`: what the bridge achieves as a process of its own between a sender that costs
//! little and a real RabbitMQ, beside what it cannot beat (a pipelined publisher) and what people
//! would use instead (a forwarder without a journal), in the same run. Every figure of the README
//! and of `docs/performance.md` comes from here.
//!
//! A machine without a broker, with too little disk or busy with something else gets no figures:
//! nothing is written of the part that was measured, and the exit code is 1. [`settings`] has the `BENCH_*` variables.

mod answers;
mod bodies;
mod cost;
mod forwarder;
mod idle;
mod machine;
mod outage;
mod place;
mod publisher;
mod results;
mod role;
mod rounds;
mod scale;
mod sender;
mod settings;
mod speed;
mod statistics;

/// Broker and bridge as the integration tests start them.
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
            Part::Scale => scale::measure(&place, &settings).await,
        };
        let dropped = results::write(&settings.results, &commit, &machine, part.name(), measured)?;
        for part in dropped {
            eprintln!("`{part}` was of another commit or machine and is gone: BENCH_ONLY={part}");
        }
    }
    show(&settings.results);
    Ok(())
}

/// Prints the tables; the results are there, whether Python is or not.
fn show(results: &Path) {
    println!("results: {}", results.display());
    let script = support::process::script("figures.py");
    let _ = Command::new("python3")
        .arg(script)
        .arg("show")
        .arg(results)
        .status();
}
