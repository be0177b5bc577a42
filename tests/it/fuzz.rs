//! What `make fuzz` looks for an exception to, held for what it began with and for everything it
//! ever found (`fuzz/seeds`, `fuzz/regressions`).

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
    assert!(inputs > 5, "only {inputs} inputs: this test has gone blind");
}

#[test]
fn every_body_is_split_as_rfc_8259_and_the_contract_say() {
    replay("split", checks::split::check);
}

#[test]
fn every_signature_is_accepted_exactly_if_it_is_right() {
    replay("signature", checks::signature::check);
}

#[test]
fn every_event_has_the_key_that_its_template_says() {
    replay("routing", checks::routing::check);
}

#[test]
fn every_configuration_is_sound_or_its_findings_say_why() {
    replay("config", checks::config::check);
}

#[test]
fn whatever_arrives_on_a_connection_is_held_once_if_it_was_answered_202() {
    replay("http", checks::http::check);
}
