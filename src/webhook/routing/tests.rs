use super::template::Template;
use super::*;
use crate::config::Config;
use crate::settings;
use crate::webhook::samples;

/// Reads a `[routing]` section.
fn configured(section: &str) -> Result<Routing, Vec<TemplateError>> {
    settings::routing(&Config {
        routing: toml::from_str(section).unwrap(),
        ..Config::default()
    })
}

fn routing(section: &str) -> Routing {
    configured(section).unwrap()
}

fn session(members: &str) -> Event {
    samples::event(format!(r#"{{"id":"1-1",{members}}}"#))
}

fn address(route: &Route) -> String {
    format!("{} {}", route.exchange, route.routing_key)
}

fn check(routing: &Routing, event: &Event, expected: &str) {
    assert_eq!(
        address(&routing.route(event)),
        expected,
        "{:?}",
        event.content
    );
}

#[test]
fn default_routing_uses_the_status_as_key() {
    let routing = routing("");
    for status in STATUSES {
        let event = session(&format!(r#""status":"{status}""#));
        check(
            &routing,
            &event,
            &format!("chat-sessions chat-session.{status}"),
        );
        assert_eq!(routing.routed_status(&event), status);
    }
    assert_eq!(
        routing.exchanges().map(|name| &**name).collect::<Vec<_>>(),
        ["chat-sessions"]
    );
}

#[test]
fn every_other_status_is_unknown() {
    let routing = routing("");
    for status in [
        "archived", "Created", "created ", "", "#", "unknown", "invalid", "\\ud800",
    ] {
        let event = session(&format!(r#""status":"{status}""#));
        check(&routing, &event, "chat-sessions chat-session.unknown");
        assert_eq!(routing.routed_status(&event), "unknown");
    }
}

#[test]
fn status_section_inherits_from_the_default() {
    let routing = routing(
        r#"
        exchange = "chats"
        [statuses.missed]
        exchange = "alarms"
        routing_key = "{company}.{status}"
        [statuses.archived]
        routing_key = "old"
        [statuses.Created]
        exchange = "loud"
        [statuses.unknown]
        exchange = "odd"
        "#,
    );
    let creator = r#""creator":{"company":{"identifier":"Acme"}}"#;
    for (status, expected, known_as) in [
        ("missed", "alarms Acme.missed", "missed"),
        ("archived", "chats old", "archived"),
        ("Created", "loud chat-session.Created", "Created"),
        ("created", "chats chat-session.created", "created"),
        ("merged", "odd chat-session.unknown", "unknown"),
    ] {
        let event = session(&format!(r#""status":"{status}",{creator}"#));
        check(&routing, &event, expected);
        assert_eq!(routing.routed_status(&event), known_as);
    }
    let exchanges: Vec<_> = routing.exchanges().map(|name| &**name).collect();
    assert_eq!(exchanges, ["alarms", "chats", "loud", "odd"]);
}

#[test]
fn default_exchange_is_always_declared() {
    let statuses = STATUSES.into_iter().chain([UNKNOWN]);
    let sections: Vec<_> = statuses
        .map(|status| format!("[statuses.{status}]\nexchange = \"own\""))
        .collect();
    let routing = routing(&sections.join("\n"));
    let exchanges: Vec<_> = routing.exchanges().map(|name| &**name).collect();
    assert_eq!(exchanges, ["chat-sessions", "own"]);
}

#[test]
fn key_is_built_from_event_fields() {
    let routing =
        routing(r#"routing_key = "a.{source}.{type}.{previous_status}.{company}.{status}.z""#);
    let all = r#""status":"handled","type":"push","pastStatus":["missed","created"],
        "creator":{"company":{"identifier":"A-1_b"}}"#;
    check(
        &routing,
        &session(all),
        "chat-sessions a.acme.push.created.A-1_b.handled.z",
    );
    let none = r#""status":"x","type":1,"pastStatus":[],"creator":{"company":"A"}"#;
    check(
        &routing,
        &session(none),
        "chat-sessions a.acme.none.none.none.unknown.z",
    );
    let odd = r#""status":"handled","type":"a.b#*","pastStatus":["日本"],
        "creator":{"company":{"identifier":"\ud800 \u0000é{type}"}}"#;
    check(
        &routing,
        &session(odd),
        "chat-sessions a.acme.a_b__.__._____type_.handled.z",
    );
}

#[test]
fn key_is_cut_to_255_bytes_at_a_character() {
    let long = "c".repeat(100_000);
    let event = session(&format!(
        r#""status":"created","creator":{{"company":{{"identifier":"{long}"}}}}"#
    ));
    let key = routing(r#"routing_key = "k.{company}.{status}""#).route(&event);
    assert_eq!(*key.routing_key, format!("k.{}", &long[..253]));
    let text = format!(r#"routing_key = "{}{{status}}""#, "é".repeat(128));
    let key = routing(&text).route(&event);
    assert_eq!(*key.routing_key, "é".repeat(127));
}

#[test]
fn configured_status_cannot_add_words_to_a_key() {
    let routing = routing("[statuses.\"on.hold #\"]\nrouting_key = \"s.{status}\"");
    let event = session(r#""status":"on.hold #""#);
    check(&routing, &event, "chat-sessions s.on_hold__");
    assert_eq!(routing.routed_status(&event), "on.hold #");
}

#[test]
fn reject_is_routed_by_its_reason() {
    let routing = routing(r#"routing_key = "{source}.{company}.{status}""#);
    for (body, reason) in [("[{}]", "invalid"), ("[", "malformed")] {
        let event = samples::event(body);
        check(
            &routing,
            &event,
            &format!("chat-sessions.dead-letter {reason}"),
        );
        assert_eq!(routing.routed_status(&event), reason);
        let original = routing.original_route(&event);
        assert_eq!(address(&original), "chat-sessions acme.none.unknown");
    }
}

#[test]
fn dead_letter_keeps_its_original_route() {
    let routing = routing("[statuses.missed]\nexchange = \"alarms\"");
    let event = session(r#""status":"missed""#);
    assert_eq!(routing.original_route(&event), routing.route(&event));
    for reason in DeadLetterReason::ALL {
        let route = routing.dead_letter_route(reason);
        assert_eq!(
            address(&route),
            format!("chat-sessions.dead-letter {}", reason.as_str())
        );
    }
}

#[test]
fn sessions_of_one_status_share_their_route() {
    let routing = routing("");
    let [one, other] = [r#""status":"missed""#, r#""status":"missed","type":"push""#]
        .map(|members| routing.route(&session(members)));
    assert!(Arc::ptr_eq(&one, &other));
}

#[test]
fn invalid_template_is_named_with_a_suggestion() {
    let errors = configured(
        r#"
        routing_key = "chat.{state}"
        [statuses.archived]
        routing_key = "{status"
        [statuses.missed]
        routing_key = "{Status}"
        [statuses.unknown]
        routing_key = "}"
        [statuses.created]
        exchange = "inherits the wrong default, which is one error"
        "#,
    );
    let texts: Vec<_> = errors
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    let placeholders = "`{status}` `{source}` `{type}` `{previous_status}` `{company}`";
    let unbalanced = format!("unbalanced brace; placeholders are written as {placeholders}");
    assert_eq!(
        texts,
        [
            format!(
                "`routing.routing_key`: unknown placeholder `{{state}}`; use one of {placeholders}"
            ),
            format!("`routing.statuses.unknown.routing_key`: {unbalanced}"),
            format!("`routing.statuses.archived.routing_key`: {unbalanced}"),
            // Text that cannot be a placeholder is not repeated: it could be a secret.
            format!(
                "`routing.statuses.missed.routing_key`: unknown placeholder; use one of {placeholders}"
            ),
        ]
    );
}

#[test]
fn braces_must_be_paired() {
    let unbalanced = [
        "{",
        "}",
        "}{",
        "{status}}",
        "{{status}",
        "{{status}}",
        "a{status",
        "a}",
    ];
    for template in unbalanced {
        let problem = Template::parse(template).unwrap_err();
        assert_eq!(problem, TemplateProblem::UnbalancedBrace, "{template}");
    }
    for template in [
        "{}",
        "{ status}",
        "{status }",
        "{statuses}",
        "{previous-status}",
    ] {
        let problem = Template::parse(template).unwrap_err();
        let name = template[1..template.len() - 1].to_owned();
        assert_eq!(
            problem,
            TemplateProblem::UnknownPlaceholder(name),
            "{template}"
        );
    }
    for template in ["", "plain", "{status}", "{status}{type}", ".{source}."] {
        assert!(Template::parse(template).is_ok(), "{template}");
    }
}

/// The fingerprint is stored: if it changed, the next start would route every pending event again.
#[test]
fn fingerprint_depends_only_on_the_routes() {
    let default = routing("");
    assert_eq!(
        default.fingerprint(),
        "69c0374d3300c5d10ad48b21807578f137de200f41a82eca3064941c4cfe9779"
    );
    assert_eq!(default.fingerprint(), routing("").fingerprint());
    for other in [
        "exchange = 'other'",
        "routing_key = 'chat-session.{status}.{company}'",
        "[statuses.created]\nexchange = 'other'",
        "[statuses.archived]",
    ] {
        assert_ne!(
            default.fingerprint(),
            routing(other).fingerprint(),
            "{other}"
        );
    }
    let mut letters = Config::default();
    letters.dead_letter.exchange = "letters".into();
    let letters = settings::routing(&letters).unwrap();
    assert_ne!(default.fingerprint(), letters.fingerprint());
}
