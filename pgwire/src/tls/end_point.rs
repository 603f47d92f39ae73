//! The channel binding data of RFC 5929, `tls-server-end-point`: the hash of the server's certificate.
//!
//! The hash function is that of the certificate's signature algorithm, or SHA-256 if that is MD5 or SHA-1.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash function.
type Hash = fn(&[u8]) -> Vec<u8>;

/// The hash functions of signature algorithms, by the content of the algorithm's object identifier (RFC 8017, RFC
/// 5758).
const SIGNATURES: [(&[u8], Hash); 9] = [
    // md5WithRSAEncryption, sha1WithRSAEncryption, ecdsa-with-SHA1
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x01", sha256),
    // sha256WithRSAEncryption, sha384…, sha512…
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", sha512),
    // ecdsa-with-SHA256, ecdsa-with-SHA384, ecdsa-with-SHA512
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", sha512),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a certificate in DER. `None` if its signature algorithm has no hash function, such as Ed25519, or cannot
/// be read. Servers cannot bind to such a certificate, either.
pub(super) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let signature = signature_algorithm(certificate)?;
    let (_, hash) = SIGNATURES.iter().find(|(identifier, _)| *identifier == signature)?;
    Some(hash(certificate))
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }` (RFC 5280)
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(SEQUENCE, certificate)?;
    let (_to_be_signed, rest) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, rest)?;
    let (identifier, _) = element(OBJECT_IDENTIFIER, algorithm)?;
    Some(identifier)
}

/// The content of the first DER element, which must have this tag, and the bytes after the element.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let length = match short {
        0..=0x7f => usize::from(short),
        0x81..=0x84 => {
            let (digits, after) = rest.split_at_checked(usize::from(short - 0x80))?;
            rest = after;
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

fn sha384(bytes: &[u8]) -> Vec<u8> {
    Sha384::digest(bytes).to_vec()
}

fn sha512(bytes: &[u8]) -> Vec<u8> {
    Sha512::digest(bytes).to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(["h".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let by_256 = certificate(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash(&by_256), Some(Sha256::digest(&by_256).to_vec()));
        let by_384 = certificate(&PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash(&by_384), Some(Sha384::digest(&by_384).to_vec()));
        assert_eq!(hash(&certificate(&PKCS_ED25519)), None);
    }

    #[test]
    fn a_certificate_that_is_cut_or_none_has_no_hash_and_does_no_harm() {
        let whole = certificate(&PKCS_ECDSA_P256_SHA256);
        for end in 0..whole.len() {
            assert_eq!(hash(&whole[..end]), None, "cut to {end} bytes");
        }
        for first in 0..=u8::MAX {
            let mut other = whole.clone();
            other[1] = first;
            // Only the outer length is changed, so the signature algorithm is the same or cannot be read.
            assert!(hash(&other).is_none_or(|hash| hash == Sha256::digest(&other).to_vec()));
        }
    }
}
