//! The server's messages, decoded and checked as a whole.
//!
//! `postgres-protocol` decodes the lists inside a message lazily. This module walks them once, on arrival, so that a
//! malformed message causes one typed error in one place.

use std::sync::Arc;

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::Oid;
use postgres_protocol::message::backend::{self, Message};

use super::TransactionStatus;
use super::session::Notification;
use crate::db_error::DbError;
use crate::error::ProtocolError;
use crate::types::{Column, DataRow, Format};

/// An authentication request of the server, or its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// The log-in succeeded.
    Ok,
    /// The server asks for the password in clear.
    CleartextPassword,
    /// The server asks for the password hashed with MD5 and this salt.
    Md5Password([u8; 4]),
    /// The server asks for SASL with one of these mechanisms.
    Sasl(Vec<String>),
    /// The server's SASL challenge.
    SaslContinue(Bytes),
    /// The server's proof that it knows the password.
    SaslFinal(Bytes),
    /// A method that the client does not implement, by name.
    Unsupported(&'static str),
}

/// The tag of a command that completed, for example `INSERT 0 5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTag(String);

impl CommandTag {
    /// The tag's text; empty for an empty query.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of rows that the command inserted, updated, deleted, selected or copied; 0 for other commands.
    pub fn rows(&self) -> u64 {
        // A tag without a number at its end, such as `BEGIN`, counts no rows.
        self.0.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn empty() -> Self {
        Self(String::new())
    }
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// An authentication request, or its result.
    Authentication(Authentication),
    /// The data of a cancel request.
    BackendKey {
        /// The process id of the session's backend.
        process_id: i32,
        /// The session's secret.
        secret_key: i32,
    },
    /// The value of a run-time parameter.
    ParameterStatus {
        /// The parameter's name.
        name: String,
        /// The parameter's value.
        value: String,
    },
    /// Parse has completed.
    ParseComplete,
    /// Bind has completed.
    BindComplete,
    /// Close has completed.
    CloseComplete,
    /// The statement returns no rows.
    NoData,
    /// The types of the statement's parameters.
    ParameterDescription(Vec<Oid>),
    /// The columns of the following rows.
    RowDescription(Arc<[Column]>),
    /// A row.
    DataRow(DataRow),
    /// A command has completed.
    CommandComplete(CommandTag),
    /// The query string was empty.
    EmptyQuery,
    /// Execute has reached its row limit.
    PortalSuspended,
    /// The server is waiting for CopyData.
    CopyInResponse,
    /// The server will send CopyData.
    CopyOutResponse,
    /// Data of a COPY TO.
    CopyData(Bytes),
    /// The end of a COPY TO.
    CopyDone,
    /// An error.
    Error(Box<DbError>),
    /// A notice. It may arrive at any time.
    Notice(Box<DbError>),
    /// A notification. It may arrive at any time.
    Notification(Notification),
    /// The server is waiting for the next command.
    ReadyForQuery(TransactionStatus),
}

impl Backend {
    /// The message's name in PostgreSQL's documentation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authentication(_) => "Authentication",
            Self::BackendKey { .. } => "BackendKeyData",
            Self::ParameterStatus { .. } => "ParameterStatus",
            Self::ParseComplete => "ParseComplete",
            Self::BindComplete => "BindComplete",
            Self::CloseComplete => "CloseComplete",
            Self::NoData => "NoData",
            Self::ParameterDescription(_) => "ParameterDescription",
            Self::RowDescription(_) => "RowDescription",
            Self::DataRow(_) => "DataRow",
            Self::CommandComplete(_) => "CommandComplete",
            Self::EmptyQuery => "EmptyQueryResponse",
            Self::PortalSuspended => "PortalSuspended",
            Self::CopyInResponse => "CopyInResponse",
            Self::CopyOutResponse => "CopyOutResponse",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::Error(_) => "ErrorResponse",
            Self::Notice(_) => "NoticeResponse",
            Self::Notification(_) => "NotificationResponse",
            Self::ReadyForQuery(_) => "ReadyForQuery",
        }
    }

    /// Whether a message with this tag may arrive at any time, independent of the request.
    pub fn is_asynchronous_tag(tag: u8) -> bool {
        matches!(tag, backend::NOTICE_RESPONSE_TAG | backend::PARAMETER_STATUS_TAG | backend::NOTIFICATION_RESPONSE_TAG)
    }

    pub(crate) fn from_wire(message: Message) -> Result<Self, ProtocolError> {
        Ok(match message {
            Message::BackendKeyData(body) => {
                Self::BackendKey { process_id: body.process_id(), secret_key: body.secret_key() }
            }
            Message::BindComplete => Self::BindComplete,
            Message::CloseComplete => Self::CloseComplete,
            Message::CommandComplete(body) => Self::CommandComplete(CommandTag(
                body.tag().map_err(malformed(backend::COMMAND_COMPLETE_TAG))?.to_owned(),
            )),
            Message::CopyData(body) => Self::CopyData(body.into_bytes()),
            Message::CopyDone => Self::CopyDone,
            Message::CopyInResponse(_) => Self::CopyInResponse,
            Message::CopyOutResponse(_) => Self::CopyOutResponse,
            Message::DataRow(body) => Self::DataRow(data_row(&body)?),
            Message::EmptyQueryResponse => Self::EmptyQuery,
            Message::ErrorResponse(body) => Self::Error(diagnostic(backend::ERROR_RESPONSE_TAG, &mut body.fields())?),
            Message::NoData => Self::NoData,
            Message::NoticeResponse(body) => {
                Self::Notice(diagnostic(backend::NOTICE_RESPONSE_TAG, &mut body.fields())?)
            }
            Message::NotificationResponse(body) => Self::Notification(notification(&body)?),
            Message::ParameterDescription(body) => Self::ParameterDescription(
                body.parameters().collect().map_err(malformed(backend::PARAMETER_DESCRIPTION_TAG))?,
            ),
            Message::ParameterStatus(body) => Self::ParameterStatus {
                name: body.name().map_err(malformed(backend::PARAMETER_STATUS_TAG))?.to_owned(),
                value: body.value().map_err(malformed(backend::PARAMETER_STATUS_TAG))?.to_owned(),
            },
            Message::ParseComplete => Self::ParseComplete,
            Message::PortalSuspended => Self::PortalSuspended,
            Message::ReadyForQuery(body) => Self::ReadyForQuery(transaction_status(body.status())?),
            Message::RowDescription(body) => Self::RowDescription(columns(&body)?),
            other => Self::Authentication(authentication(other)?),
        })
    }
}

fn authentication(message: Message) -> Result<Authentication, ProtocolError> {
    Ok(match message {
        Message::AuthenticationOk => Authentication::Ok,
        Message::AuthenticationCleartextPassword => Authentication::CleartextPassword,
        Message::AuthenticationMd5Password(body) => Authentication::Md5Password(body.salt()),
        Message::AuthenticationSasl(body) => Authentication::Sasl(
            body.mechanisms()
                .map(|mechanism| Ok(mechanism.to_owned()))
                .collect()
                .map_err(malformed(backend::AUTHENTICATION_TAG))?,
        ),
        Message::AuthenticationSaslContinue(body) => Authentication::SaslContinue(Bytes::copy_from_slice(body.data())),
        Message::AuthenticationSaslFinal(body) => Authentication::SaslFinal(Bytes::copy_from_slice(body.data())),
        Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => Authentication::Unsupported("GSSAPI"),
        Message::AuthenticationKerberosV5 => Authentication::Unsupported("Kerberos V5"),
        Message::AuthenticationScmCredential => Authentication::Unsupported("SCM credentials"),
        Message::AuthenticationSspi => Authentication::Unsupported("SSPI"),
        // `Message` is non-exhaustive. This client cannot handle kinds that it does not know.
        _ => return Err(ProtocolError::Malformed { tag: b'?', reason: "a message of an unknown kind".to_owned() }),
    })
}

fn data_row(body: &backend::DataRowBody) -> Result<DataRow, ProtocolError> {
    let mut ranges = body.ranges();
    let fields = ranges.size_hint().0;
    // After this walk to the end, the row can be read without further checks of its form.
    while ranges.next().map_err(malformed(backend::DATA_ROW_TAG))?.is_some() {}
    Ok(DataRow::checked(fields, body.buffer_bytes().clone()))
}

fn columns(body: &backend::RowDescriptionBody) -> Result<Arc<[Column]>, ProtocolError> {
    let columns: Vec<Column> = body
        .fields()
        .map(|field| {
            let format = if field.format() == 0 { Format::Text } else { Format::Binary };
            Ok(Column { name: field.name().to_owned(), type_oid: field.type_oid(), format })
        })
        .collect()
        .map_err(malformed(backend::ROW_DESCRIPTION_TAG))?;
    Ok(columns.into())
}

fn diagnostic(tag: u8, fields: &mut backend::ErrorFields<'_>) -> Result<Box<DbError>, ProtocolError> {
    let mut error = DbError::default();
    while let Some(field) = fields.next().map_err(malformed(tag))? {
        error.set_field(field.type_(), field.value_bytes());
    }
    Ok(Box::new(error))
}

fn notification(body: &backend::NotificationResponseBody) -> Result<Notification, ProtocolError> {
    let tag = backend::NOTIFICATION_RESPONSE_TAG;
    Ok(Notification {
        process_id: body.process_id(),
        channel: body.channel().map_err(malformed(tag))?.to_owned(),
        payload: body.message().map_err(malformed(tag))?.to_owned(),
    })
}

fn transaction_status(status: u8) -> Result<TransactionStatus, ProtocolError> {
    match status {
        b'I' => Ok(TransactionStatus::Idle),
        b'T' => Ok(TransactionStatus::InTransaction),
        b'E' => Ok(TransactionStatus::Failed),
        _ => {
            Err(ProtocolError::Malformed { tag: backend::READY_FOR_QUERY_TAG, reason: "transaction status".to_owned() })
        }
    }
}

fn malformed(tag: u8) -> impl Fn(std::io::Error) -> ProtocolError {
    move |error| ProtocolError::Malformed { tag, reason: error.to_string() }
}
