//! A private certificate authority for the tests.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Issues certificates and writes them to files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate of the authority itself (PEM).
    pub ca_file: PathBuf,
}

impl Authority {
    /// Creates an authority and writes its certificate to `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let ca_file = dir.join(format!("{name}.pem"));
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            ca_file,
        }
    }

    /// Issues a certificate for `name` and returns the paths of certificate and key.
    pub fn issue(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        self.issue_for_years(dir, name, 2020..2100)
    }

    /// As [`Authority::issue`], valid from the beginning of the first of these years until the
    /// beginning of the last.
    pub fn issue_for_years(
        &self,
        dir: &Path,
        name: &str,
        years: std::ops::Range<i32>,
    ) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_file, key_file) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}
