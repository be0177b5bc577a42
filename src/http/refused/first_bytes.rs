//! How a request began: enough of it to recognise other protocols, and the client for which a proxy
//! claims to forward. It is recorded here because the parser does not return what it cannot parse.

use super::{RefusalReason, shown};

/// Number of first bytes that are kept: at least the length of `PRI * HTTP/2.0`.
const BYTES_MAX: usize = 16;

/// Header fields are searched for in at most this many bytes of each read.
const HEAD_BYTES_MAX: usize = 16 << 10;

const FORWARDED_FOR: &[u8] = b"x-forwarded-for:";

/// What is kept of a request's first bytes.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    bytes: [u8; BYTES_MAX],
    length: usize,
    forwarded_for: Option<Box<str>>,
    /// Whether its refusal has been counted.
    pub(super) is_reported: bool,
}

/// A mistake that can be recognised by the first bytes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mistake {
    pub(super) begin: &'static [u8],
    /// The reason to report; `None` keeps the parser's own.
    pub(super) reason: Option<RefusalReason>,
    pub(super) hint: &'static str,
}

/// First bytes of protocols that are not HTTP/1.1.
const MISTAKES: [Mistake; 5] = [
    Mistake {
        begin: b"PROXY ",
        reason: Some(RefusalReason::ProxyProtocol),
        hint: "this is the PROXY protocol; disable it in the load balancer for this port",
    },
    Mistake {
        begin: b"\r\n\r\n\0\r\nQUIT\n",
        reason: Some(RefusalReason::ProxyProtocol),
        hint: "this is the PROXY protocol (version 2); disable it in the load balancer for this port",
    },
    Mistake {
        begin: b"\x16\x03",
        reason: Some(RefusalReason::Tls),
        hint: "this looks like TLS; use http:// for this port, or terminate TLS in a proxy",
    },
    Mistake {
        begin: b"PRI * HTTP/2.0",
        reason: Some(RefusalReason::Http2),
        hint: "this is HTTP/2; configure the proxy to use HTTP/1.1 for this port",
    },
    Mistake {
        begin: b"AMQP",
        reason: None,
        hint: "this is AMQP; this is not the address of the broker",
    },
];

impl FirstBytes {
    pub(super) fn arrived(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(BYTES_MAX - self.length);
        self.bytes[self.length..self.length + kept].copy_from_slice(&bytes[..kept]);
        self.length += kept;
        if self.forwarded_for.is_none() {
            self.forwarded_for = forwarded_for(bytes).map(|value| shown(value).into());
        }
    }

    /// The mistake that the first bytes indicate.
    pub(super) fn mistake(&self) -> Option<Mistake> {
        let begun = &self.bytes[..self.length];
        MISTAKES
            .into_iter()
            .find(|mistake| begun.starts_with(mistake.begin))
    }

    pub(super) fn forwarded_for(&self) -> Option<&str> {
        self.forwarded_for.as_deref()
    }
}

/// The value of the first `X-Forwarded-For` field in these lines of a head.
fn forwarded_for(lines: &[u8]) -> Option<&[u8]> {
    let mut rest = &lines[..lines.len().min(HEAD_BYTES_MAX)];
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = rest[..end].trim_ascii_end();
        if line.is_empty() {
            return None;
        }
        if let Some((name, value)) = line.split_at_checked(FORWARDED_FOR.len())
            && name.eq_ignore_ascii_case(FORWARDED_FOR)
        {
            return Some(value.trim_ascii_start());
        }
        rest = &rest[end + 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(pieces: &[&[u8]]) -> FirstBytes {
        let mut opening = FirstBytes::default();
        for piece in pieces {
            opening.arrived(piece);
        }
        opening
    }

    fn reason(pieces: &[&[u8]]) -> Option<RefusalReason> {
        opening(pieces).mistake()?.reason
    }

    #[test]
    fn other_protocols_are_recognised_by_first_bytes() {
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c rest";
        assert_eq!(reason(&[v2]), Some(RefusalReason::ProxyProtocol));
        assert_eq!(
            reason(&[&v2[..3], &v2[3..]]),
            Some(RefusalReason::ProxyProtocol)
        );
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
        assert_eq!(reason(&[v1]), Some(RefusalReason::ProxyProtocol));
        assert_eq!(
            reason(&[b"\x16", b"\x03\x01\x02"]),
            Some(RefusalReason::Tls)
        );
        assert_eq!(
            reason(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
            Some(RefusalReason::Http2)
        );
        assert_eq!(reason(&[b"POST / HTTP/1.1\r\n"]), None);
        assert_eq!(reason(&[b"\r\n\r\nPOST / HTTP/1.1\r\n"]), None);
        assert_eq!(reason(&[b"PROX"]), None);
    }

    #[test]
    fn forwarded_for_is_read_from_the_head_only() {
        let of = |head: &str| {
            let opening = opening(&[head.as_bytes()]);
            opening.forwarded_for().map(str::to_owned)
        };
        let head = "GET / HTTP/1.1\r\nHost: b\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n\r\n";
        assert_eq!(of(head).unwrap(), "192.0.2.7, 10.0.0.1");
        assert_eq!(of("GET / HTTP/1.1\r\n\r\nX-Forwarded-For: 1\r\n"), None);
        let long = format!("GET / HTTP/1.1\r\nx-forwarded-for: {}\r\n", "1".repeat(999));
        assert!(of(&long).unwrap().chars().count() <= 201);
    }
}
