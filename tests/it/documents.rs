//! README, docs and mutations are true: the tests, links and commands in them exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the tests that hold the promises, and at least so many.
const RELIABILITY: (&str, usize) = ("docs/reliability.md", 150);
const README_WORDS_MAX: usize = 1_100;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Path and text of README, ARCHITECTURE and everything in `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    ["README.md", "ARCHITECTURE.md"]
        .map(|name| root().join(name))
        .into_iter()
        .chain(docs)
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

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

/// Everything in backquotes that looks like `module::a_test` or `module::*`.
fn named(page: &str) -> BTreeSet<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_word = |char: char| char.is_ascii_alphanumeric() || "_:*".contains(char);
    quoted
        .filter(|text| text.contains("::") && text.chars().all(is_word))
        .collect()
}

/// The full names of the tests in a file, as in `journal::tests::damage::name`.
fn tests(path: &Path, code: &str) -> Vec<String> {
    let module: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let module = module.join("::");
    let mut names = Vec::new();
    let mut is_marked = false;
    for line in code.lines().map(str::trim_start) {
        is_marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if let Some((_, function)) = line.split_once("fn ").filter(|_| is_marked) {
            let name = function.split('(').next().unwrap_or_default();
            names.push(format!("{module}::{name}"));
            is_marked = false;
        }
    }
    names
}

/// The full names of all tests: unit tests, and those of `it`.
fn all_tests() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        let folder = root().join(folder);
        let mut code = Vec::new();
        collect(&folder, &mut code);
        for (path, code) in code {
            let path = Path::new(&path).strip_prefix(&folder).unwrap();
            all.extend(tests(&path.with_extension(""), &code));
        }
    }
    all
}

#[test]
fn named_tests_exist() {
    let all = all_tests();
    let (page, fewest) = RELIABILITY;
    let text = fs::read_to_string(root().join(page)).unwrap();
    let names = named(&text);
    assert!(names.len() >= fewest, "{page} names only {}", names.len());
    let exists = |name: &&str| match name.strip_suffix('*') {
        Some(start) => all.iter().any(|test| test.starts_with(start)),
        None => all.contains(*name),
    };
    let missing: Vec<_> = names.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "not there: {missing:#?}");
}

/// Each patch of `tests/mutations` applies, and the one test that it names exists.
#[test]
fn every_mutation_applies_and_its_test_exists() {
    let all = all_tests();
    let mut patches = 0;
    for entry in fs::read_dir(root().join("tests/mutations")).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read_to_string(&path).unwrap();
        let (promise, rest) = content.split_once('\n').unwrap();
        let (named, _) = rest.split_once('\n').unwrap();
        assert!(promise.starts_with("Promise: "), "{}", path.display());
        let name = ["Test: --lib ", "Test: --test it "]
            .iter()
            .find_map(|kind| named.strip_prefix(kind));
        let module_path = |name: &str| match name.rsplit_once("::tests::") {
            Some((module, test)) if !all.contains(name) => format!("{module}::{test}"),
            _ => name.to_owned(),
        };
        let is_there = name.is_some_and(|name| all.contains(&module_path(name)));
        assert!(is_there, "{}: {named}", path.display());
        let applied = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success(), "make it again: {said}");
        patches += 1;
    }
    assert!(patches >= 18, "only {patches}");
}

/// The image has one name, and everything that is released has the version of the crate.
#[test]
fn released_names_and_versions_agree() {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    for (file, expected) in [
        (
            "docker-compose.yml",
            format!("${{DESKBRIDGE_IMAGE:-{name}}}\""),
        ),
        (
            "Dockerfile",
            format!("org.opencontainers.image.title=\"{name}\""),
        ),
        (
            "deploy/helm/deskbridge/values.yaml",
            format!("repository: {name}\n"),
        ),
        (
            "deploy/helm/deskbridge/Chart.yaml",
            format!("appVersion: {version}\n"),
        ),
        ("docs/installing.md", format!("{name}_{version}_amd64.deb")),
        (
            "docs/installing.md",
            format!("{name}-{version}-1.x86_64.rpm"),
        ),
        ("docs/installing.md", format!("{name}-{version}-oci.tar")),
        ("CHANGELOG.md", format!("## [{version}]")),
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains(&expected), "{file}: {expected}");
    }
}

#[test]
fn readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let words = text.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "{words} words");
}

/// As GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = outside_of_fences(text).filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.trim())
    });
    let anchor = |title: &str| {
        let kept = title.chars().filter_map(|char| match char {
            ' ' => Some('-'),
            '-' | '_' => Some(char),
            _ => char.is_alphanumeric().then(|| char.to_ascii_lowercase()),
        });
        kept.collect()
    };
    headings.map(anchor).collect()
}

fn outside_of_fences(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}

/// What stands between `](` and `)`.
fn links(text: &str) -> Vec<&str> {
    let rest = text.split("](").skip(1);
    rest.filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .collect()
}

#[test]
fn links_resolve() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let is_there = target.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(target).unwrap()).contains(anchor));
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The website of `make docs` has no other pages.
#[test]
fn every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: Vec<_> = links(&summary)
        .into_iter()
        .map(|link| docs.join(link).canonicalize().unwrap())
        .collect();
    for (page, _) in pages() {
        let is_listed = listed.contains(&page.canonicalize().unwrap());
        assert!(
            is_listed || page.ends_with("SUMMARY.md"),
            "{}",
            page.display()
        );
    }
}

/// The lines of the blocks without a language: what a reader types.
fn command_lines(text: &str) -> Vec<&str> {
    let mut language = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        match (language, line.strip_prefix("```")) {
            (Some(_), Some(_)) => language = None,
            (None, Some(name)) => language = Some(name),
            (Some(""), None) => lines.push(line),
            _ => {}
        }
    }
    lines
}

/// The commands in backquotes outside code blocks, without those with something to fill in.
fn inline_commands(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    let quoted = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    let commands = quoted.filter_map(|quoted| quoted.strip_prefix("deskbridge "));
    let is_filled = |word: &str| word.len() < 3 || word.contains(|c: char| !c.is_ascii_uppercase());
    let is_complete = |command: &&str| {
        !command.contains(['…', '\n']) && command.split_whitespace().all(is_filled)
    };
    commands.filter(is_complete).map(str::to_owned).collect()
}

/// The parts of a line that a shell would start `program` with.
fn calls<'l>(line: &'l str, program: &str) -> Vec<&'l str> {
    let code = line.split(" #").next().unwrap_or_default();
    let parts = code.split(['|', ';']).flat_map(|part| part.split("&&"));
    parts
        .filter_map(|part| {
            let part = part.trim();
            let in_container = part.strip_prefix("docker compose exec ");
            let part = in_container.map_or(part, |part| {
                part.trim_start_matches("-T ").trim_start_matches("bridge ")
            });
            part.split(['>', '<'])
                .next()?
                .strip_prefix(program)?
                .strip_prefix(' ')
        })
        .map(str::trim)
        .collect()
}

/// What the program says against these arguments. With `--help` behind them it says whether it knows
/// them and does nothing.
fn refusal(arguments: &str) -> Option<String> {
    let script = format!("\"$0\" {arguments} --help");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_deskbridge")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{arguments}: {said}"))
}

#[test]
fn documented_commands_are_valid() {
    let mut refused = Vec::new();
    let mut checked = 0;
    for (page, text) in pages() {
        let lines = command_lines(&text).into_iter();
        let calls = lines.flat_map(|line| calls(line, "deskbridge"));
        for arguments in calls.map(str::to_owned).chain(inline_commands(&text)) {
            checked += 1;
            if let Some(said) = refusal(&arguments) {
                refused.push(format!("{}: {said}", page.display()));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(checked >= 20, "only {checked} commands were found");
}

/// What errors, findings and help texts tell people to type.
fn advised(code: &str) -> Vec<String> {
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.collect::<Vec<_>>().join("\n");
    let quoted = text.split('`').skip(1).step_by(2);
    let commands = quoted.filter_map(|text| text.strip_prefix("deskbridge "));
    // A value that is filled in when it is said.
    let filled = commands.map(|text| text.replace(['{', '}'], ""));
    filled
        .filter(|text| !text.contains(['\n', '\\', '"']))
        .collect()
}

#[test]
fn advised_commands_are_valid() {
    let mut code = Vec::new();
    collect(&root().join("src"), &mut code);
    let commands: BTreeSet<_> = code.iter().flat_map(|(_, code)| advised(code)).collect();
    assert!(commands.len() >= 10, "{commands:?}");
    let refused: Vec<_> = commands
        .iter()
        .filter_map(|command| refusal(command))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn documented_make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for (page, text) in pages() {
        let quoted = text.split('`').skip(1).step_by(2);
        let in_blocks = command_lines(&text).into_iter();
        for call in quoted
            .chain(in_blocks)
            .filter_map(|line| line.strip_prefix("make "))
        {
            let target = call.split_whitespace().next().unwrap_or_default();
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: make {call}", page.display());
        }
    }
}
