//! The configuration as an operator sees it: the built binary, its output and its exit codes.

use std::fs;

use assert_cmd::Command;
use tempfile::TempDir;

const SOURCE: &str = "[sources.dd]\nsecrets = [\"topsecret-topsecret\"]\n";

/// A directory to run the binary in, without the environment of this process.
struct Operator {
    dir: TempDir,
    environment: Vec<(&'static str, String)>,
}

/// The result of one run.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Operator {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            environment: Vec::new(),
        }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn run(&self, line: &str) -> Run {
        let mut command = Command::cargo_bin("deskbridge").unwrap();
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    /// Panics unless the exit code is 2, the findings are these in this order, and standard output
    /// is empty.
    #[track_caller]
    fn found(&self, expected: &[&str]) {
        let findings: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("  "))
            .collect();
        let findings = &findings[..findings.len().saturating_sub(1)];
        let matches = findings
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.contains(expected));
        assert!(
            matches && findings.len() == expected.len(),
            "{}\nexpected {expected:#?}",
            self.stderr
        );
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (2, ""),
            "{}",
            self.stderr
        );
    }

    #[track_caller]
    fn shows(&self, line_start: &str, origin: &str) {
        let line = self
            .stdout
            .lines()
            .find(|line| line.starts_with(line_start));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("# {origin}"))),
            "{line:?}\n{}",
            self.stdout
        );
    }
}

#[test]
fn serve_and_check_report_all_findings_at_once() {
    let operator = Operator::new().file(
        "a.toml",
        "[http]\nsessions_max = \"ten\"\nbody_bytes_max = \"20MiB\"\n\
         [sources.none]\n[sources.short]\nsecrets = [\"topsecret\"]\n\
         [journal]\nretention = \"a week\"\n[routing]\nrouting_key = \"{nope}\"\n",
    );
    for command in ["serve", "check", "config show"] {
        operator.run(&format!("--config a.toml {command}")).found(&[
            "http.body_bytes_max: 20MiB is more than `rabbitmq.message_bytes_max` (16MiB) (a.toml:3)",
            "http.sessions_max: expected a whole number, found a string (a.toml:2)",
            "journal.retention: expected a duration such as",
            "routing.routing_key: unknown placeholder `{nope}`",
            "sources.none: signatures are required and there is no secret",
            "sources.short.secrets: secret number 1 has 9 bytes; at least 16 are needed",
        ]);
    }
}

#[test]
fn unwritable_journal_is_reported_with_the_rest() {
    let operator = Operator::new().file("file", "");
    let line = "--set journal.dir=file/journal --set sources.dd.secrets=short";
    for command in ["serve", "check"] {
        operator.run(&format!("{line} {command}")).found(&[
            "sources.dd.secrets: secret number 1 has 5 bytes; at least 16 are needed (--set sources.dd.secrets)",
            "journal.dir: `file` is not a directory; name a directory, or a path where one can be created",
        ]);
    }
}

#[test]
fn missing_source_error_says_how_to_add_one() {
    let run = Operator::new().run("serve");
    run.found(&["sources: there is no source, so nobody could post; add `[sources.deskdirector]`"]);
    let without_file = "no configuration file was read";
    assert!(run.stderr.contains(without_file), "{}", run.stderr);
    let run = Operator::new()
        .file("empty.toml", "")
        .run("--config empty.toml check");
    run.found(&["sources: there is no source, so nobody could post"]);
    assert!(!run.stderr.contains(without_file), "{}", run.stderr);
}

#[test]
fn layers_override_in_the_documented_order() {
    let file = |sessions| format!("{SOURCE}[http]\nsessions_max = {sessions}\n");
    let retry = "connections_max = 3\n[retry]\nattempts_max = 3\n";
    let operator = Operator::new()
        .file("config/deskbridge.toml", &file(1))
        .file("own.toml", &file(2))
        .file("flag.toml", &(file(3) + retry))
        .file(
            "later.toml",
            "[http]\nconnections_max = 4\n[retry]\nattempts_max = 4\n[journal]\ndir = \"b\"\n",
        );
    operator
        .run("config show")
        .shows("http.sessions_max = 1 ", "config/deskbridge.toml:4");
    let operator = operator
        .variable("DESKBRIDGE_CONFIG", "own.toml")
        .variable("DESKBRIDGE__RETRY__ATTEMPTS_MAX", "5")
        .variable("DESKBRIDGE__JOURNAL__DIR", "c");
    operator
        .run("config show")
        .shows("http.sessions_max = 2 ", "own.toml:4");
    let run =
        operator.run("--config flag.toml config show --config later.toml --set journal.dir=d");
    run.shows("http.sessions_max = 3 ", "flag.toml:4");
    run.shows("http.connections_max = 4 ", "later.toml:2");
    run.shows("retry.attempts_max = 5 ", "DESKBRIDGE__RETRY__ATTEMPTS_MAX");
    run.shows("journal.dir = \"d\" ", "--set journal.dir");
    run.shows("http.listen = \"0.0.0.0:8080\" ", "default");
    Operator::new()
        .file("config/deskbridge.toml", &file(1))
        .variable("DESKBRIDGE_CONFIG", "absent.toml")
        .run("config show")
        .found(&["absent.toml"]);
}

/// `secrets` tests every place of a secret; these are the commands that it does not run.
#[test]
fn no_output_contains_a_secret() {
    let operator = Operator::new()
        .file("good.toml", &format!("{SOURCE}[rabbitmq]\nurls = [\"amqp://u:topsecret@h\"]\n[admin]\nlisten = \"127.0.0.1:1\""))
        .file("bad.toml", "[sources.dd]\nsecrets = [\"topsecret\n")
        .variable("DESKBRIDGE__SOURCES__DD__SECRETS", "topsecret-topsecret");
    for line in [
        "--config good.toml health",
        "--config bad.toml serve",
        "send --help",
        "serve --help",
    ] {
        let run = operator.run(line);
        let all = run.stdout + &run.stderr;
        assert!(!all.is_empty(), "{line} prints nothing");
        assert!(!all.contains("topsecret"), "{line}: {all}");
    }
    let shown = operator.run("--config good.toml config show --json").stdout;
    for masked in [r#"["***"]"#, r#"["amqp://***@h"]"#] {
        assert!(shown.contains(masked), "{shown}");
    }
}

#[test]
fn container_file_lacks_only_the_secret() {
    let shipped = include_str!("../../config/docker.toml");
    let operator = Operator::new()
        .file("docker.toml", shipped)
        .file("secrets/.keep", "")
        .variable("DESKBRIDGE__JOURNAL__DIR", "journal");
    let run = operator.run("--config docker.toml check");
    let missing = "error: sources.deskdirector.secret_files: the file `secrets/deskdirector` is missing, \
                   the file `secrets/deskdirector-2` is missing; put the secret of the webhook into \
                   one of them (docker.toml:";
    assert!(run.stdout.contains(missing), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.code, 1);
}

#[test]
fn exit_codes_distinguish_usage_from_failure() {
    let operator = Operator::new().file(
        "a.toml",
        &format!("{SOURCE}[admin]\nlisten = \"127.0.0.1:1\"\n"),
    );
    for (line, code) in [
        ("--help", 0),
        ("--version", 0),
        ("config show --config a.toml", 0),
        ("health --config a.toml", 1),
        ("nonsense", 2),
        ("serve --nonsense", 2),
        ("check --set nonsense", 2),
        ("check --config absent.toml", 2),
        ("send --config a.toml --source other body.json", 2),
        ("send --config a.toml absent.json", 1),
    ] {
        assert_eq!(operator.run(line).code, code, "{line}");
    }
}
