//! Encryption that did not come about.

use std::fmt;

use rustls::{AlertDescription, CertificateError};

use crate::options::SslMode;

/// Why there is no encrypted connection. Nothing of ours was sent in the open instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// The server, or somebody between, says that it has no TLS.
    Refused {
        /// The mode that does without it as little as we do.
        mode: SslMode,
    },
    /// The answer to the request for TLS is none.
    BadAnswer {
        /// Its first byte.
        byte: u8,
    },
    /// Bytes came in the open behind the answer: somebody slips words of his own into the encrypted conversation.
    BytesBeforeTls {
        /// How many, at least.
        bytes: usize,
    },
    /// The server's certificate is not one to trust.
    Certificate {
        /// Why not.
        problem: CertificateProblem,
        /// The same with what there is to know.
        detail: String,
    },
    /// The server gave the connection up, for example because it does not accept our certificate.
    Alert {
        /// The word it gave for it.
        alert: String,
        /// Whether it is about our certificate, or the lack of one: it will be as long as that is not mended.
        of_certificate: bool,
    },
    /// The two have no version, cipher, group, signature or protocol in common, or the server does not know the name that it
    /// was called by: as either of them says. It will be so until the settings of one are changed.
    NothingInCommon {
        /// What was missed, or the word that the server gave for it.
        reason: String,
    },
    /// Encryption broke off, or what was received is not TLS.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It does not lead to a root certificate of ours.
    UnknownIssuer,
    /// Its time, or that of one above it, is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is made out for another name.
    WrongName,
    /// Something else, see the detail.
    Other,
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => {
                let problem = match error {
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                        CertificateProblem::UnknownIssuer
                    }
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateProblem::Expired,
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        CertificateProblem::NotYetValid
                    }
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                        CertificateProblem::WrongName
                    }
                    _ => CertificateProblem::Other,
                };
                Self::Certificate { problem, detail: error.to_string() }
            }
            rustls::Error::AlertReceived(alert) if is_of_settings(alert) => {
                Self::NothingInCommon { reason: format!("{alert:?}") }
            }
            rustls::Error::PeerIncompatible(why) => Self::NothingInCommon { reason: format!("{why:?}") },
            rustls::Error::AlertReceived(alert) => {
                Self::Alert { alert: format!("{alert:?}"), of_certificate: is_of_certificate(alert) }
            }
            other => Self::Failed { reason: other.to_string() },
        }
    }
}

/// The alerts of RFC 8446, 6.2, and of its forerunners, that say that a certificate is missing or not accepted.
fn is_of_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// The alerts of the same that say that the two cannot agree. A server that wants a certificate and gets none may say
/// `HandshakeFailure` too, before TLS 1.3.
fn is_of_settings(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName
            | AlertDescription::NoApplicationProtocol
    )
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { mode } => {
                write!(f, "the server has no TLS, and sslmode={mode} or channel_binding=require wants it")
            }
            Self::BadAnswer { byte } => write!(
                f,
                "the answer to the request for TLS begins with '{}'; is this a PostgreSQL server?",
                byte.escape_ascii()
            ),
            Self::BytesBeforeTls { bytes } => {
                write!(f, "{bytes} bytes came in the open before encryption began; somebody interferes")
            }
            Self::Certificate { problem: CertificateProblem::UnknownIssuer, detail } => {
                write!(f, "the server's certificate does not lead to a root certificate of ours: {detail}")
            }
            Self::Certificate { detail, .. } => write!(f, "the server's certificate: {detail}"),
            Self::Alert { alert, .. } => write!(f, "the server ended the connection: {alert}"),
            Self::NothingInCommon { reason } => {
                write!(f, "the server and the client find no TLS that both have: {reason}")
            }
            Self::Failed { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settings_lead_to_is_told_from_what_a_certificate_does_and_from_a_bad_way() {
        use AlertDescription::{DecodeError, HandshakeFailure, InternalError, ProtocolVersion, UnknownCA};
        let alert = |alert| TlsError::from(rustls::Error::AlertReceived(alert));
        for settings in [HandshakeFailure, ProtocolVersion] {
            assert!(matches!(alert(settings), TlsError::NothingInCommon { .. }), "{settings:?}");
        }
        assert!(matches!(alert(UnknownCA), TlsError::Alert { of_certificate: true, .. }));
        for way in [DecodeError, InternalError] {
            assert!(matches!(alert(way), TlsError::Alert { of_certificate: false, .. }), "{way:?}");
        }
        let incompatible = rustls::PeerIncompatible::NoCipherSuitesInCommon;
        assert!(matches!(rustls::Error::from(incompatible).into(), TlsError::NothingInCommon { .. }));
        assert!(matches!(rustls::Error::DecryptError.into(), TlsError::Failed { .. }));
    }
}
