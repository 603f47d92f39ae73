//! From the first byte to the first ReadyForQuery: who we are, and who the server is.
//!
//! Refused:
//! - an AuthenticationOk in the middle of SCRAM. The server has to prove that it knows the password as well; one that
//!   skips its proof may be anybody;
//! - the password in clear over a connection that is open to everybody between. A unix socket is not: the kernel
//!   carries it, and who may listen there is a matter of the directory's permissions, so that it is sent there;
//! - with `channel_binding=require`, every log-in but SCRAM bound to the server's certificate.

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

/// What a cancel request has to name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CancelKey {
    /// Process id of the session's backend.
    pub process_id: i32,
    /// Its secret.
    pub secret_key: i32,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// Who logs in.
#[derive(Clone)]
pub struct Credentials {
    /// The role.
    pub user: String,
    /// Its password, if there is one.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What carries the start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A unix socket.
    Local,
    /// TCP in the open.
    Open,
    /// TLS.
    Tls {
        /// Hash of the server's certificate, as RFC 5929's `tls-server-end-point` has it; `None` if the certificate's
        /// signature names no hash, so that there is nothing to bind to.
        end_point_hash: Option<Vec<u8>>,
    },
}

/// How far the channel is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// What carries the start-up.
    pub channel: Channel,
    /// Whether the log-in is bound to it.
    pub channel_binding: ChannelBinding,
}

/// What the driver has to do after a message of the start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartupProgress {
    /// Send what was appended to the buffer, if anything, and feed the next message.
    More,
    /// The session is open.
    Ready {
        /// The key to cancel with; absent if the server gave none (a pooler may not).
        cancel_key: Option<CancelKey>,
        /// What the first ReadyForQuery said.
        transaction_status: TransactionStatus,
    },
}

enum State {
    AwaitRequest,
    AwaitChallenge(ScramSha256),
    AwaitProof(ScramSha256),
    AwaitOk,
    Authenticated,
}

/// A start-up under way.
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
    /// Begins: appends the StartupMessage with these run-time parameters (which must include `user`) to `send`.
    ///
    /// # Errors
    /// [`Error::Usage`] if a parameter holds a NUL.
    pub fn begin<'a>(
        credentials: Credentials,
        security: Security,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        send: &mut BytesMut,
    ) -> Result<Self, Error> {
        frontend::startup_message(parameters, send).map_err(usage("a start-up parameter"))?;
        Ok(Self { credentials, security, state: State::AwaitRequest, cancel_key: None })
    }

    /// Takes the server's next message, which must not be an asynchronous one, and appends the answer to `send`.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses us, [`Error::Auth`] if we refuse the server or lack a password or
    /// method, [`Error::Protocol`] if the message does not belong here.
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
        // Left at AwaitOk on an error too; the start-up is over then anyway.
        let state = std::mem::replace(&mut self.state, State::AwaitOk);
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

    /// The mechanism to use, and what it says about binding.
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
            // "We would have": a server that offered to bind learns that somebody between took the offer away.
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
