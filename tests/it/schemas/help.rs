//! Every command has a help text, and every shell completes every command.

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
fn every_command_has_an_example_and_a_manual_page() {
    let dir = tempfile::TempDir::new().unwrap();
    printed(&["man", &dir.path().display().to_string()]);
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(page("deskbridge.1"), printed(&["man"]));
    let mut found = Vec::new();
    all(&[], &mut found);
    assert!(found.len() > 10, "{found:?}");
    for (path, help) in found {
        let words = [vec!["deskbridge".to_owned()], path].concat();
        let (line, name) = (words.join(" "), words.join("-"));
        let example = help.split_once("Example").map(|(_, examples)| examples);
        assert!(
            example.is_some_and(|example| example.contains(&line)),
            "{line}: {help}"
        );
        let page = page(&format!("{name}.1"));
        assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
        assert!(page.contains("Example"), "{name}: {page}");
    }
}

/// Every shell gets a script; Bash uses its one for completion.
#[test]
fn bash_completes_a_partial_command() {
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("dead-letters"), "{shell}: {script}");
    }
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
