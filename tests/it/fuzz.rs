//! Runs the properties that `make fuzz` tests on its seed inputs and on all inputs that ever failed
//! (`fuzz/seeds`, `fuzz/regressions`).

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
pub mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let mut inputs = 0;
    for kind in ["seeds", "regressions"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(kind);
        let Ok(files) = std::fs::read_dir(dir.join(target)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read(path).unwrap());
            inputs += 1;
        }
    }
    assert!(
        inputs > 5,
        "only {inputs} inputs: this test no longer tests anything"
    );
}

#[test]
fn bodies_are_split_as_rfc_8259_requires() {
    replay("split", checks::split::check);
}

#[test]
fn only_correct_signatures_are_accepted() {
    replay("signature", checks::signature::check);
}

#[test]
fn routing_keys_follow_their_template() {
    replay("routing", checks::routing::check);
}

#[test]
fn configuration_is_valid_or_has_findings() {
    replay("config", checks::config::check);
}

#[test]
fn http_input_answered_202_is_stored_once() {
    replay("http", checks::http::check);
}
