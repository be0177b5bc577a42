use super::*;

#[track_caller]
fn check(url: &str, host: &str, port: u16, vhost: &str, shown: &str) {
    let read = BrokerUrl::parse(url).unwrap();
    assert_eq!(read.host(), host);
    assert_eq!(read.port(), port);
    assert_eq!(read.vhost(), vhost);
    assert_eq!(read.to_string(), shown);
    assert_eq!(format!("{read:?}"), shown);
}

#[test]
fn url_parts_are_parsed() {
    let r = "rabbit";
    check("amqp://rabbit", r, 5672, "/", "amqp://rabbit:5672/%2f");
    check("amqp://rabbit/", r, 5672, "/", "amqp://rabbit:5672/%2f");
    check("AMQP://u:p@rabbit:1/%2f", r, 1, "/", "amqp://rabbit:1/%2f");
    check("amqp://rabbit:/v", r, 5672, "v", "amqp://rabbit:5672/v");
    check(
        "AmqpS://u:p%40ss@r/chat",
        "r",
        5671,
        "chat",
        "amqps://r:5671/chat",
    );
    check("amqp://[::1]", "::1", 5672, "/", "amqp://[::1]:5672/%2f");
    check(
        "amqp://u:p@[::1]:7/v?heartbeat=3",
        "::1",
        7,
        "v",
        "amqp://[::1]:7/v",
    );
    check(
        " amqp://127.0.0.1:5673\n",
        "127.0.0.1",
        5673,
        "/",
        "amqp://127.0.0.1:5673/%2f",
    );
    check("amqp://h?heartbeat=3", "h", 5672, "/", "amqp://h:5672/%2f");
    check(
        "amqp://h/a%2Fb%20c",
        "h",
        5672,
        "a/b c",
        "amqp://h:5672/a%2fb%20c",
    );
}

#[test]
fn credentials_stay_complete() {
    for (url, login) in [
        ("amqp://h", ("guest", "guest")),
        ("amqp://bridge@h", ("bridge", "")),
        ("amqp://bridge:s%3Acret@[fe80::1]/v", ("bridge", "s:cret")),
        ("amqp://bridge:p%2F%40%23%25%3F@h", ("bridge", "p/@#%?")),
        ("amqp://bridge:a:b@h", ("bridge", "a:b")),
        ("amqp://bridge:a@b@h", ("bridge", "a@b")),
        ("amqp://bridge:pässe@h", ("bridge", "pässe")),
    ] {
        assert_eq!(BrokerUrl::parse(url).unwrap().credentials(), login, "{url}");
    }
}

#[test]
fn unencoded_characters_are_refused() {
    for url in [
        "amqp://bridge:12345/hunter2@host/%2f",
        "amqp://bridge:/hunter2@host",
        "amqp://user/hunter2@host",
        "amqp://u:pw?hunter2@host",
        "amqp://u:pw#hunter2@host",
        "amqp://u:1#hunter2@host",
        "amqp://u:hunter2%@host",
        "amqp://u:hunter2%zz@host",
        "amqp://u:hunter2\\@host/x",
        "amqp://u:hunter 2@host",
        "amqp://u:hunter\t2@host",
        "amqp://u:hunter2%00@host",
        "amqp://u:p@host/hunter2@x",
        "amqp://u:p@host/a/b",
        "amqp://u:p@host?x=@hunter2",
    ] {
        assert_eq!(BrokerUrl::parse(url), Err(UrlError::Unencoded), "{url}");
    }
}

#[test]
fn invalid_url_is_refused_without_quoting_it() {
    for (url, expected) in [
        ("", UrlError::Form),
        ("rabbit:5672", UrlError::Form),
        ("http://u:hunter2@h", UrlError::Form),
        ("amqp:u:hunter2@h", UrlError::Form),
        ("amqp://u:hunter2", UrlError::Form),
        ("amqp://h:0", UrlError::Form),
        ("amqp://h:70000", UrlError::Form),
        ("amqp://h/..", UrlError::Form),
        ("amqp://", UrlError::Host),
        ("amqp://u:hunter2@", UrlError::Host),
        ("amqp://u:hunter2@:5672", UrlError::Host),
        ("amqp://[::1", UrlError::Host),
        ("amqp://[localhost]", UrlError::Host),
        ("amqp://hunter2%40h", UrlError::Host),
    ] {
        assert_eq!(BrokerUrl::parse(url), Err(expected), "{url}");
        assert!(!expected.to_string().contains("hunter2"), "{expected}");
    }
}

#[test]
fn parameters_are_applied_or_refused_by_name() {
    let read = |query: &str| BrokerUrl::parse(&format!("amqps://h/v?{query}"));
    let url = read("heartbeat=3&connection_timeout=1500&frame_max=9000&auth_mechanism=EXTERNAL&verify=verify_peer").unwrap();
    let expected = Parameters {
        heartbeat: Some(Duration::from_secs(3)),
        connection_timeout: Some(Duration::from_millis(1500)),
        frame_max: Some(9000),
        auth_mechanism: Some("external"),
    };
    assert_eq!(url.parameters(), &expected);
    let kept = url.with_heartbeat(Duration::from_secs(10));
    assert_eq!(kept.parameters().heartbeat, expected.heartbeat);
    for query in [
        "heartbeat=0",
        "heartbeat=hunter2",
        "connection_timeout=",
        "frame_max=-1",
        "auth_mechanism=hunter2",
        "verify=verify_none",
        "cacertfile=/hunter2",
        "password=hunter2",
    ] {
        let name = query.split('=').next().unwrap();
        let error = read(query).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{query}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for query in ["hunter2=1", "heartbeat=1&heartbeat=2", "Heartbeat=1"] {
        assert_eq!(read(query), Err(UrlError::UnknownParameter), "{query}");
    }
}

#[test]
fn url_is_masked_as_it_was_written() {
    for (url, shown) in [
        ("amqp://user:pass@host:5672/%2f", "amqp://***@host:5672/%2f"),
        (
            "AMQPS://user:p@ss@host/vhost?heartbeat=1",
            "amqps://***@host/vhost",
        ),
        ("amqp://[::1]:5672", "amqp://[::1]:5672"),
        ("amqp://localhost", "amqp://localhost"),
        ("amqp://user:p/a:ss@host", "***"),
        ("amqp://user:password", "***"),
        ("0123456789abcdef", "***"),
    ] {
        assert_eq!(masked(&Secret::new(url)), shown, "{url}");
    }
}

proptest::proptest! {
    /// Any characters in a password, at any position: it is read whole or refused, never shown.
    #[test]
    fn password_is_complete_or_refused(
        parts in proptest::collection::vec("[A-Z][a-z0-9]{6}7", 1..4),
        between in "[/@#%?:\\[\\]\\\\ &=+.,;ä\n]{0,3}",
        before in "(amqp|AMQPS|amqps|http|)(://|:|//|)(user|u%40|)(:|:1|/|)",
        behind in "(@host|@[::1]:1|:5672|@h:1/v|@h/%2f|)(\\?heartbeat=1|\\?x=1|#x|)",
    ) {
        let password = parts.join(&between);
        let text = format!("{before}{password}{behind}");
        let is_named = before.contains(':') && behind.starts_with('@');
        let shown = match BrokerUrl::parse(&text) {
            Ok(url) if is_named && url.credentials().1.contains(&parts[0]) => {
                let whole = url_text::decoded(&password).unwrap_or_default();
                proptest::prop_assert!(url.credentials().1.ends_with(&whole), "{}", text);
                format!("{url} {url:?}")
            }
            // The text contains no password.
            Ok(_) => String::new(),
            Err(error) => format!("{error} {error:?} {}", masked(&Secret::new(text.as_str()))),
        };
        for part in &parts {
            proptest::prop_assert!(!shown.contains(part), "{} of {}", shown, text);
        }
    }
}
