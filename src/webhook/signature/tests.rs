use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};

use super::*;

const SECRET: &str = "0123456789abcdef";
const BODY: &[u8] = b"[]";

/// HMAC-SHA256 of `BODY` with `SECRET`, computed elsewhere.
const HEX: &str = "2990879d155f29f7d8b33a79448dbd6810c05b6d35d8e73158e57bdf4b394c4c";

fn digest() -> Vec<u8> {
    HEXLOWER.decode(HEX.as_bytes()).unwrap()
}

fn is_authentic(keys: &Keys, values: &[&str], body: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(body);
    let signature = keys.read(values);
    let verified = signature.and_then(|signature| keys.verify(&signature, body.clone()));
    verified.is_ok_and(|verified| verified.into_inner() == body)
}

fn check(values: &[&str], expected: bool) {
    assert_eq!(
        is_authentic(&Keys::new([SECRET]), values, BODY),
        expected,
        "{values:?}"
    );
}

#[test]
fn signature_is_prefixed_hex_or_base64() {
    let base64 = BASE64.encode(&digest());
    assert_eq!(base64, "KZCHnRVfKffYszp5RI29aBDAW2012OcxWOV730s5TEw=");
    check(&[&format!("sha256={HEX}")], true);
    check(&[&format!("SHA256={HEX}")], true);
    check(&[&format!("Sha256={}", HEXUPPER.encode(&digest()))], true);
    check(
        &[&format!(
            "sha256={}{}",
            &HEX[..32],
            HEX[32..].to_uppercase()
        )],
        true,
    );
    check(&[&format!("sha256={base64}")], true);
    check(&[&format!("sha256={}", base64.trim_end_matches('='))], true);
    assert_eq!(sign(SECRET.as_bytes(), BODY), format!("sha256={HEX}"));
}

#[test]
fn exactly_one_header_is_required() {
    let right = format!("sha256={HEX}");
    check(&[], false);
    check(&[&right, &right], false);
    check(&[&right, ""], false);
    check(&["", &right], false);
}

#[test]
fn undecodable_signature_is_invalid() {
    let base64 = BASE64.encode(&digest());
    let url_safe = BASE64URL.encode(&[0xff; 32]);
    let cases = [
        String::new(),
        "sha256=".into(),
        "sha256".into(),
        HEX.into(),
        format!("sha1={HEX}"),
        format!("sha512={HEX}"),
        format!("sha256:{HEX}"),
        format!("sha256= {HEX}"),
        format!("sha256={HEX} "),
        format!(" sha256={HEX}"),
        format!("sha256={HEX}0"),
        format!("sha256={HEX}00"),
        format!("sha256={}", &HEX[..63]),
        format!("sha256={}g", &HEX[..63]),
        format!("sha256={HEX},sha256={HEX}"),
        format!("sha256={base64}="),
        format!("sha256={}", base64.replace('=', "==")),
        format!("sha256={}", base64.replace("w=", "x=")),
        format!("sha256={}", base64.replace("w=", "x")),
        format!("sha256={}\n", &base64[..43]),
        format!("sha256={url_safe}"),
        "sha256=ü".into(),
        "sha25ü=".into(),
    ];
    for value in cases {
        assert!(Signature::parse([&value]).is_err(), "{value:?}");
        check(&[&value], false);
    }
    assert!(Signature::parse([b"sha256=\xff\xfe".as_slice()]).is_err());
}

#[test]
fn wrong_digest_is_invalid() {
    for bit in 0..256 {
        let mut digest = digest();
        digest[bit / 8] ^= 1 << (bit % 8);
        check(&[&format!("sha256={}", HEXLOWER.encode(&digest))], false);
    }
}

#[test]
fn any_change_of_the_body_is_detected() {
    let body = crate::webhook::samples::COMPLETED;
    let keys = Keys::new([SECRET]);
    let signature = sign(SECRET.as_bytes(), body);
    assert!(is_authentic(&keys, &[&signature], body));
    assert!(!is_authentic(&keys, &[&signature], &[body, b"\n"].concat()));
    assert!(!is_authentic(&keys, &[&signature], &body[..body.len() - 1]));
    assert!(!is_authentic(&keys, &[&signature], b""));
    for byte in 0..body.len() {
        let mut flipped = body.to_vec();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(!is_authentic(&keys, &[&signature], &flipped), "byte {byte}");
    }
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    let signature = sign(SECRET.as_bytes(), json.to_string().as_bytes());
    assert!(
        !is_authentic(&keys, &[&signature], body),
        "the same JSON in other bytes"
    );
}

#[test]
fn only_secrets_of_the_source_are_accepted() {
    let secrets = [
        "first-secret-0000",
        "second-secret-000",
        "third-secret-0000",
    ];
    let keys = Keys::new(secrets);
    for secret in secrets {
        assert!(
            is_authentic(&keys, &[&sign(secret.as_bytes(), BODY)], BODY),
            "{secret}"
        );
    }
    for secret in [SECRET, "", "first-secret-000", "first-secret-0000\n"] {
        assert!(
            !is_authentic(&keys, &[&sign(secret.as_bytes(), BODY)], BODY),
            "{secret:?}"
        );
    }
}

#[test]
fn source_without_secret_accepts_nothing() {
    let by_empty_secret = sign(b"", BODY);
    assert!(!is_authentic(&Keys::new([""]), &[&by_empty_secret], BODY));
    assert!(!is_authentic(
        &Keys::new::<&str>([]),
        &[&by_empty_secret],
        BODY
    ));
}

#[test]
fn unsigned_source_proves_nothing_elsewhere() {
    for values in [&[][..], &["nonsense"], &["sha256=", "sha256="]] {
        assert!(is_authentic(&Keys::Unsigned, values, BODY), "{values:?}");
    }
    let absent = Keys::Unsigned.read::<&str>([]).unwrap();
    let keys = Keys::new([SECRET]);
    let refused = keys.verify(&absent, BODY.into()).unwrap_err();
    assert_eq!(refused, BadSignature::Missing);
}

#[test]
fn operator_is_told_the_reason() {
    let two = Keys::new(["first-secret-0000", "second-secret-000"]);
    let wrong = sign(SECRET.as_bytes(), BODY);
    let why = |keys: &Keys, values: &[&str]| {
        let signature = keys.read(values);
        let verified = signature.and_then(|signature| keys.verify(&signature, BODY.into()));
        verified.unwrap_err()
    };
    assert_eq!(why(&two, &[]), BadSignature::Missing);
    assert_eq!(why(&two, &[&wrong, &wrong]), BadSignature::Repeated);
    assert_eq!(why(&two, &["sha1=00"]), BadSignature::Unreadable);
    assert_eq!(
        why(&two, &[&wrong]).to_string(),
        "none of the 2 secrets matches the signature"
    );
    let none = Keys::new::<&str>([]);
    assert_eq!(
        why(&none, &[&wrong]).to_string(),
        "the source has no secret yet"
    );
}

#[test]
fn signing_secret_is_identified_by_position() {
    let keys = Keys::new(["first-secret-0000", "second-secret-000"]);
    let signed_by = |secret: &str| {
        let signature = keys.read([sign(secret.as_bytes(), BODY)]).unwrap();
        keys.verify(&signature, BODY.into()).unwrap().secret()
    };
    assert_eq!(signed_by("first-secret-0000"), Some(0));
    assert_eq!(signed_by("second-secret-000"), Some(1));
    let unsigned = Keys::Unsigned.read::<&str>([]).unwrap();
    let verified = Keys::Unsigned.verify(&unsigned, BODY.into()).unwrap();
    assert_eq!(verified.secret(), None);
}

#[test]
fn keys_do_not_show_their_secret() {
    let shown = format!("{:?}", Keys::new([SECRET]));
    assert!(
        !shown.contains(SECRET) && !shown.contains("48, 49, 50"),
        "{shown}"
    );
}
