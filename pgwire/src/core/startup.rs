//! Start-up: from the first byte to the first ReadyForQuery. It authenticates the client, and with SCRAM the server.
//!
//! The client refuses:
//! - an AuthenticationOk in the middle of SCRAM. The server must prove that it knows the password, too. A server that
//!   skips its proof may be an impostor.
//! - a request for the password in clear over an unencrypted TCP connection. Over a unix socket the password is sent:
//!   only the kernel sees it, and the directory's permissions decide who may listen there.
//! - with `channel_binding=require`, every authentication except SCRAM bound to the server's certificate.

use std::fmt;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::TransactionStatus;
use super::message::{Authentication, Backend};
use crate::error::{AuthError, Error, ProtocolError, usage};
use crate::options::ChannelBinding;

const DURING: &str = "start-up";

/// The data of a cancel request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CancelKey {
    /// The process id of the session's backend.
    pub process_id: i32,
    /// The session's secret.
    pub secret_key: i32,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// The user who logs in.
#[derive(Clone)]
pub struct Credentials {
    /// The role.
    pub user: String,
    /// The password, if one is set.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The kind of channel that the start-up uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A unix socket.
    Local,
    /// TCP without encryption.
    Open,
    /// TLS.
    Tls {
        /// The hash of the server's certificate for channel binding, as in RFC 5929, `tls-server-end-point`. `None` if
        /// the certificate's signature algorithm has no hash function, so that binding is impossible.
        end_point_hash: Option<Vec<u8>>,
    },
}

/// The security of the start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// The kind of channel.
    pub channel: Channel,
    /// Whether the authentication is bound to the channel.
    pub channel_binding: ChannelBinding,
}

/// What the driver must do after a message of the start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartupProgress {
    /// Send the buffer's content, if there is any, and pass in the next message.
    More,
    /// The session is open.
    Ready {
        /// The key for cancel requests; `None` if the server sent none, as some poolers do.
        cancel_key: Option<CancelKey>,
        /// The status in the first ReadyForQuery.
        transaction_status: TransactionStatus,
    },
}

enum State {
    AwaitRequest,
    AwaitChallenge(ScramSha256),
    AwaitProof(ScramSha256),
    AwaitOk,
    Authenticated,
    /// Every further authentication request is refused.
    Failed,
}

/// A start-up in progress.
pub struct Startup {
    credentials: Credentials,
    security: Security,
    state: State,
    cancel_key: Option<CancelKey>,
}

impl fmt::Debug for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Startup").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Startup {
    /// Begins a start-up: appends the StartupMessage with these run-time parameters, which must include `user`, to
    /// `send`.
    ///
    /// # Errors
    /// [`Error::Usage`] if a parameter contains a NUL.
    pub fn begin<'a>(
        credentials: Credentials,
        security: Security,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        send: &mut BytesMut,
    ) -> Result<Self, Error> {
        frontend::startup_message(parameters, send).map_err(usage("a start-up parameter"))?;
        Ok(Self { credentials, security, state: State::AwaitRequest, cancel_key: None })
    }

    /// Takes the server's next message, which must not be asynchronous, and appends the reply to `send`.
    ///
    /// # Errors
    /// - [`Error::Server`] if the server refuses the log-in,
    /// - [`Error::Auth`] if the client refuses the server, or lacks the password or the authentication method,
    /// - [`Error::Protocol`] if the message is not allowed at this point.
    pub fn on_message(&mut self, message: Backend, send: &mut BytesMut) -> Result<StartupProgress, Error> {
        match message {
            Backend::Error(error) => return Err(Error::Server(error)),
            Backend::Authentication(request) => self.on_authentication(request, send)?,
            Backend::BackendKey { process_id, secret_key } if matches!(self.state, State::Authenticated) => {
                self.cancel_key = Some(CancelKey { process_id, secret_key });
            }
            Backend::ReadyForQuery(transaction_status) if matches!(self.state, State::Authenticated) => {
                return Ok(StartupProgress::Ready { cancel_key: self.cancel_key, transaction_status });
            }
            other => return Err(ProtocolError::unexpected(&other, DURING).into()),
        }
        Ok(StartupProgress::More)
    }

    fn on_authentication(&mut self, request: Authentication, send: &mut BytesMut) -> Result<(), Error> {
        if matches!(self.state, State::AwaitRequest)
            && self.security.channel_binding == ChannelBinding::Require
            && !matches!(request, Authentication::Sasl(_))
        {
            return Err(AuthError::NotBound.into());
        }
        // The state stays `Failed` if one of the following steps returns an error.
        let state = std::mem::replace(&mut self.state, State::Failed);
        self.state = match (state, request) {
            (State::AwaitRequest | State::AwaitOk, Authentication::Ok) => State::Authenticated,
            (State::AwaitRequest, Authentication::CleartextPassword) => {
                if self.security.channel == Channel::Open {
                    return Err(AuthError::CleartextInTheOpen.into());
                }
                password_message(self.password()?.as_bytes(), send)?;
                State::AwaitOk
            }
            (State::AwaitRequest, Authentication::Md5Password(salt)) => {
                let hash = md5_hash(self.credentials.user.as_bytes(), self.password()?.as_bytes(), salt);
                password_message(hash.as_bytes(), send)?;
                State::AwaitOk
            }
            (State::AwaitRequest, Authentication::Sasl(mechanisms)) => self.begin_scram(&mechanisms, send)?,
            (State::AwaitChallenge(mut scram), Authentication::SaslContinue(challenge)) => {
                scram.update(&challenge).map_err(|error| AuthError::Scram { reason: error.to_string() })?;
                frontend::sasl_response(scram.message(), send).map_err(usage("the SCRAM answer"))?;
                State::AwaitProof(scram)
            }
            (State::AwaitProof(mut scram), Authentication::SaslFinal(proof)) => {
                scram.finish(&proof).map_err(|_| AuthError::ServerNotProven)?;
                State::AwaitOk
            }
            (State::AwaitChallenge(_) | State::AwaitProof(_), Authentication::Ok) => {
                return Err(AuthError::ServerNotProven.into());
            }
            (_, Authentication::Unsupported(method)) => {
                return Err(AuthError::UnsupportedMethod { method: method.to_owned() }.into());
            }
            (_, other) => {
                return Err(ProtocolError::unexpected(&Backend::Authentication(other), DURING).into());
            }
        };
        Ok(())
    }

    fn begin_scram(&self, mechanisms: &[String], send: &mut BytesMut) -> Result<State, Error> {
        let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let (mechanism, binding) = self.binding(offers(SCRAM_SHA_256_PLUS));
        if mechanism != SCRAM_SHA_256_PLUS && self.security.channel_binding == ChannelBinding::Require {
            return Err(AuthError::NotBound.into());
        }
        if !offers(mechanism) {
            return Err(AuthError::UnsupportedMethod { method: format!("SASL {}", mechanisms.join(", ")) }.into());
        }
        let scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), send).map_err(usage("the first SCRAM message"))?;
        Ok(State::AwaitChallenge(scram))
    }

    /// The SASL mechanism to use, and the channel binding flag to send.
    fn binding(&self, server_binds: bool) -> (&'static str, sasl::ChannelBinding) {
        let hash = match &self.security {
            Security { channel_binding: ChannelBinding::Disable, .. } => None,
            Security { channel: Channel::Tls { end_point_hash }, .. } => end_point_hash.as_ref(),
            Security { .. } => None,
        };
        match hash {
            Some(hash) if server_binds => {
                (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash.clone()))
            }
            // This flag says that the client can bind, and that the server has not offered it. A server that has
            // offered it then knows that somebody removed the offer.
            Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        }
    }

    fn password(&self) -> Result<&str, AuthError> {
        self.credentials.password.as_deref().ok_or(AuthError::PasswordMissing)
    }
}

fn password_message(password: &[u8], send: &mut BytesMut) -> Result<(), Error> {
    frontend::password_message(password, send).map_err(usage("the password"))
}
