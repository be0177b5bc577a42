//! A script reports what is missing or failed; it never fails silently.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::process::script;

/// Tools that every Unix has.
const BASICS: &str = "awk basename bash cat chmod cmp comm cp cut date dirname env find flock grep head \
                      id ln mkdir mktemp mv nproc od readlink realpath rm sed seq sh sha256sum sleep \
                      sort tail tar tee timeout touch tr uname wc xargs";
/// Tools that have to be installed or use the network.
const TOOLS: &str = "apt-get cargo chroot curl debootstrap docker dockerd git ip make node npm podman \
                     prometheus python3 setsid sqlite3 strace sudo unshare";
const SAYS_WHY: [&str; 11] = [
    "exit code",
    "not found",
    "No such file",
    "please",
    "missing",
    "could not",
    "does not know",
    "did not start",
    "fail",
    "ended with",
    "DEBIAN_MIRROR",
];

/// The arguments with which a script gets to work; `None` if it is only sourced, or cannot fail.
fn arguments(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "broker.sh" => &["up", "broker"],
        "compose-test/npm.sh" => &["publish"],
        "compose-test/rabbitmq-entrypoint.sh" => &["no-such-server"],
        "fuzz.sh" | "repeat-tests.sh" => &["1"],
        "install.sh" => &["no-such-package"],
        "rerun-failed.sh" => &["no-such.log", "1"],
        "run.sh" => &["demo"],
        "test-rabbitmq.sh" => &["4.3"],
        "types.sh" => &["write"],
        "../.ci/run"
        | "compose-test.sh"
        | "compose-test/cargo.sh"
        | "dependencies.sh"
        | "dist-reproducible.sh"
        | "dist.sh"
        | "docs.sh"
        | "helm-test.sh"
        | "lines.sh"
        | "lint.sh"
        | "mirror.sh"
        | "mutations.sh"
        | "pack.sh"
        | "package-test.sh"
        | "python.sh"
        | "simulate.sh"
        | "style.sh"
        | "test-needs.sh"
        | "test-packages.sh"
        | "test.sh" => &[],
        "reaper.sh"
        | "strict.sh"
        | "compose-test/checks.sh"
        | "compose-test/engine.sh"
        | "compose-test/images.sh" => return None,
        _ => panic!("how is scripts/{name} to be called here?"),
    })
}

fn shell_scripts() -> Vec<String> {
    let scripts = script("");
    let mut names = vec!["../.ci/run".to_owned()];
    for folder in ["", "compose-test"] {
        for file in fs::read_dir(scripts.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sh") {
                let name = path.strip_prefix(&scripts).unwrap();
                names.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    names
}

/// A checkout with little more than its scripts, on a machine with little more than a shell.
struct Poor {
    dir: tempfile::TempDir,
}

impl Poor {
    fn new() -> Self {
        let poor = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["bin", "checkout/fuzz", "checkout/tests"] {
            fs::create_dir_all(poor.path(folder)).unwrap();
        }
        for folder in ["scripts", ".ci"] {
            let copied = Command::new("cp")
                .args(["-r", "--"])
                .args([root.join(folder), poor.path("checkout")])
                .status();
            assert!(copied.unwrap().success());
        }
        for tool in BASICS.split_whitespace() {
            let places = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
            let place = places.iter().find(|place| place.exists());
            symlink(place.expect(tool), poor.path("bin").join(tool)).unwrap();
        }
        poor
    }

    /// Adds all tools, as stubs that fail without output.
    fn with_tools_that_fail(self) -> Self {
        for tool in TOOLS.split_whitespace() {
            let stub = self.path("bin").join(tool);
            fs::write(&stub, "#!/bin/sh\nexit 1\n").unwrap();
            fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        }
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new("/usr/bin/timeout")
            .arg("60")
            .arg(self.path("checkout/scripts").join(name))
            .args(arguments)
            .current_dir(self.path("checkout"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .env("RABBITMQ_URL", "amqp://nobody.invalid")
            .env("COMPOSE_TEST_BINARY", "/bin/sh")
            .output()
            .unwrap()
    }

    fn no_script_is_silent(&self, is_run: impl Fn(&str) -> bool) {
        let mut silent = Vec::new();
        for name in shell_scripts().into_iter().filter(|name| is_run(name)) {
            let Some(arguments) = arguments(&name) else {
                continue;
            };
            let output = self.run(&name, arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = said.lines().next_back().unwrap_or_default();
            let says_why = SAYS_WHY.iter().any(|words| last.contains(words));
            let is_failure = !matches!(output.status.code(), Some(0 | 124) | None);
            if !says_why || !is_failure {
                silent.push(format!("{name}: {}, {said:?}", output.status));
            }
        }
        assert!(silent.is_empty(), "{}", silent.join("\n"));
    }
}

#[test]
fn missing_tool_is_named() {
    Poor::new().no_script_is_silent(|_| true);
}

/// `strict.sh` reports it: two of the scripts that source it are enough, with all others.
#[test]
fn silent_failure_is_reported() {
    let is_strict = |name: &str| {
        let text = fs::read_to_string(script(name)).unwrap();
        text.contains("/strict.sh\" || exit\n")
    };
    Poor::new()
        .with_tools_that_fail()
        .no_script_is_silent(|name| !is_strict(name) || ["broker.sh", "docs.sh"].contains(&name));
}

#[test]
fn missing_debian_sources_name_the_variable() {
    let poor = Poor::new();
    let apt = poor.path("bin").join("apt-get");
    fs::write(&apt, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&apt, fs::Permissions::from_mode(0o755)).unwrap();
    let output = poor.run("mirror.sh", &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("DEBIAN_MIRROR"), "{said}");
}
