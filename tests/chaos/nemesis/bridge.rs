//! Faults of the bridge process.

use std::time::Duration;

use rustix::process::Signal;

use super::broker::seen;
use super::{Evidence, SHOWS_WITHIN, last};
use crate::random::Random;
use crate::schedule::{Kind, Planned};
use crate::stage::{Stage, until};

/// `shutdown.grace` is 8 s.
const STOP_MAX: Duration = Duration::from_secs(9);

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let mut bridge = stage.bridge().await;
    match planned.kind {
        Kind::BridgeKill => {
            bridge.signal(Signal::KILL);
            let exit = bridge.exit().await;
            stage.start(&mut bridge).await;
            seen(exit.status.code().is_none(), exit.status.to_string())
        }
        Kind::BridgeStorm => {
            let mut random = Random::new(planned.dice, 1);
            let kills = 3 + random.below(4);
            for _ in 0..kills {
                let alive = Duration::from_millis(200 + random.below(600));
                tokio::time::sleep(alive).await;
                bridge.kill().await;
                stage.start(&mut bridge).await;
            }
            Ok(format!("killed {kills} times"))
        }
        Kind::BridgeTerminate => {
            let exit = bridge.terminate().await;
            if exit.status.code() != Some(0) || exit.took > STOP_MAX {
                let what = format!("SIGTERM: {} after {:?}", exit.status, exit.took);
                stage.ledger.complain(what);
            }
            stage.start(&mut bridge).await;
            Ok(format!("{} after {:?}", exit.status, exit.took))
        }
        Kind::BridgeFreeze => {
            bridge.freeze();
            last(planned).await;
            bridge.thaw();
            Ok("every thread stood still".into())
        }
        _ => {
            let old = stage.desk.secret();
            let new = format!("secret-of-rotation-{:016x}", planned.dice);
            bridge.reconfigure(&format!(
                "sources.deskdirector.secrets = [{old:?}, {new:?}]"
            ));
            let asked = async || Some(stage.status().await?["reload"].clone());
            let before = asked().await.unwrap_or_default();
            bridge.hang_up();
            let is_applied = until(SHOWS_WITHIN, async || {
                let reload = asked().await.unwrap_or_default();
                reload["at"] != before["at"] && reload["is_applied"] == true
            })
            .await;
            if !is_applied {
                stage.ledger.complain("SIGHUP was not followed".into());
                return Err("the new secret was not taken".into());
            }
            stage.desk.use_secret(&new);
            let before = stage.desk.accepted();
            let is_used = until(SHOWS_WITHIN, async || stage.desk.accepted() > before).await;
            seen(is_used, "a request signed with the new secret was accepted")
        }
    }
}
