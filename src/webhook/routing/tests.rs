use super::template::Template;
use super::*;
use crate::webhook::samples;

/// Reads a `[routing]` section.
fn configured(section: &str) -> Result<Routing, Vec<TemplateError>> {
    let section = toml::from_str(section).unwrap();
    Routing::new(&section, &config::DeadLetter::default())
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
fn by_default_a_session_goes_to_one_exchange_with_its_status_as_key() {
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
fn a_status_with_a_section_is_known_and_takes_from_the_default_what_it_does_not_say() {
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
fn the_default_exchange_is_declared_even_if_every_status_has_its_own() {
    let statuses = STATUSES.into_iter().chain([UNKNOWN]);
    let sections: Vec<_> = statuses
        .map(|status| format!("[statuses.{status}]\nexchange = \"own\""))
        .collect();
    let routing = routing(&sections.join("\n"));
    let exchanges: Vec<_> = routing.exchanges().map(|name| &**name).collect();
    assert_eq!(exchanges, ["chat-sessions", "own"]);
}

#[test]
fn a_key_is_made_of_the_fields_of_the_event() {
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
fn a_key_has_at_most_255_bytes_and_ends_with_a_whole_character() {
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
fn the_name_of_a_configured_status_cannot_add_words_to_a_key() {
    let routing = routing("[statuses.\"on.hold #\"]\nrouting_key = \"s.{status}\"");
    let event = session(r#""status":"on.hold #""#);
    check(&routing, &event, "chat-sessions s.on_hold__");
    assert_eq!(routing.routed_status(&event), "on.hold #");
}

#[test]
fn a_reject_goes_to_the_dead_letter_exchange_with_its_reason_as_key() {
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
fn a_dead_letter_remembers_where_its_session_would_have_gone() {
    let routing = routing("[statuses.missed]\nexchange = \"alarms\"");
    let event = session(r#""status":"missed""#);
    assert_eq!(routing.original_route(&event), routing.route(&event));
    for reason in Reason::ALL {
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
fn every_template_that_cannot_be_read_is_named_with_what_it_could_have_been() {
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
    let placeholders = "`{status}` `{type}` `{source}` `{previous_status}` `{company}`";
    let unbalanced = format!("a brace that is not one of a pair, as in {placeholders}");
    assert_eq!(
        texts,
        [
            format!(
                "`routing.routing_key`: unknown placeholder `{{state}}`, there are {placeholders}"
            ),
            format!("`routing.statuses.unknown.routing_key`: {unbalanced}"),
            format!("`routing.statuses.archived.routing_key`: {unbalanced}"),
            // A name that could not be one is not repeated: any value could be a secret.
            format!(
                "`routing.statuses.missed.routing_key`: unknown placeholder, there are {placeholders}"
            ),
        ]
    );
}

#[test]
fn braces_come_in_pairs() {
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
