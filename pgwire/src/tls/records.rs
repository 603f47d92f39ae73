//! The record layer of a TLS connection as bytes: plain text in and records out, and back. It performs no I/O.

use std::io::{self, BufRead, Write};
use std::ops::DerefMut;

use bytes::BufMut;
use rustls::{ConnectionCommon, SideData};

use crate::core::limits::TLS_ENCRYPT_BYTES;

/// The record layer of one TLS connection, for the client or the server side:
/// `TlsRecords<rustls::ClientConnection>` or `TlsRecords<rustls::ServerConnection>`.
///
/// Its owner performs the I/O. A typical owner has these loops:
/// - While [`TlsRecords::is_handshaking`], send what [`TlsRecords::append_records`] yields, then read bytes and pass
///   them to [`TlsRecords::decrypt`].
/// - To read, take [`TlsRecords::plain_text`] and [`TlsRecords::consume`] it. If there is none, pass received bytes to
///   [`TlsRecords::decrypt`], and send what [`TlsRecords::append_records`] yields: the peer may ask for a reply within
///   TLS.
/// - To write, pass a piece to [`TlsRecords::encrypt`], send what [`TlsRecords::append_records`] yields, and continue
///   with the rest.
///
/// After an error of [`TlsRecords::decrypt`], [`TlsRecords::append_records`] yields the alert that tells the peer the
/// reason.
///
/// **Memory:** besides the records that the owner has not taken, it holds at most two records of decrypted plain text
/// (32 KiB), and one incomplete record or one incomplete handshake message of at most 64 KiB.
#[derive(Debug)]
pub struct TlsRecords<C> {
    connection: C,
}

impl<C, S> TlsRecords<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData + 'static,
{
    /// The record layer of this connection.
    pub fn new(connection: C) -> Self {
        Self { connection }
    }

    /// The connection, for example to read the peer's certificates.
    pub fn connection(&self) -> &C {
        &self.connection
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Decrypts received bytes. Returns how many of them it has taken. The caller must pass the rest again, after it
    /// has consumed the plain text. Nothing is taken after the peer's close_notify.
    ///
    /// # Errors
    /// If the bytes are not valid TLS, or the peer is not trusted.
    pub fn decrypt(&mut self, mut records: &[u8]) -> Result<usize, rustls::Error> {
        let given_bytes = records.len();
        while !records.is_empty() {
            match self.connection.read_tls(&mut records) {
                Ok(0) => break,
                Ok(_) => {
                    self.connection.process_new_packets()?;
                }
                // rustls takes no more while plain text waits for its reader.
                Err(_) if self.plain_text().is_some_and(|text| !text.is_empty()) => break,
                // Reading from memory does not fail, so the peer has sent a message that is too long.
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
        Ok(given_bytes - records.len())
    }

    /// The first piece of the decrypted plain text. `None` if more records must arrive first. Empty after the peer's
    /// close_notify, when no plain text follows.
    pub fn plain_text(&mut self) -> Option<&[u8]> {
        // The error says that there is no plain text yet. The end of the stream without a close_notify is an error,
        // too, but rustls sees only the bytes that are passed to `decrypt`.
        self.connection.reader().into_first_chunk().ok()
    }

    /// Removes this many bytes of the plain text, which the caller has taken.
    pub fn consume(&mut self, bytes: usize) {
        self.connection.reader().consume(bytes);
    }

    /// Encrypts the beginning of a piece. Returns how many of its bytes it has taken: at most [`TLS_ENCRYPT_BYTES`],
    /// and at least one if the earlier records were taken by [`TlsRecords::append_records`] and the piece is not empty.
    ///
    /// # Errors
    /// If rustls cannot encrypt.
    pub fn encrypt(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(&piece[..piece.len().min(TLS_ENCRYPT_BYTES)])
    }

    /// Appends all records that are to be sent.
    pub fn append_records(&mut self, out: &mut impl BufMut) {
        let mut out = out.writer();
        while self.connection.wants_write() {
            let written = self.connection.write_tls(&mut out);
            assert!(matches!(written, Ok(1..)), "memory takes every record: {written:?}");
        }
    }

    /// Adds a close_notify. Nothing can be encrypted after it.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    use super::*;
    use crate::tls::verify::{Verification, Verifier};

    type Client = TlsRecords<ClientConnection>;
    type Server = TlsRecords<ServerConnection>;

    fn client() -> Client {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            Verifier { verification: Verification::None, algorithms: provider.signature_verification_algorithms };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let name = ServerName::try_from("h").unwrap();
        TlsRecords::new(ClientConnection::new(Arc::new(config), name).unwrap())
    }

    fn server() -> Server {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(["h".to_owned()]).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(cert.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsRecords::new(ServerConnection::new(Arc::new(config)).unwrap())
    }

    /// Passes the pending records on in pieces of this length. Returns the plain text.
    fn pass<C, S, D, T>(from: &mut TlsRecords<C>, to: &mut TlsRecords<D>, piece_bytes: usize) -> Vec<u8>
    where
        C: DerefMut<Target = ConnectionCommon<S>>,
        S: SideData + 'static,
        D: DerefMut<Target = ConnectionCommon<T>>,
        T: SideData + 'static,
    {
        let (mut records, mut plain_text) = (Vec::new(), Vec::new());
        from.append_records(&mut records);
        for mut piece in records.chunks(piece_bytes) {
            while !piece.is_empty() {
                let taken_bytes = to.decrypt(piece).unwrap();
                piece = &piece[taken_bytes..];
                while let Some(text @ [_, ..]) = to.plain_text() {
                    plain_text.extend_from_slice(text);
                    let text_bytes = text.len();
                    to.consume(text_bytes);
                }
            }
        }
        plain_text
    }

    fn connected(piece_bytes: usize) -> (Client, Server) {
        let (mut client, mut server) = (client(), server());
        while client.is_handshaking() || server.is_handshaking() {
            assert!(pass(&mut client, &mut server, piece_bytes).is_empty());
            assert!(pass(&mut server, &mut client, piece_bytes).is_empty());
        }
        (client, server)
    }

    #[test]
    fn plain_text_arrives_in_both_directions_however_the_records_are_cut() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for piece_bytes in [1, 1000, usize::MAX] {
            let (mut client, mut server) = connected(piece_bytes);
            let (mut at_server, mut at_client, mut rest) = (Vec::new(), Vec::new(), &sent[..]);
            while !rest.is_empty() {
                let taken_bytes = client.encrypt(rest).unwrap();
                assert!((1..=TLS_ENCRYPT_BYTES).contains(&taken_bytes));
                assert_eq!(server.encrypt(&rest[..taken_bytes]).unwrap(), taken_bytes);
                rest = &rest[taken_bytes..];
                at_server.extend(pass(&mut client, &mut server, piece_bytes));
                at_client.extend(pass(&mut server, &mut client, piece_bytes));
            }
            assert!(at_server == sent && at_client == sent, "pieces of {piece_bytes} bytes");
        }
    }

    #[test]
    fn plain_text_that_is_not_consumed_stops_the_decryption() {
        let (mut client, mut server) = connected(usize::MAX);
        let mut records = Vec::new();
        assert_eq!(client.encrypt(&[7; TLS_ENCRYPT_BYTES]).unwrap(), TLS_ENCRYPT_BYTES);
        client.append_records(&mut records);
        let taken_bytes = server.decrypt(&records).unwrap();
        assert!(taken_bytes < records.len());
        assert_eq!(server.decrypt(&records[taken_bytes..]).unwrap(), 0);
        let mut plain_bytes = 0;
        while let Some(text @ [_, ..]) = server.plain_text() {
            let text_bytes = text.len();
            server.consume(text_bytes);
            plain_bytes += text_bytes;
        }
        assert!((1..=32 * 1024).contains(&plain_bytes), "{plain_bytes}");
        assert!(server.decrypt(&records[taken_bytes..]).unwrap() > 0);
    }

    #[test]
    fn nothing_is_taken_after_a_close_notify() {
        let (mut client, mut server) = connected(usize::MAX);
        assert_eq!(server.plain_text(), None, "the peer may still send plain text");
        client.close();
        assert!(pass(&mut client, &mut server, usize::MAX).is_empty());
        assert_eq!(server.plain_text(), Some(&[][..]));
        assert_eq!(server.decrypt(b"more").unwrap(), 0);
    }

    #[test]
    fn bytes_that_are_not_tls_are_an_error_and_cause_an_alert() {
        let (mut server, mut records) = (server(), Vec::new());
        server.decrypt(b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
        server.append_records(&mut records);
        assert_eq!(records.first(), Some(&21), "the content type of an alert");

        // A handshake message of 16 MiB is refused before it has arrived.
        let (mut server, mut error) = (self::server(), None);
        for n in 0..1000 {
            let mut record = b"\x16\x03\x01\x40\x00".to_vec();
            record.extend(if n == 0 { b"\x01\xff\xff\xff" } else { &[0; 4] });
            record.resize(5 + 0x4000, 0);
            if let Err(refused) = server.decrypt(&record) {
                error = Some(refused);
                break;
            }
        }
        assert!(error.is_some());
    }
}
