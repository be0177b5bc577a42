use std::fs;

use rcgen::KeyPair;

use super::*;

/// A certificate, and a key whose text must not appear in any error.
struct World {
    dir: tempfile::TempDir,
    key: String,
    certificate: String,
}

impl World {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn file(&self, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Checks the error for a file that should contain a key. It must not contain any line of the
    /// key.
    #[track_caller]
    fn says_of_key(&self, bytes: impl AsRef<[u8]>, expected: &str) {
        let error = key(&self.file(bytes)).expect_err(expected);
        let told = format!("{error} {} {error:?}", error.advice());
        assert!(told.contains(expected), "{told}");
        for line in self.key.lines().filter(|line| !line.starts_with('-')) {
            let bytes = format!("{:?}", line.as_bytes());
            let bytes = bytes.trim_matches(['[', ']']);
            assert!(!told.contains(line) && !told.contains(bytes), "{told}");
        }
    }

    #[track_caller]
    fn says_of_certificate(&self, bytes: impl AsRef<[u8]>, expected: &str) {
        let error = certificates(&self.file(bytes)).expect_err(expected);
        let told = format!("{error} {}", error.advice());
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn every_mistake_is_named_without_quoting_the_key() {
    let world = World::new();
    let pem = &world.key;
    let body = pem.lines().nth(1).unwrap();
    let utf16: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let der = KeyPair::generate().unwrap().serialize_der();
    world.says_of_key(pem.replace('\n', " "), "has lost its line breaks");
    world.says_of_key(pem.replace('\n', ""), "has lost its line breaks");
    world.says_of_key(pem.replace("-----\n", "----- "), "has lost its line breaks");
    world.says_of_key(pem.replace('\n', "\\n"), "has lost its line breaks");
    world.says_of_key(pem.split("-----END").next().unwrap(), "is cut off");
    world.says_of_key(pem.replace("END PRIVATE", "END PUBLIC"), "is cut off");
    world.says_of_key(
        pem.replace(body, &format!("§{body}")),
        "something other than base64",
    );
    world.says_of_key(&utf16, "UTF-16");
    world.says_of_key([&[0xff, 0xfe], &utf16[..]].concat(), "UTF-16");
    world.says_of_key(der, "openssl pkey -inform der");
    world.says_of_key(body, "not a PEM file");
    world.says_of_key("", "not a PEM file");
    world.says_of_key(&world.certificate, "holds a certificate and no private key");
    world.says_of_key(
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        "openssl pkey -in",
    );
    world.says_of_key(
        format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{body}\n-----END RSA PRIVATE KEY-----\n"),
        "is encrypted with a password",
    );
    world.says_of_key(
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"),
        "a key of OpenSSH",
    );
    world.says_of_certificate(pem, "holds a private key and no certificate");
    world.says_of_certificate([0x30, 0x82, 5, 5, 0x30], "openssl x509 -inform der");
    world.says_of_certificate([0x30, 0x82, 5, 5, 2, 1, 3], "openssl pkcs12");
    let absent = key(Path::new(body)).unwrap_err().to_string();
    assert!(!absent.contains(body), "{absent}");
}

#[test]
fn byte_order_mark_is_accepted() {
    let world = World::new();
    let marked = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert!(key(&world.file(marked(&world.key))).is_ok());
    let both = marked(&(world.certificate.clone() + &world.certificate));
    assert_eq!(certificates(&world.file(both)).unwrap().len(), 2);
}
