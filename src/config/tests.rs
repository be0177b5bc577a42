//! The layers end to end: from text to effective values or findings.

mod default_file;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::layers::Layers;
use super::sources::Secret;
use super::{Config, Loaded};

const SECRET: &str = "0123456789abcdef";
const SOURCE: &str = "[sources.dd]\nsecrets = [\"0123456789abcdef\"]\n";

/// Files and variables of one test.
#[derive(Default)]
struct World {
    dir: Option<TempDir>,
    layers: Layers,
}

impl World {
    fn file(mut self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        self.layers.files.push(path);
        self
    }

    fn path(&mut self, name: &str) -> PathBuf {
        self.dir
            .get_or_insert_with(|| TempDir::new().unwrap())
            .path()
            .join(name)
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.layers.environment.push((name.into(), value.into()));
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.layers.settings.push((key.into(), value.into()));
        self
    }

    fn findings_of_missing(mut self, name: &str) -> Vec<String> {
        let path = self.path(name);
        self.layers.files.push(path);
        self.findings()
    }

    fn load(&self) -> Loaded {
        Config::load(&self.layers, |_| Vec::new()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The findings, with the name of the temporary directory removed.
    fn findings(&self) -> Vec<String> {
        let error = Config::load(&self.layers, |_| Vec::new()).expect_err("nothing was found");
        let dir = self
            .dir
            .as_ref()
            .map_or("-".into(), |dir| format!("{}/", dir.path().display()));
        error
            .to_string()
            .replace(&dir, "")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn exposed(secrets: &[Secret]) -> Vec<&str> {
    secrets.iter().map(Secret::expose).collect()
}

fn file(text: &str) -> World {
    World::default().file("a.toml", text)
}

#[test]
fn environment_sets_values_of_every_type() {
    let world = World::default()
        .variable(
            "DESKBRIDGE__SOURCES__DD__SECRETS",
            " aaaaaaaaaaaaaaaa , bbbbbbbbbbbbbbbb,",
        )
        .variable("DESKBRIDGE__SOURCES__DD__AWAIT_SECRET", "true")
        .variable(
            "DESKBRIDGE__RABBITMQ__URLS",
            "amqp://u:p@one,amqps://u:p@two",
        )
        .variable("DESKBRIDGE__RABBITMQ__TOPOLOGY", "verify")
        .variable("DESKBRIDGE__RABBITMQ__MESSAGE_BYTES_MAX", "33554432")
        .variable("DESKBRIDGE__RABBITMQ__URL_FILE", "")
        .variable("DESKBRIDGE__RETRY__ATTEMPTS_MAX", "3")
        .variable("DESKBRIDGE__JOURNAL__RETENTION", "0s")
        .variable("DESKBRIDGE__ROUTING__STATUSES__MISSED__EXCHANGE", "alarms")
        .variable("DESKBRIDGE__UNROUTED__EXCHANGE", "")
        .variable("DESKBRIDGE__TELEMETRY__LOG_FORMAT", "json")
        .variable("DESKBRIDGE_OTHER", "x")
        .variable("PATH", "x");
    let config = world.load().config;
    let secrets = exposed(&config.sources["dd"].secrets);
    assert_eq!(secrets, ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"]);
    let urls = exposed(&config.rabbitmq.urls);
    assert_eq!(urls, ["amqp://u:p@one", "amqps://u:p@two"]);
    assert_eq!(config.rabbitmq.message_bytes_max, 32 << 20);
    assert_eq!(config.rabbitmq.url_file, None);
    assert_eq!(config.retry.attempts_max, 3);
    assert_eq!(config.journal.retention, Duration::ZERO);
    assert_eq!(
        config.routing.statuses["missed"].exchange.as_deref(),
        Some("alarms")
    );
    assert_eq!(config.unrouted.exchange, "");
}

#[test]
fn numeric_secret_stays_text() {
    for secret in ["1e5", "0012345678901234", "true", "0x10"] {
        let long = format!("{secret}____________________");
        let url = format!("amqp://u:{secret}@host");
        let world = World::default()
            .variable("DESKBRIDGE__SOURCES__DD__SECRETS", &long)
            .variable("DESKBRIDGE__RABBITMQ__URLS", &url);
        let config = world.load().config;
        assert_eq!(exposed(&config.sources["dd"].secrets), [long]);
        assert_eq!(exposed(&config.rabbitmq.urls), [url]);
    }
}

#[test]
fn all_findings_are_reported_at_once_with_place() {
    let world = file(
        "[http]\nlistn = \"x\"\nsessions_max = \"many\"\nbody_timeout = 30\nlisten = \"here\"\n\
         [sources.dd]\nsecret = \"topsecret-topsecret\"\n[sources.short]\nsecrets = [\"topsecret\"]\n\
         [sources.none]\n[rabbitmq]\ntopology = \"maybe\"\nmessage_bytes_max = \"1MiB\"\nin_flight_max = -1\n\
         [[queues]]\nname = \"q\"\nttl = \"soon\"\n[htpp]\n",
    )
    .variable("DESKBRIDGE__RETRY__ATTEMPTS_MAX", "lots")
    .variable("DESKBRIDGE__JOURNAL__DRI", "/x");
    assert_eq!(
        world.findings(),
        [
            "htpp: unknown key; did you mean `http`? (a.toml:18)",
            "http.body_bytes_max: 10MiB is more than `rabbitmq.message_bytes_max` (1MiB)",
            "http.body_timeout: expected a duration such as \"10s\", \"200ms\" or \"7d\", found a number (a.toml:4)",
            "http.listen: expected an IP address and a port such as \"0.0.0.0:8080\" or \"[::]:8080\" (a.toml:5)",
            "http.listn: unknown key; did you mean `http.listen`? (a.toml:2)",
            "http.sessions_max: expected a whole number, found a string (a.toml:3)",
            "journal.dri: unknown key; did you mean `journal.dir`? (DESKBRIDGE__JOURNAL__DRI)",
            "queues[0].keys: no binding key, so nothing would reach the queue; for example [\"chat-session.#\"] (a.toml:15)",
            "queues[0].ttl: expected a duration such as \"10s\", \"200ms\" or \"7d\" (a.toml:17)",
            "rabbitmq.in_flight_max: expected a whole number, found a negative number (a.toml:14)",
            "rabbitmq.topology: expected \"declare\" or \"verify\" (a.toml:12)",
            "retry.attempts_max: expected a whole number (DESKBRIDGE__RETRY__ATTEMPTS_MAX)",
            "sources.dd.secret: unknown key; did you mean `sources.dd.secrets`? (a.toml:7)",
            "sources.none: signatures are required and there is no secret; set `secrets` or `secret_files` to the webhook's secret, or `signature = \"none\"` to let anybody post (a.toml:10)",
            "sources.short.secrets: secret number 1 has 9 bytes; at least 16 are needed (a.toml:9)",
        ]
    );
}

#[test]
fn quoted_key_is_not_read_as_a_path() {
    let world = file(
        "\"queues[99999999]\" = {name = \"a\"}\n\"http.listen\" = \"0.0.0.0:80\"\n[sources.dd]\n",
    );
    let advice = "a key in quotes that contains `.` or `[`; \
                  write the section as `[http]` or `[[queues]]` and its keys below it";
    let expected = [2, 1].map(|line| format!("a.toml:{line}: {advice}"));
    assert_eq!(world.findings(), expected);
}

#[test]
fn list_is_refused_where_a_table_is_expected() {
    let world = file(&format!("http = []\n{SOURCE}"));
    assert_eq!(
        world.findings(),
        ["http: expected a table, found a list (a.toml:1)"]
    );
}

#[test]
fn non_utf8_is_refused_only_in_own_variables() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = OsString::from_vec(vec![0xff]);
    let mut world = file(SOURCE);
    let environment = &mut world.layers.environment;
    environment.push(("OTHER".into(), bytes.clone()));
    world.load();
    let environment = &mut world.layers.environment;
    environment.push(("DESKBRIDGE__HTTP__LISTEN".into(), bytes));
    assert_eq!(
        world.findings(),
        ["DESKBRIDGE__HTTP__LISTEN: the value is not UTF-8"]
    );
}

#[test]
fn secrets_are_read_from_files() {
    let mut world = World::default();
    for (name, content) in [
        ("one", format!("{SECRET}\n")),
        ("two", format!("{SECRET}2\r\n")),
        ("three", format!("{SECRET}3\n\n")),
    ] {
        fs::write(world.path(name), content).unwrap();
    }
    fs::write(
        world.path("urls"),
        "amqp://u:p@one\namqp://u:p@two,amqp://u:p@three\n",
    )
    .unwrap();
    let files = ["one", "two", "three"]
        .map(|name| world.path(name).display().to_string())
        .join(",");
    let url_file = world.path("urls").display().to_string();
    let world = world
        .variable("DESKBRIDGE__SOURCES__DD__SECRET_FILES", &files)
        .set("rabbitmq.url_file", &url_file);
    let config = world.load().config;
    let secrets = exposed(&config.sources["dd"].secrets);
    let [two, three] = ["2", "3"].map(|more| format!("{SECRET}{more}"));
    assert_eq!(secrets, [SECRET, &two, &three]);
    let urls = exposed(&config.rabbitmq.urls);
    let expected = ["amqp://u:p@one", "amqp://u:p@two", "amqp://u:p@three"];
    assert_eq!(urls, expected);
}

#[test]
fn unusable_secret_file_says_what_to_do() {
    let mut world = World::default();
    fs::write(world.path("empty"), "\n").unwrap();
    fs::create_dir(world.path("dir")).unwrap();
    let files = ["absent", "empty", "dir"].map(|name| world.path(name).display().to_string());
    let world = world.variable("DESKBRIDGE__SOURCES__DD__SECRET_FILES", &files.join(","));
    let origin = "put the secret of the webhook into it (DESKBRIDGE__SOURCES__DD__SECRET_FILES)";
    assert_eq!(
        world.findings(),
        [
            format!("sources.dd.secret_files[0]: the file `absent` is missing; {origin}"),
            format!("sources.dd.secret_files[1]: the file `empty` is empty; {origin}"),
            format!("sources.dd.secret_files[2]: `dir` is a directory, not a file; {origin}"),
        ]
    );
}

#[test]
fn source_may_await_its_secret() {
    let source = |more: &str| {
        let mut world = World::default();
        let path = world.path("absent");
        let dir = path.parent().unwrap().display().to_string() + "/";
        let text = format!("[sources.dd]\nsecret_files = [{path:?}]\nawait_secret = true\n{more}");
        (world.file("a.toml", &text), dir)
    };
    let (world, dir) = source("");
    let loaded = world.load();
    let missing_secrets: Vec<_> = loaded
        .missing_secrets
        .iter()
        .map(|finding| finding.to_string().replace(&dir, ""))
        .collect();
    assert_eq!(
        missing_secrets,
        [
            "sources.dd.secret_files[0]: the file `absent` is missing; put the secret of the webhook into it (a.toml:2)"
        ]
    );
    assert!(loaded.config.sources["dd"].secrets.is_empty());
    let (world, _) = source("secrets = [\"0123456789abcdef\"]");
    assert_eq!(world.load().missing_secrets, []);
}

#[test]
fn awaiting_one_of_two_files_is_one_line() {
    let mut world = World::default();
    let paths = [world.path("first"), world.path("second")];
    let text = format!("[sources.dd]\nsecret_files = {paths:?}\nawait_secret = true\n");
    let world = world.file("a.toml", &text);
    assert_eq!(world.load().missing_secrets.len(), 1);
    fs::write(&paths[1], "0123456789abcdef").unwrap();
    let loaded = world.load();
    assert_eq!(loaded.missing_secrets, []);
    assert_eq!(loaded.config.sources["dd"].secrets.len(), 1);
}

#[test]
fn higher_layer_of_urls_and_url_file_wins() {
    let urls = |loaded: Loaded| loaded.config.rabbitmq.urls[0].expose().to_owned();
    let mut world = World::default();
    fs::write(world.path("url"), "amqp://file\n").unwrap();
    let path = world.path("url").display().to_string();
    let in_file = format!("{SOURCE}[rabbitmq]\nurl_file = {path:?}\n");
    assert_eq!(urls(file(&in_file).load()), "amqp://file");
    let stronger = file(&in_file).variable("DESKBRIDGE__RABBITMQ__URLS", "amqp://environment");
    assert_eq!(urls(stronger.load()), "amqp://environment");
    let weaker = file(&format!("{SOURCE}[rabbitmq]\nurls = [\"amqp://weaker\"]"));
    assert_eq!(
        urls(
            weaker
                .variable("DESKBRIDGE__RABBITMQ__URL_FILE", &path)
                .load()
        ),
        "amqp://file"
    );
    let both = file(&(in_file + "urls = [\"amqp://h\"]"));
    assert_eq!(
        both.findings(),
        ["rabbitmq.url_file: `urls` is set too; set only one of the two (a.toml:4)"]
    );
}

#[test]
fn syntax_error_shows_place_but_no_value() {
    let check = |text: &str, expected: &str| {
        let findings = file(text).findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("a.toml:"), "{findings:?}");
        assert!(findings[0].ends_with(expected), "{findings:?} {expected}");
        assert!(!findings[0].contains("topsecret"), "{findings:?}");
    };
    check("[http]\nlisten = here\n", "`listen = …`");
    check("[http\nsessions_max = 1\n", "`[http`");
    check("[sources.dd]\nsecrets = [\"topsecret\n", "`secrets = …`");
    check(
        "[sources.dd]\nsecrets = [\n\"a\",\n\"topsecret\n]",
        "the line is not shown, because it could contain a secret",
    );
    check("sources.dd = { secrets = topsecret }", "`sources.dd = …`");
    check("[rabbitmq]\nurls = amqp://u:topsecret@h", "`urls = …`");
    check(
        "[rabbitmq]\nurls = [\n  amqp://u:topsecret@h\n]",
        "the line is not shown, because it could contain a secret",
    );
    check("[sources.dd\n", "`[sources.dd`");
    let findings = file("[http]\nlisten = \"a\"\nlisten = \"b\"\n").findings();
    assert_eq!(findings, ["a.toml:3:1: duplicate key: `listen = …`"]);
    let findings = World::default()
        .file("b.toml", "")
        .findings_of_missing("c.toml");
    assert_eq!(
        findings,
        ["c.toml: cannot read the file: No such file or directory (os error 2)"]
    );
}

#[test]
fn findings_show_no_secret() {
    let world = file(
        "sources = \"topsecret\"\n[rabbitmq]\nurls = \"amqp://u:topsecret@h\"\nmanagement_url = \"topsecret\"\npassword = \"topsecret\"",
    )
    .variable("DESKBRIDGE__SOURCE__DD__SECRETS", "topsecret")
    .file("b.toml", "[sources.a]\nsecrets = \"topsecret\"\nsignature = \"topsecret\"\n[sources.b]\nsecrets = [[\"topsecret\"]]\ntopsecrt = 1")
    .set("sources.c.secrets", "topsecret");
    let findings = world.findings();
    assert!(findings.len() > 6, "{findings:#?}");
    assert!(!findings.join("\n").contains("topsecret"), "{findings:#?}");
    let loaded = World::default()
        .set("sources.c.secrets", "topsecret-topsecret")
        .set("rabbitmq.urls", "amqp://u:topsecret@h")
        .load();
    let shown = format!("{loaded:?}{loaded:#?}");
    assert!(!shown.contains("topsecret"), "{shown}");
    let written = toml::to_string(&loaded.config).unwrap();
    assert!(!written.contains("topsecret"), "{written}");
    assert!(written.contains("amqp://***@h"), "{written}");
}

#[test]
fn findings_of_a_key_exclude_consequences() {
    let world = file(
        "[sources.dd]\nsecrets = [\"short\", \"0123456789abcdef\", \"short2\"]\n\
         [sources.typo]\nsecret = \"0123456789abcdef\"\n[sources.absent]\nsecret_files = [\"/nowhere\"]",
    );
    let keys: Vec<_> = world
        .findings()
        .iter()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    let expected = [
        "sources.absent.secret_files[0]",
        "sources.dd.secrets",
        "sources.dd.secrets",
        "sources.typo.secret",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn journal_path_is_relative_to_its_file() {
    let named = format!("{SOURCE}[journal]\ndir = \"data/journal\"\n");
    let mut world = World::default().file("a.toml", &named);
    let expected = world.path("data/journal");
    let dir = |world: &World| {
        Config::load(&world.layers, |_| Vec::new())
            .unwrap()
            .config
            .journal
            .dir
    };
    assert_eq!(dir(&world), expected);
    assert_eq!(Config::peek(&world.layers).unwrap().journal.dir, expected);
    let world = world.file("b.toml", "[journal]\nretention = \"1h\"\n");
    assert_eq!(dir(&world), expected, "a later file names another key");
    let world = world.variable("DESKBRIDGE__JOURNAL__DIR", "here");
    assert_eq!(dir(&world), PathBuf::from("here"));
    let absolute = World::default().file(
        "a.toml",
        &format!("{SOURCE}[journal]\ndir = \"/var/lib/x\"\n"),
    );
    assert_eq!(dir(&absolute), PathBuf::from("/var/lib/x"));
    let default = World::default().file("a.toml", SOURCE);
    assert_eq!(dir(&default), PathBuf::from("data/journal"));
}

#[test]
fn variables_match_sections_in_any_case() {
    let config = file("[sources.DeskDirector]\nsecrets = [\"0123456789abcdef\"]\n[routing.statuses.Missed]\nexchange = \"a\"")
        .variable("DESKBRIDGE__SOURCES__DESKDIRECTOR__SECRETS", "fedcba9876543210")
        .variable("deskbridge__routing__statuses__missed__routing_key", "k")
        .variable("DeskBridge__Http__Sessions_Max", "7")
        .set("sources.deskdirector.signature", "none")
        .load()
        .config;
    assert_eq!(config.sources.len(), 1);
    let source = &config.sources["DeskDirector"];
    assert_eq!(source.secrets[0].expose(), "fedcba9876543210");
    assert!(!source.is_signed());
    let missed = &config.routing.statuses["Missed"];
    assert_eq!(missed.exchange.as_deref(), Some("a"));
    assert_eq!(missed.routing_key.as_deref(), Some("k"));
    assert_eq!(config.http.sessions_max, 7);
}

#[test]
fn lists_of_tables_are_set_by_index() {
    let world = file(&format!(
        "{SOURCE}[[queues]]\nname = \"a\"\nkeys = [\"#\"]\n"
    ))
    .variable("DESKBRIDGE__QUEUES__0__MESSAGES_MAX", "5")
    .variable("DESKBRIDGE__QUEUES__1__NAME", "b")
    .variable("DESKBRIDGE__QUEUES__1__KEYS", "x.#,y")
    .variable("DESKBRIDGE__RABBITMQ__URLS__0", "amqp://u:a,b@h")
    .set("queues[1].delivery_limit", "3")
    .set("queues.2.name", "c")
    .set("queues.2.keys", "#");
    let config = world.load().config;
    let names: Vec<_> = config
        .queues
        .iter()
        .map(|queue| queue.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(config.queues[0].messages_max, Some(5));
    assert_eq!(config.queues[0].keys, ["#"]);
    assert_eq!(config.queues[1].keys, ["x.#", "y"]);
    assert_eq!(config.queues[1].delivery_limit, 3);
    assert_eq!(config.rabbitmq.urls[0].expose(), "amqp://u:a,b@h");
    let gap = file(SOURCE).variable("DESKBRIDGE__QUEUES__1__NAME", "b");
    assert_eq!(
        gap.findings(),
        ["queues: there is no element 1; the next one is number 0 (DESKBRIDGE__QUEUES__1)"]
    );
}

#[test]
fn wrong_elements_and_numbers_are_found_in_place() {
    let world = file(&format!(
        "{SOURCE}[retry]\nattempts_max = 5000000000\n[http]\nsessions_max = 99999999999999999999\n\
         [[queues]]\nname = \"a\"\nkeys = [\n1,\n\"#\",\n[2]]\n"
    ))
    .variable("DESKBRIDGE__QUEUES__0__BYTES_MAX", "all")
    .set("rabbitmq.urls", "amqp://h,http://h");
    assert_eq!(
        world.findings(),
        [
            "http.sessions_max: the number is too large (a.toml:6)",
            "queues[0].bytes_max: expected a size such as \"64MiB\", \"16MB\" or a number of bytes (DESKBRIDGE__QUEUES__0__BYTES_MAX)",
            "queues[0].keys[0]: expected a string, found a number (a.toml:10)",
            "queues[0].keys[2]: expected a string, found a list (a.toml:12)",
            "rabbitmq.urls[1]: a broker URL must look like `amqp://user:password@host:5672/%2f` (or `amqps://…`) (--set rabbitmq.urls)",
            "retry.attempts_max: the number is too large (a.toml:4)",
        ]
    );
    let long = (0..12).rev().fold(file(SOURCE), |world, index| {
        world
            .set(&format!("queues[{index}].name"), &format!("q{index}"))
            .set(&format!("queues.{index}.keys"), "#")
    });
    assert_eq!(long.load().config.queues.len(), 12);
}

#[test]
fn ambiguous_settings_are_findings() {
    let two = file(
        "[sources.DD]\nsecrets = [\"0123456789abcdef\"]\n[sources.dd]\nsecrets = [\"0123456789abcdef\"]",
    );
    assert_eq!(
        two.findings(),
        ["sources.dd: differs from `sources.DD` only in case; choose one name (a.toml:3)"]
    );
    let twice = file(SOURCE)
        .variable("DESKBRIDGE__HTTP__SESSIONS_MAX", "1")
        .variable("deskbridge__http__sessions_max", "2");
    assert_eq!(
        twice.findings(),
        [
            "http.sessions_max: is also set by DESKBRIDGE__HTTP__SESSIONS_MAX; set it once (deskbridge__http__sessions_max)"
        ]
    );
    let both = file(SOURCE)
        .variable("DESKBRIDGE__QUEUES", "a")
        .variable("DESKBRIDGE__QUEUES__0__NAME", "b");
    assert_eq!(both.findings().len(), 1, "{:?}", both.findings());
    let missed = file(SOURCE).variable("DESKBRIDGE_HTTP__LISTEN", "127.0.0.1:1");
    assert_eq!(
        missed.findings(),
        [
            "DESKBRIDGE_HTTP__LISTEN: is unknown: the parts of a key are separated by two underscores, `DESKBRIDGE__HTTP__LISTEN`"
        ]
    );
}

#[test]
fn invalid_url_is_a_finding_with_place() {
    let bad = "amqp://u/topsecret@h";
    let mut world = World::default();
    fs::write(world.path("urls"), format!("amqp://good\n{bad}")).unwrap();
    let url_file = world.path("urls").display().to_string();
    let hint = "a special character in user, password or vhost is not encoded: write `/` as %2F, \
                `@` as %40, `#` as %23, `%` as %25, `?` as %3F, a space as %20";
    let by_file = world.file(
        "a.toml",
        &format!("{SOURCE}[rabbitmq]\nurl_file = {url_file:?}"),
    );
    assert_eq!(
        by_file.findings(),
        [format!(
            "rabbitmq.url_file: the file `urls`: URL number 2: {hint} (a.toml:4)"
        )]
    );
    let written = file(&format!(
        "{SOURCE}[rabbitmq]\nurls = [\n\"amqp://h\",\n\"{bad}\"]"
    ));
    assert_eq!(
        written.findings(),
        [format!("rabbitmq.urls[1]: {hint} (a.toml:6)")]
    );
    // A command that needs the broker never connects to a different one.
    assert!(Config::peek(&by_file.layers).unwrap().rabbitmq.urls[1].expose() == bad);
    let absent = World::default().set("rabbitmq.url_file", "/nowhere/x");
    assert_eq!(Config::peek(&absent.layers).unwrap().rabbitmq.urls, []);
}
