//! Reads PEM files with certificates and keys. Problems are described in our own words, because the
//! errors of the parser quote its input, which may be a private key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::paths;

/// Largest file that is read. A bundle of all public authorities has a tenth of this.
const FILE_BYTES_MAX: u64 = 4 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Tag of an ASN.1 sequence, with which a DER file begins. The sequence has more than 127 bytes, so
/// its length is in the long form.
const DER: u8 = 0x30;

/// A file that contains no usable certificate or key.
#[derive(Debug, thiserror::Error)]
#[error("the file {} {problem}", paths::in_words(path))]
pub struct PemError {
    path: PathBuf,
    wanted: Wanted,
    problem: Problem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Certificate,
    Key,
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Utf16,
    Der,
    Pkcs12,
    NoPem,
    LineBreaks,
    CutOff,
    Base64,
    Encrypted,
    /// The file contains PEM sections, but not the wanted one: what is wanted, and what was found.
    Lacks(Wanted, &'static str),
}

/// Reads the certificates of a file; returns at least one.
///
/// # Errors
/// Describes the problem of the file, without quoting its content.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    sections(path, Wanted::Certificate, |kind, der| {
        (kind == SectionKind::Certificate).then(|| der.into())
    })
}

/// Reads the first private key of a file.
///
/// # Errors
/// Describes the problem of the file, without quoting its content.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let found = sections(path, Wanted::Key, |kind, der| match kind {
        SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(der.into())),
        SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(der.into())),
        SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(der.into())),
        _ => None,
    });
    Ok(found?.swap_remove(0))
}

impl PemError {
    /// How the operator can fix the file.
    #[must_use]
    pub fn advice(&self) -> String {
        let file = paths::shown(&self.path);
        let converted =
            |command| format!("`openssl {command} -in {file} -out {file}.pem`, and use that file");
        match (&self.problem, self.wanted) {
            (Problem::Io(_), _) => "the user that runs the bridge must be able to read it".into(),
            (Problem::Der, Wanted::Certificate) => converted("x509 -inform der"),
            (Problem::Der, Wanted::Key) => converted("pkey -inform der"),
            (Problem::Pkcs12, _) => converted("pkcs12 -nodes"),
            (Problem::Encrypted, _) => {
                format!("`openssl pkey -in {file} -out {file}.plain`, and use that file; only the bridge's user should be able to read it")
            }
            (Problem::Utf16 | Problem::LineBreaks | Problem::CutOff | Problem::Base64, _) => {
                "copy the original file again, byte for byte; in YAML a block (`|`) keeps its line breaks".into()
            }
            (Problem::NoPem | Problem::Lacks(..), Wanted::Certificate) => {
                "configure a PEM file that contains `-----BEGIN CERTIFICATE-----`".into()
            }
            (Problem::NoPem | Problem::Lacks(..), Wanted::Key) => {
                "configure a PEM file that contains `-----BEGIN PRIVATE KEY-----`".into()
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Io(error) => return write!(formatter, "cannot be read: {error}"),
            Self::Utf16 => "is text in UTF-16 and must be ASCII",
            Self::Der => "is binary (DER) and must be text (PEM)",
            Self::Pkcs12 => "is a PKCS#12 bundle and must be PEM",
            Self::NoPem => "is not a PEM file: no line of it begins with `-----BEGIN`",
            Self::LineBreaks => {
                "has lost its line breaks: nothing may follow `-----BEGIN …-----` on its line"
            }
            Self::CutOff => "is cut off: the line `-----END …-----` is missing",
            Self::Base64 => "contains something other than base64 between BEGIN and END",
            Self::Encrypted => "holds a private key that is encrypted with a password",
            Self::Lacks(wanted, found) => {
                let wanted = match wanted {
                    Wanted::Certificate => "certificate",
                    Wanted::Key => "private key",
                };
                return write!(formatter, "holds {found} and no {wanted}");
            }
        })
    }
}

/// The sections that `convert` accepts; at least one.
fn sections<T>(
    path: &Path,
    wanted: Wanted,
    convert: impl Fn(SectionKind, Vec<u8>) -> Option<T>,
) -> Result<Vec<T>, PemError> {
    let fail = |problem| PemError {
        path: path.into(),
        wanted,
        problem,
    };
    let bytes = read(path).map_err(|error| fail(Problem::Io(error)))?;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    if let Some(problem) = unreadable(text) {
        return Err(fail(problem));
    }
    if wanted == Wanted::Key && is_encrypted(text) {
        return Err(fail(Problem::Encrypted));
    }
    let found: Vec<_> = <(SectionKind, Vec<u8>)>::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(in_words(&error)))?;
    let problem = match found.first() {
        Some((kind, _)) => Problem::Lacks(wanted, name(*kind)),
        None if contains(text, b"-----BEGIN OPENSSH") => Problem::Lacks(wanted, "a key of OpenSSH"),
        None => Problem::LineBreaks,
    };
    let sections = found.into_iter();
    let accepted: Vec<_> = sections
        .filter_map(|(kind, der)| convert(kind, der))
        .collect();
    if accepted.is_empty() {
        return Err(fail(problem));
    }
    Ok(accepted)
}

/// Recognizes content that the PEM parser cannot read, or would describe misleadingly.
fn unreadable(text: &[u8]) -> Option<Problem> {
    if contains(text, b"-----BEGIN ") {
        let is_lost = |line: &[u8]| {
            let is_complete = line.trim_ascii_end().ends_with(b"-----");
            contains(line, b"-----BEGIN ") && (!is_complete || contains(line, b"-----END "))
        };
        let mut lines = text.split(|byte| *byte == b'\n' || *byte == b'\r');
        return lines.any(is_lost).then_some(Problem::LineBreaks);
    }
    let is_pkcs12 = text.get(4..7) == Some(&[2, 1, 3]);
    Some(match text {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Problem::Utf16,
        text if contains(text, b"-\0-\0-\0-\0-\0B\0E") => Problem::Utf16,
        [DER, 0x81..=0x84, ..] if is_pkcs12 => Problem::Pkcs12,
        [DER, 0x81..=0x84, ..] => Problem::Der,
        _ => Problem::NoPem,
    })
}

fn is_encrypted(text: &[u8]) -> bool {
    contains(text, b"-----BEGIN ENCRYPTED PRIVATE KEY") || contains(text, b"Proc-Type: 4,ENCRYPTED")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

fn name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "a certificate",
        SectionKind::PublicKey => "a public key",
        SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
            "a private key"
        }
        SectionKind::Crl => "a revocation list",
        SectionKind::Csr => "a certificate request",
        _ => "something else",
    }
}

fn in_words(error: &pem::Error) -> Problem {
    match error {
        pem::Error::MissingSectionEnd { .. } => Problem::CutOff,
        pem::Error::IllegalSectionStart { .. } => Problem::LineBreaks,
        _ => Problem::Base64,
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let problem = "it is larger than 4 MiB";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
