use std::fs;

use super::*;

#[track_caller]
fn read_from(bytes: &[u8]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, bytes).unwrap();
    match read_secret(&path) {
        Ok(secret) => Ok(secret.expose().to_owned()),
        Err(unread) => Err(unread.to_string()),
    }
}

const SECRET: &str = "hunter2-hunter2-hunter2";

#[test]
fn byte_order_mark_and_white_space_are_trimmed() {
    for text in [
        format!("\u{feff}{SECRET}\r\n"),
        format!("  {SECRET}\n\n"),
        format!("\t{SECRET} \t"),
        SECRET.to_owned(),
    ] {
        assert_eq!(
            read_from(text.as_bytes()),
            Ok(SECRET.to_owned()),
            "{text:?}"
        );
    }
}

#[test]
fn mistakes_are_named_and_not_shown() {
    let utf16: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&[0xff, 0xfe], &utf16[..]].concat();
    for (bytes, expected) in [
        (utf16, "NUL bytes"),
        (marked, "is not text in UTF-8"),
        (
            format!("{SECRET}\n{SECRET}\n").into_bytes(),
            "several lines",
        ),
        (format!("\"{SECRET}\"").into_bytes(), "quotes"),
        (format!("'{SECRET}").into_bytes(), "quotes"),
        (
            format!("{SECRET}\u{a0}x").into_bytes(),
            "beyond printable ASCII",
        ),
        (
            format!("\u{1b}[0m{SECRET}").into_bytes(),
            "beyond printable ASCII",
        ),
        (format!("SECRET={SECRET}").into_bytes(), "`NAME=secret`"),
        (
            format!("export DD_SECRET = {SECRET}").into_bytes(),
            "`NAME=secret`",
        ),
        (format!("dd_secret={SECRET}").into_bytes(), "`NAME=secret`"),
        (
            format!("DESK_DIRECTOR={SECRET}").into_bytes(),
            "`NAME=secret`",
        ),
        (format!("sha256={SECRET}").into_bytes(), "`NAME=secret`"),
        (format!("secret: {SECRET}").into_bytes(), "blanks"),
        (format!("{SECRET} {SECRET}").into_bytes(), "blanks"),
        (format!("`{SECRET}`").into_bytes(), "quotes"),
        (format!("<{SECRET}>").into_bytes(), "`<`"),
        (format!("{SECRET}\\n").into_bytes(), "`\\`"),
        (b"hunter2".to_vec(), "has 7 bytes"),
    ] {
        let problem = read_from(&bytes).expect_err(expected);
        assert!(problem.contains(expected), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn plausible_secrets_are_accepted() {
    for secret in [
        "aHVudGVyMmh1bnRlcjJodW50ZXIyCg==",
        "SECRETSECRETSECRETSECRET=",
        "x9=hunter2hunter2hunter2",
        "!#$%&()*+,-./:;=?@[]^_{|}~",
    ] {
        assert_eq!(read_from(secret.as_bytes()), Ok(secret.to_owned()));
    }
}

#[test]
fn credential_of_a_stopped_service_is_explained() {
    let path = "/run/credentials/deskbridge.service/secret_absent";
    let unread = read_secret(Path::new(path)).unwrap_err().to_string();
    let file = "the file `/etc/deskbridge/secrets/absent`";
    assert_eq!(
        unread,
        format!("{file} can be read only while the service runs (`systemctl start deskbridge`)")
    );
}
