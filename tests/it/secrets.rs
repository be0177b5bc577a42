//! A secret in every place where an operator may put one, correctly or by mistake, appears in no
//! output of any command.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use deskbridge::webhook::signature::sign;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::bridge::builder::{BridgeBuilder, free_address};

/// A valid configuration into which mistakes are put.
const SOUND: &str = "[admin]\nlisten = \"127.0.0.1:1\"\n[journal]\ndir = \"journal\"\n";
const SOURCE: &str = "[sources.dd]\nsecrets = [\"0123456789abcdef\"]\n";
const VARIANTS_MIN: usize = 200;

/// One place for a secret.
#[derive(Clone)]
struct Slip {
    toml: String,
    /// Name and content of a file next to the configuration.
    file: Option<(&'static str, Vec<u8>)>,
    arguments: Vec<String>,
    variable: Option<(String, String)>,
}

fn toml(text: String) -> Slip {
    let toml = text;
    let (file, arguments, variable) = (None, Vec::new(), None);
    Slip {
        toml,
        file,
        arguments,
        variable,
    }
}

fn with_file(text: &str, content: impl Into<Vec<u8>>) -> Slip {
    let file = Some(("beside/file", content.into()));
    Slip {
        file,
        ..toml(text.to_owned())
    }
}

fn set(argument: String) -> Slip {
    let arguments = vec!["--set".to_owned(), argument];
    Slip {
        arguments,
        ..toml(SOURCE.to_owned())
    }
}

fn variable(name: String, value: String) -> Slip {
    let variable = Some((name, value));
    Slip {
        variable,
        ..toml(SOURCE.to_owned())
    }
}

/// All places, with this secret in each.
#[expect(clippy::too_many_lines, reason = "a list of places")]
fn slips(c: &str) -> Vec<Slip> {
    let urls = [
        format!("amqp://u:{c}@127.0.0.1:1"),
        format!("amqp://{c}@127.0.0.1:1"),
        format!("AMQPS://u:{c}@127.0.0.1:1/%2f?heartbeat=5"),
        format!("amqp://bridge:12345/{c}@127.0.0.1/%2f"),
        format!("amqp://bridge:/{c}@127.0.0.1"),
        format!("amqp://user/{c}@127.0.0.1"),
        format!("amqp://u:{c}"),
        format!("amqp:u:{c}@127.0.0.1"),
        format!("http://u:{c}@127.0.0.1"),
        format!("amqp://127.0.0.1?password={c}"),
        format!("amqp://127.0.0.1?{c}=1"),
        format!("amqp://127.0.0.1?heartbeat={c}"),
        format!("amqp://u:p@127.0.0.1#{c}"),
        format!("amqp://u:p@127.0.0.1:{c}"),
        format!("://{c}"),
        c.to_owned(),
    ];
    let management = [
        c.to_owned(),
        format!("http://u:{c}@127.0.0.1:1"),
        format!("http://127.0.0.1:1/{c}"),
        format!("http://127.0.0.1:1/?{c}"),
        format!("http://127.0.0.1:{c}"),
        format!("ftp://{c}@127.0.0.1"),
        format!("http://u:1/{c}@127.0.0.1"),
    ];
    let with_source = |text: String| toml(format!("{SOURCE}{text}"));
    let mut slips: Vec<Slip> = urls
        .iter()
        .map(|url| with_source(format!("[rabbitmq]\nurls = [{url:?}]\n")))
        .collect();
    slips.extend(urls.iter().map(|url| {
        with_file(
            &format!("{SOURCE}[rabbitmq]\nurl_file = \"beside/file\"\n"),
            url.as_bytes(),
        )
    }));
    slips.extend(
        management
            .iter()
            .map(|url| with_source(format!("[rabbitmq]\nmanagement_url = {url:?}\n"))),
    );
    let sources = [
        format!("secrets = [{c:?}, \"amqp://u:{c}@h\"]"),
        format!("secrets = {c:?}"),
        format!("secrets = [[{c:?}]]"),
        format!("secrets = {{ a = {c:?} }}"),
        format!("secrets = [\" {c} \"]"),
        format!("secrets = [\"SECRET={c}\"]"),
        format!("secrets = [\"{c}"),
        format!("secrets = {c}"),
        format!("secrets = [\n\"a\",\n\"{c}\n]"),
        format!("secrets = [\"\"\"\n{c}\n"),
        format!("secret = {c:?}"),
        format!("secrets{c} = 1"),
        format!("{c:?} = 1"),
        c.to_owned(),
        format!("signature = {c:?}"),
        format!("await_secret = {c:?}"),
        format!("secret_files = [{c:?}]"),
        format!("secret_files = [{c:?}]\nawait_secret = true"),
        format!("secret_files = [\"/{c}\", \"x/{c}\"]\nawait_secret = true"),
        format!("secret_files = [\"amqp://u:{c}@h\"]"),
        format!("secret_files = {c:?}"),
    ];
    slips.extend(
        sources
            .into_iter()
            .map(|text| toml(format!("[sources.dd]\n{text}\n"))),
    );
    let utf16: Vec<u8> = c.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let contents = [
        format!("SECRET={c}").into_bytes(),
        format!("{c}\n{c}").into_bytes(),
        format!("\"{c}\"").into_bytes(),
        format!("\u{feff}{c}\r\n").into_bytes(),
        utf16,
        c.as_bytes()[..7].to_vec(),
    ];
    slips.extend(
        contents
            .into_iter()
            .map(|content| with_file("[sources.dd]\nsecret_files = [\"beside/file\"]\n", content)),
    );
    let pem = |kind: &str, between: &str| {
        format!("-----BEGIN {kind}-----{between}{c}{between}-----END {kind}-----{between}")
    };
    for (content, key) in [
        (pem("PRIVATE KEY", " "), "key_file"),
        (pem("PRIVATE KEY", "\n"), "key_file"),
        (pem("ENCRYPTED PRIVATE KEY", "\n"), "key_file"),
        (pem(c, "\n"), "key_file"),
        (c.to_owned(), "key_file"),
        (pem("CERTIFICATE", " "), "cert_file"),
        (pem("CERTIFICATE", "\n"), "ca_file"),
        (pem("PRIVATE KEY", "\n"), "ca_file"),
    ] {
        let other = if key == "key_file" {
            "cert_file = \"beside/file\"\n"
        } else {
            ""
        };
        let other = if key == "cert_file" {
            "key_file = \"beside/file\"\n"
        } else {
            other
        };
        let text = format!(
            "{SOURCE}[rabbitmq]\nurls = [\"amqps://127.0.0.1:1\"]\n[rabbitmq.tls]\n{key} = \"beside/file\"\n{other}"
        );
        slips.push(with_file(&text, content));
    }
    let others = [
        format!("[rabbitmq]\nurl_file = {c:?}"),
        format!("[rabbitmq]\nurl_file = \"amqp://u:{c}@h\""),
        format!("[rabbitmq]\nmanagement_url_file = {c:?}"),
        format!("[rabbitmq]\nheartbeat = {c:?}"),
        format!("[rabbitmq]\nheartbeat = \"amqp://u:{c}@h\""),
        format!("[rabbitmq]\ntopology = {c:?}"),
        format!("[rabbitmq]\nin_flight_max = {c:?}"),
        format!("[rabbitmq]\npassword = {c:?}"),
        format!("[rabbitmq]\n{c:?} = 1"),
        format!("[rabbitmq.tls]\nkey_file = {c:?}\ncert_file = {c:?}\nca_file = {c:?}"),
        format!("[rabbitmq]\nurls = [\n  {c}\n]"),
        format!("[routing]\nexchange = \"amqp://u:{c}@h\""),
        format!("[routing]\nrouting_key = \"{{{c}}}\""),
        format!("[http]\nlisten = {c:?}"),
        format!("[http]\nbody_bytes_max = {c:?}"),
        format!("[retry]\nattempts_max = {c:?}"),
        format!("[telemetry]\nlog_level = {c:?}"),
        format!("[telemetry]\nlog_format = {c:?}"),
        format!("[[queues]]\nname = \"q\"\nkeys = [\"#\"]\nttl = {c:?}"),
        format!("{c:?} = 1"),
    ];
    slips.extend(
        others
            .into_iter()
            .map(|text| with_source(format!("{text}\n"))),
    );
    for argument in [
        format!("sources.x.secrets{c}"),
        format!("sources.x.secrets{c}=1"),
        format!("sources.x.secrets={c}"),
        format!("rabbitmq.heartbeat={c}"),
        format!("rabbitmq.urls=amqp://u:{c}@127.0.0.1:1,{c}"),
        format!("http.listen.{c}=1"),
        format!("http.{c}=1"),
        c.to_owned(),
    ] {
        slips.push(set(argument));
    }
    let name = c.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    for (name, value) in [
        (
            format!("DESKBRIDGE__SOURCES__X__SECRETS{name}"),
            "1".to_owned(),
        ),
        (format!("DESKBRIDGE_HTTP__{name}"), "1".to_owned()),
        (format!("DESKBRIDGE__HTTP__{name}"), "1".to_owned()),
        (format!("DESKBRIDGE__HTTP__LISTEN__{name}"), "1".to_owned()),
        ("DESKBRIDGE__SOURCES__X__SECRETS".to_owned(), c.to_owned()),
        ("DESKBRIDGE_SOURCES_DD_SECRETS".to_owned(), c.to_owned()),
        (
            "DESKBRIDGE__RABBITMQ__URLS".to_owned(),
            format!("amqp://u:{c}@127.0.0.1:1,{c}"),
        ),
        ("DESKBRIDGE__RABBITMQ__HEARTBEAT".to_owned(), c.to_owned()),
        ("DESKBRIDGE__RETRY__ATTEMPTS_MAX".to_owned(), c.to_owned()),
        (
            "DESKBRIDGE__SOURCES__DD__AWAIT_SECRET".to_owned(),
            c.to_owned(),
        ),
        ("DESKBRIDGE__QUEUES__0__TTL".to_owned(), c.to_owned()),
    ] {
        slips.push(variable(name, value));
    }
    slips
}

/// The secrets of one seed: parts of letters and digits, and the characters between them.
fn canaries(seed: u64) -> Vec<(Vec<String>, String)> {
    let mut state = seed;
    let mut part = || {
        let mut part = String::from("Q");
        for _ in 0..7 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let digit = u32::try_from(state % 36).unwrap();
            part.push(char::from_digit(digit, 36).unwrap());
        }
        part + "7"
    };
    let mut canary = |between: [&str; 2]| {
        let parts = vec![part(), part(), part()];
        let text = format!(
            "{}{}{}{}{}",
            parts[0], between[0], parts[1], between[1], parts[2]
        );
        (parts, text)
    };
    vec![canary(["", ""]), canary(["/", "+"]), canary(["@", "#"])]
}

/// Runs a command in a directory with a mistake; returns its output.
fn run(dir: &Path, slip: &Slip, line: &str) -> String {
    let mut command = Command::cargo_bin("deskbridge").unwrap();
    command
        .args(line.split_whitespace())
        .args(["--config", "a.toml"])
        .args(&slip.arguments)
        .current_dir(dir)
        .env_clear()
        .envs(slip.variable.clone())
        .write_stdin("[]");
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[track_caller]
fn hold_secret(parts: &[String], slip: &Slip, line: &str, said: &str) {
    let said = said.to_lowercase();
    for part in parts {
        let leaked = said.contains(&part.to_lowercase());
        assert!(
            !leaked,
            "`{part}` is in what `{line}` says of\n{}{:?}{:?}:\n{said}",
            slip.toml, slip.arguments, slip.variable
        );
    }
}

fn written(slip: &Slip) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("beside")).unwrap();
    fs::write(dir.path().join("a.toml"), format!("{}\n{SOUND}", slip.toml)).unwrap();
    if let Some((name, content)) = &slip.file {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

#[test]
fn misplaced_secret_is_in_no_output() {
    const SEED: u64 = 0x5eed_0010;
    let lines = [
        "check",
        "config show --json",
        "asyncapi",
        "topology print",
        "events list",
        "verify --signature sha256=00",
        "send --url http://127.0.0.1:1/webhooks/dd",
    ];
    let mut cases = Vec::new();
    for (parts, canary) in canaries(SEED) {
        cases.extend(slips(&canary).into_iter().map(|slip| (parts.clone(), slip)));
    }
    println!("{} variants of seed {SEED:#x}", cases.len());
    assert!(cases.len() >= VARIANTS_MIN);
    let (mut refused, mut count) = (0, 0);
    for (index, (parts, slip)) in cases.iter().enumerate() {
        let dir = written(slip);
        // Every variant with `config show`, and with one of the others in turn.
        for line in ["config show", lines[index % lines.len()]] {
            let said = run(dir.path(), slip, line);
            assert!(!said.is_empty(), "{line}: {}", slip.toml);
            hold_secret(parts, slip, line, &said);
            refused += usize::from(said.contains("error: "));
            count += 1;
        }
    }
    assert!(refused > count / 3, "only {refused} of {count} are refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_bridge_shows_no_secret() {
    let (parts, canary) = canaries(7).swap_remove(0);
    let nobody = free_address();
    let mut bridge = BridgeBuilder::at(&format!("amqps://u:{canary}@{nobody}/{}", "%2f"))
        .with(&format!("sources.deskdirector.secrets = [{canary:?}]"))
        .with(&format!(
            "rabbitmq.management_url = \"http://u:{canary}@{nobody}/{canary}?\""
        ))
        .build();
    bridge.reconfigure(&format!(
        "rabbitmq.management_url = \"http://u:{canary}@{nobody}/{canary}\""
    ));
    let key = bridge.dir().join("key.pem");
    fs::write(
        &key,
        format!("-----BEGIN PRIVATE KEY----- {canary} -----END PRIVATE KEY-----"),
    )
    .unwrap();
    bridge.reconfigure(&format!(
        "rabbitmq.tls.key_file = {key:?}\nrabbitmq.tls.cert_file = {key:?}"
    ));
    bridge.start().await;
    bridge.broker_is("connecting").await;
    let mut said = Vec::new();
    for path in ["/status", "/metrics", "/livez", "/readyz", "/nothing"] {
        said.push(bridge.admin(path).await.text());
    }
    let body = "[]";
    let signature = sign(canary.as_bytes(), body.as_bytes());
    let file = bridge.dir().join("body.json");
    fs::write(&file, body).unwrap();
    for (command, arguments) in [
        ("check", &[][..]),
        ("config", &["show"]),
        ("tail", &["--count", "1"]),
        ("asyncapi", &[]),
        ("topology", &["print"]),
        ("topology", &["apply"]),
        ("events", &["list", "--json"]),
        ("send", &[file.to_str().unwrap()]),
        (
            "verify",
            &["--signature", &signature, file.to_str().unwrap()],
        ),
    ] {
        let run = bridge.run(command, arguments).await;
        let text = [run.stdout, run.stderr].concat();
        said.push(String::from_utf8_lossy(&text).into_owned());
    }
    assert!(
        said.last()
            .unwrap()
            .starts_with("signed with secret number 1"),
        "{said:?}"
    );
    bridge.reconfigure(&format!("rabbitmq.urls = [\"amqp://u/{canary}@h\"]"));
    bridge.hang_up();
    bridge.says("reload").await;
    said.push(bridge.stderr());
    for text in said {
        for part in &parts {
            assert!(!text.contains(part), "{text}");
        }
    }
}

#[test]
fn verify_names_the_secret_that_signed() {
    let dir = TempDir::new().unwrap();
    let [first, second] = ["first-first-first-1", "second-second-second-2"];
    fs::create_dir(dir.path().join("beside")).unwrap();
    fs::write(dir.path().join("beside/second"), format!("{second}\n")).unwrap();
    fs::write(dir.path().join("body"), "[]\n").unwrap();
    let text =
        format!("[sources.Desk]\nsecrets = [{first:?}]\nsecret_files = [\"beside/second\"]\n");
    fs::write(dir.path().join("a.toml"), text).unwrap();
    let verify = |signature: &str, more: &[&str]| {
        let mut command = Command::cargo_bin("deskbridge").unwrap();
        command.current_dir(dir.path()).env_clear();
        command.args(["--config", "a.toml", "verify", "--signature", signature]);
        let output = command.args(more).write_stdin("[]\n").output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(first) && !said.contains(second), "{said}");
        (output.status.code().unwrap(), said)
    };
    let (code, said) = verify(&sign(first.as_bytes(), b"[]\n"), &["body"]);
    let expected =
        "signed with secret number 1 of the source `Desk` (sources.Desk.secrets[0], a.toml:2)\n";
    assert_eq!((code, said.as_str()), (0, expected));
    let (code, said) = verify(&sign(second.as_bytes(), b"[]\n"), &["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 0);
    assert_eq!(said["by"][0]["key"], "sources.Desk.secret_files[0]");
    assert_eq!(said["by"][0]["file"], "beside/second");
    let (code, said) = verify(&sign(second.as_bytes(), b"[]"), &["-"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("without the white space at its end"),
        "{said}"
    );
    let (code, said) = verify(&sign(b"another-another-another", b"[]\n"), &["body"]);
    assert_eq!(code, 1);
    assert!(
        said.starts_with("not signed: none of the 2 secrets of 1 sources"),
        "{said}"
    );
    assert_eq!(verify("sha256=zz", &["body"]).0, 2);
    assert_eq!(verify(&sign(b"x", b"x"), &["absent"]).0, 1);
}
