//! A body is authentic if and only if there is exactly one signature header, and it contains
//! `sha256=` and the body's HMAC under one of the secrets, in hex or base64.

use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};
use deskbridge::webhook::signature::{Keys, sign};
use ring::hmac;

const SECRETS: [&[u8]; 2] = [b"the first secret of the fuzzer", b"the second one"];
const STRANGER: &[u8] = b"a secret of somebody else";

/// Checks an input: one byte that selects the check, header values separated by `\x1f`, a line
/// feed, and a body.
///
/// # Panics
/// If the bridge's verdict differs from the definition.
pub fn check(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let (header, body) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    match mode % 6 {
        0 => check_values(header, body),
        1 => check_right(&hex_of_any_case(header, body), header, body),
        2 => check_right(&BASE64.encode(&mac(SECRETS[1], body)), header, body),
        3 => check_right(&BASE64_NOPAD.encode(&mac(SECRETS[0], body)), header, body),
        4 => check_one_bit(header, body),
        _ => check_strangers(body),
    }
}

/// Checks arbitrary header values.
fn check_values(header: &[u8], body: &[u8]) {
    let values: Vec<_> = header.split(|byte| *byte == 0x1f).collect();
    let is_right = |secret| match values[..] {
        [value] => digest(value).is_some_and(|digest| digest == mac(secret, body)),
        _ => false,
    };
    let expected = SECRETS.into_iter().any(is_right);
    assert_eq!(is_accepted(&values, body), expected);
    let is_readable = matches!(values[..], [value] if digest(value).is_some());
    let read = Keys::new(SECRETS).read(&values);
    assert_eq!(read.is_ok(), is_readable, "{values:?}");
}

fn check_right(digest: &str, header: &[u8], body: &[u8]) {
    let prefix: String = any_case("sha256=", header);
    let value = format!("{prefix}{digest}");
    assert!(is_accepted(&[value.as_bytes()], body), "{value}");
    let twice = [value.as_bytes(), value.as_bytes()];
    assert!(!is_accepted(&twice, body), "two headers");
    let longer = [body, b"\n"].concat();
    assert!(!is_accepted(&[value.as_bytes()], &longer), "another body");
}

fn check_one_bit(header: &[u8], body: &[u8]) {
    let mut value = sign(SECRETS[0], body).into_bytes();
    let at = header.first().map_or(0, |at| usize::from(*at)) % value.len();
    let bit = header.get(1).map_or(0, |bit| bit % 8);
    value[at] ^= 1 << bit;
    // The bit may only change the case of a letter, which is not significant.
    let is_same = value.eq_ignore_ascii_case(sign(SECRETS[0], body).as_bytes());
    assert_eq!(is_accepted(&[&value], body), is_same, "byte {at} bit {bit}");
}

fn check_strangers(body: &[u8]) {
    for secret in [STRANGER, b"", b"the first secret of the fuzzer\n"] {
        let value = sign(secret, body);
        assert!(!is_accepted(&[value.as_bytes()], body));
    }
    let of_nothing = sign(SECRETS[0], b"");
    assert_eq!(is_accepted(&[of_nothing.as_bytes()], body), body.is_empty());
    assert!(!is_accepted(&[], body));
}

fn is_accepted(values: &[&[u8]], body: &[u8]) -> bool {
    let keys = Keys::new(SECRETS);
    let body = Bytes::copy_from_slice(body);
    keys.read(values)
        .and_then(|signature| keys.verify(&signature, body))
        .is_ok()
}

fn mac(secret: &[u8], body: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, body).as_ref().to_vec()
}

fn hex_of_any_case(choice: &[u8], body: &[u8]) -> String {
    any_case(&HEXLOWER.encode(&mac(SECRETS[0], body)), choice)
}

/// The text with each letter in the case that a bit of `choice` selects.
fn any_case(text: &str, choice: &[u8]) -> String {
    let is_upper = |index: usize| choice.get(index / 8).unwrap_or(&0) >> (index % 8) & 1 == 1;
    let chars = text.chars().enumerate();
    chars
        .map(|(index, char)| {
            if is_upper(index) {
                char.to_ascii_uppercase()
            } else {
                char
            }
        })
        .collect()
}

/// The digest of one header value, decoded without the bridge's code.
fn digest(value: &[u8]) -> Option<Vec<u8>> {
    let (prefix, text) = value.split_at_checked(7)?;
    if !prefix.eq_ignore_ascii_case(b"sha256=") {
        return None;
    }
    let bytes = match text.len() {
        64 => by_digits(text, 4, |byte| char::from(byte).to_digit(16)),
        44 if text[43] == b'=' => by_digits(&text[..43], 6, base64_digit),
        43 => by_digits(text, 6, base64_digit),
        _ => None,
    }?;
    (bytes.len() == 32).then_some(bytes)
}

fn base64_digit(byte: u8) -> Option<u32> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let at = digits.iter().position(|digit| *digit == byte)?;
    u32::try_from(at).ok()
}

/// Decodes digits of `bits` bits each into whole bytes; remaining bits must be zero.
fn by_digits(text: &[u8], bits: u32, digit: impl Fn(u8) -> Option<u32>) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text {
        held = held << bits | digit(*byte)?;
        count += bits;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(held >> count).ok()?);
            held &= (1 << count) - 1;
        }
    }
    (held == 0).then_some(bytes)
}
