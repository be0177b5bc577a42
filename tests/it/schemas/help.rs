//! Every command says how it is used, and every shell knows every command.

use super::printed;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn all(path: &[&str], found: &mut Vec<(Vec<String>, String)>) {
    let help = printed(&[path, &["--help"]].concat());
    for command in commands(&help) {
        all(&[path, &[command.as_str()]].concat(), found);
    }
    found.push((path.iter().map(ToString::to_string).collect(), help));
}

#[test]
fn the_help_of_every_command_has_an_example_of_it() {
    let mut found = Vec::new();
    all(&[], &mut found);
    assert!(found.len() > 10, "{found:?}");
    for (path, help) in found {
        let example = help.split_once("Example").map(|(_, examples)| examples);
        let line = ["deskbridge"]
            .into_iter()
            .chain(path.iter().map(String::as_str));
        let line = line.collect::<Vec<_>>().join(" ");
        assert!(
            example.is_some_and(|example| example.contains(&line)),
            "{line}: {help}"
        );
    }
}

#[test]
fn the_completions_of_every_shell_name_every_command() {
    let names = commands(&printed(&["--help"]));
    assert!(names.contains(&"completions".to_owned()), "{names:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for name in &names {
            assert!(
                script.contains(name.as_str()),
                "{shell} does not know {name}"
            );
        }
        assert!(script.contains("config"), "{shell}");
    }
}

/// Bash completes with what was printed.
#[test]
fn bash_completes_a_command_that_was_begun() {
    let script = printed(&["completions", "bash"]);
    let program = format!(
        "{script}\nCOMP_WORDS=(deskbridge comp); COMP_CWORD=1; _deskbridge deskbridge comp deskbridge; echo \"${{COMPREPLY[@]}}\""
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &program])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said.trim(),
        "completions",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
