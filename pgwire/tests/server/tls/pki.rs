//! Certificates for the tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};

/// A private certificate authority.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::signing_with(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// An authority with this signature algorithm.
    pub(crate) fn signing_with(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(algorithm).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for this name or address.
    pub(crate) fn server(&self, name: &str) -> Identity {
        self.issue(Self::server_params(name))
    }

    /// An expired certificate.
    pub(crate) fn expired_server(&self, name: &str) -> Identity {
        let mut params = Self::server_params(name);
        params.not_before = (SystemTime::now() - 30 * DAY).into();
        params.not_after = (SystemTime::now() - DAY).into();
        self.issue(params)
    }

    /// The certificate of a subordinate authority, used as a server certificate.
    pub(crate) fn own_identity(&self, name: &str) -> Identity {
        let mut params = Self::server_params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.issue(params)
    }

    /// A certificate for a role.
    pub(crate) fn client(&self, role: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, role);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn server_params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a PostgreSQL server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    }

    fn issue(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }
}

/// A directory for the files of a client.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        static WRITTEN: AtomicU32 = AtomicU32::new(0);
        let path = self.0.path().join(format!("{}-{name}", WRITTEN.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}
