//! Files with certificates and keys. What is wrong with one is said in our own words: the parser's
//! errors quote what it read, and that may be a private key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::paths;

/// A bundle of all public authorities has a tenth of it.
const FILE_BYTES_MAX: u64 = 4 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A DER file begins with a sequence of more than 127 bytes.
const DER: u8 = 0x30;

/// A file that gives no certificate or key.
#[derive(Debug, thiserror::Error)]
#[error("the file {} {problem}", paths::in_words(path))]
pub struct FileError {
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
    /// It holds something, but not that.
    Lacks(Wanted, &'static str),
}

/// The certificates of a file, at least one.
///
/// # Errors
/// What is wrong with the file, without quoting it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let wanted = Wanted::Certificate;
    let found = sections(path, wanted)?.into_iter();
    let certificates: Vec<_> = found
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| der.into())
        .collect();
    if certificates.is_empty() {
        return Err(FileError::new(
            path,
            wanted,
            Problem::Lacks(wanted, "something else"),
        ));
    }
    Ok(certificates)
}

/// The first private key of a file.
///
/// # Errors
/// What is wrong with the file, without quoting it.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let wanted = Wanted::Key;
    let mut found = sections(path, wanted)?.into_iter();
    found
        .find_map(|(kind, der)| match kind {
            SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(der.into())),
            _ => None,
        })
        .ok_or_else(|| FileError::new(path, wanted, Problem::Lacks(wanted, "something else")))
}

impl FileError {
    fn new(path: &Path, wanted: Wanted, problem: Problem) -> Self {
        Self {
            path: path.into(),
            wanted,
            problem,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        let file = paths::shown(&self.path);
        match (&self.problem, self.wanted) {
            (Problem::Io(_), _) => "the user that runs the bridge must be able to read it".into(),
            (Problem::Der, Wanted::Certificate) => {
                format!("`openssl x509 -inform der -in {file} -out {file}.pem`, and name that file")
            }
            (Problem::Der, Wanted::Key) => {
                format!("`openssl pkey -inform der -in {file} -out {file}.pem`, and name that file")
            }
            (Problem::Pkcs12, _) => {
                format!("`openssl pkcs12 -nodes -in {file} -out {file}.pem`, and name that file")
            }
            (Problem::Encrypted, _) => {
                format!("`openssl pkey -in {file} -out {file}.plain`, and name that file; only the bridge's user should be able to read it")
            }
            (Problem::Utf16 | Problem::LineBreaks | Problem::CutOff | Problem::Base64, _) => {
                "copy the original file again, byte for byte; in YAML a block (`|`) keeps its line breaks".into()
            }
            (Problem::NoPem | Problem::Lacks(..), Wanted::Certificate) => {
                "name a file in PEM that has `-----BEGIN CERTIFICATE-----`".into()
            }
            (Problem::NoPem | Problem::Lacks(..), Wanted::Key) => {
                "name a file in PEM that has `-----BEGIN PRIVATE KEY-----`".into()
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
            Self::NoPem => "is no PEM file: no line of it begins with `-----BEGIN`",
            Self::LineBreaks => {
                "has lost its line breaks: the line `-----BEGIN …-----` must have nothing behind it"
            }
            Self::CutOff => "is cut off: the line `-----END …-----` is missing",
            Self::Base64 => "holds something else than base64 between its BEGIN and END",
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

fn sections(path: &Path, wanted: Wanted) -> Result<Vec<(SectionKind, Vec<u8>)>, FileError> {
    let fail = |problem| FileError::new(path, wanted, problem);
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
    let is_wanted = |(kind, _): &(SectionKind, Vec<u8>)| {
        let is_certificate = *kind == SectionKind::Certificate;
        is_certificate == (wanted == Wanted::Certificate)
    };
    if found.iter().any(is_wanted) {
        return Ok(found);
    }
    let problem = match found.first() {
        Some((kind, _)) => Problem::Lacks(wanted, name(*kind)),
        None if contains(text, b"-----BEGIN OPENSSH") => Problem::Lacks(wanted, "a key of OpenSSH"),
        None => Problem::LineBreaks,
    };
    Err(fail(problem))
}

/// What cannot be PEM at all.
fn unreadable(text: &[u8]) -> Option<Problem> {
    if contains(text, b"-----BEGIN ") {
        let is_lost = |line: &[u8]| {
            contains(line, b"-----BEGIN ") && !line.trim_ascii_end().ends_with(b"-----")
        };
        let is_joined =
            |line: &[u8]| contains(line, b"-----BEGIN ") && contains(line, b"-----END ");
        let mut lines = text.split(|byte| *byte == b'\n' || *byte == b'\r');
        return lines
            .any(|line| is_lost(line) || is_joined(line))
            .then_some(Problem::LineBreaks);
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
