//! Connections that cannot be encrypted as required.

use rustls::{AlertDescription, CertificateError};

use crate::options::SslMode;

/// Why there is no encrypted connection. The client sent no data in the clear instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The server has no TLS, or somebody between the two claims so.
    #[error("the server has no TLS, and sslmode={mode} or channel_binding=require wants it")]
    Refused {
        /// The mode that is set. Either it requires TLS, or `channel_binding` does.
        mode: SslMode,
    },
    /// The answer to the TLS request is not one that the protocol allows.
    #[error("the answer to the request for TLS begins with '{}'; is this a PostgreSQL server?", .byte.escape_ascii())]
    BadAnswer {
        /// The answer's first byte.
        byte: u8,
    },
    /// Unencrypted bytes follow the answer to the TLS request. Somebody injects data into the connection.
    #[error("{bytes} bytes came in the open before encryption began; somebody interferes")]
    BytesBeforeTls {
        /// The number of bytes, at least.
        bytes: usize,
    },
    /// The server's certificate is not trusted.
    #[error("{problem}: {detail}")]
    Certificate {
        /// Why it is not trusted.
        problem: CertificateProblem,
        /// The same in the words of the TLS library.
        detail: String,
    },
    /// The server aborted the TLS connection, for example because it does not accept the client's certificate.
    #[error("the server ended the connection: {alert}")]
    Alert {
        /// The alert's name.
        alert: String,
        /// Whether the alert concerns the client's certificate, or the lack of one. If so, a retry fails in the same
        /// way until the certificate is replaced.
        of_certificate: bool,
    },
    /// The client and the server have no TLS version, cipher suite, group, signature scheme or protocol in common, or
    /// the server does not know the host name that the client sent. A retry fails in the same way until the settings of
    /// one side change.
    #[error("the server and the client find no TLS that both have: {reason}")]
    NothingInCommon {
        /// What is missing, or the name of the server's alert.
        reason: String,
    },
    /// TLS failed, or the received bytes are not TLS.
    #[error("{reason}")]
    Failed {
        /// The failure in the words of the TLS library.
        reason: String,
    },
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Its chain does not end at a trusted root certificate.
    #[error("the server's certificate does not lead to a root certificate of ours")]
    UnknownIssuer,
    /// It, or a certificate above it, has expired.
    #[error("the server's certificate has expired")]
    Expired,
    /// It, or a certificate above it, is not valid yet.
    #[error("the server's certificate is not valid yet")]
    NotYetValid,
    /// It is issued for another host name.
    #[error("the server's certificate is issued for another name")]
    WrongName,
    /// Another problem, which the detail describes.
    #[error("the server's certificate is not valid")]
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
            rustls::Error::AlertReceived(alert) if concerns_settings(alert) => {
                Self::NothingInCommon { reason: format!("{alert:?}") }
            }
            rustls::Error::PeerIncompatible(why) => Self::NothingInCommon { reason: format!("{why:?}") },
            rustls::Error::AlertReceived(alert) => {
                Self::Alert { alert: format!("{alert:?}"), of_certificate: concerns_certificate(alert) }
            }
            other => Self::Failed { reason: other.to_string() },
        }
    }
}

/// Whether an alert says that the client's certificate is missing or not accepted. Source: RFC 8446, section 6.2, and
/// its predecessors.
fn concerns_certificate(alert: AlertDescription) -> bool {
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

/// Whether an alert says that the client and the server have nothing in common. Before TLS 1.3, a server may also send
/// `HandshakeFailure` if it requires a certificate and gets none.
fn concerns_settings(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName
            | AlertDescription::NoApplicationProtocol
    )
}

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
