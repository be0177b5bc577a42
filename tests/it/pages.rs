//! What README and docs say is there: every test they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The pages, and the fewest tests each of them names.
const PAGES: [(&str, usize); 2] = [("README.md", 30), ("docs/reliability.md", 70)];

fn collect(dir: &Path, code: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.to_str().unwrap().to_owned();
            code.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Everything in backquotes that looks like `room::a_test`, `room::*` or `…the_end_of_a_test`.
fn named(page: &str) -> BTreeSet<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_name = |text: &&str| {
        let is_word = |char: char| char.is_ascii_alphanumeric() || "_:*…./{},".contains(char);
        (text.contains("::") || text.starts_with('…'))
            && text.chars().all(is_word)
            && !text.contains("//")
    };
    quoted.filter(is_name).collect()
}

/// `room::name`, `room::*`, with `…` for what is left out at either end.
fn exists(name: &str, code: &[(String, String)]) -> bool {
    let (room, test) = name.rsplit_once("::").unwrap_or(("", name));
    let room = room.rsplit("::").next().unwrap_or_default();
    let room = room.trim_start_matches('…').trim_end_matches(".rs");
    let room = room.rsplit('/').next().unwrap_or_default();
    if test == "*" {
        return code.iter().any(|(path, _)| path.contains(room));
    }
    let has_start = !test.starts_with('…');
    let part = test.trim_matches('…').trim_end_matches('*');
    let is_whole = has_start && part.len() == test.len();
    code.iter().any(|(_, code)| {
        code.split("fn ").skip(1).any(|rest| {
            let function = rest.split('(').next().unwrap_or_default();
            if is_whole {
                function == part
            } else if has_start {
                function.starts_with(part)
            } else {
                function.contains(part)
            }
        })
    })
}

#[test]
fn every_test_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = Vec::new();
    collect(&root.join("src"), &mut code);
    collect(&root.join("tests"), &mut code);
    let mut missing = Vec::new();
    for (page, fewest) in PAGES {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let names = named(&text);
        assert!(names.len() >= fewest, "{page} names only {}", names.len());
        let gone = names.into_iter().filter(|name| !exists(name, &code));
        missing.extend(gone.map(|name| format!("{page}: {name}")));
    }
    assert!(missing.is_empty(), "not there: {missing:#?}");
}
