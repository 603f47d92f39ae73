//! Serves one connection to its end: idle, in a conversation, or waiting for PostgreSQL.

use super::{
    conversation::{Conversation, ConversationEnd},
    parked::Parked,
    registry::Registered,
    server::Server,
    watch::{Phase, Watch},
};
use crate::{
    ignore::ignore,
    rt,
    rt::{Socket, TlsStream, Transport},
    tls::TlsSession,
};
use monoio::io::AsyncWriteRent;
use std::{io, pin::Pin};

/// Serves a connection to its end, over any transport; `registered` is the entry of the socket below it.
#[expect(clippy::manual_async_fn, reason = "the future of an async fn holds its arguments twice, for each connection")]
pub(super) fn serve<S: Transport>(mut stream: S, registered: Registered) -> impl Future<Output = ()> {
    async move {
        let (server, watch) = (registered.server(), registered.watch());
        let mut parked: Option<Box<Parked<'_>>> = None;
        loop {
            if let Some(parked) = &mut parked {
                if rt::poll_catching_panic(|cx| parked.poll_settled(watch, cx)).await.is_none() {
                    return give_up_after_panic();
                }
            } else {
                watch.go_on(Phase::Idle);
                if server.is_shutting_down() {
                    return ignore(stream.shutdown().await, "the client of an idle connection is gone already");
                }
                // With memory of its own, which a connection that waits for PostgreSQL does not need.
                let readable = Box::pin(stream.readable()).await;
                if server.is_shutting_down() || readable.is_err() {
                    return;
                }
            }
            match rt::catch_panic(converse(server, &mut stream, watch, parked.take())).await {
                Some(Ok(ConversationEnd::Idle)) => {}
                Some(Ok(ConversationEnd::Closed)) => return,
                Some(Ok(ConversationEnd::Parked(waiting))) => parked = Some(waiting),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection ended");
                    return;
                }
                None => return give_up_after_panic(),
            }
        }
    }
}

/// A conversation, with memory of its own: a connection has none while it is idle or waits for PostgreSQL.
fn converse<'c, S: Transport>(
    server: &'c Server,
    stream: &mut S,
    watch: &'c Watch,
    parked: Option<Box<Parked<'c>>>,
) -> Pin<Box<impl Future<Output = io::Result<ConversationEnd<'c>>>>> {
    Box::pin(match parked {
        None => Conversation::new(server, stream, watch).run(),
        Some(parked) => Conversation::resume(server, stream, watch, *parked).run(),
    })
}

/// The panic itself was reported, and ends the daemon.
fn give_up_after_panic() {
    tracing::debug!("a connection was given up after a panic");
}

/// Serves a connection under TLS. A handshake has the time that a head has.
pub(super) async fn serve_tls(socket: Socket, session: TlsSession, registered: Registered) {
    let (server, watch) = (registered.server(), registered.watch());
    let mut stream = TlsStream::new(socket, session);
    watch.begin(Phase::Handshake, server.now_ms());
    match stream.handshake().await {
        Ok(()) => {
            watch.begin(Phase::Idle, server.now_ms());
            serve(stream, registered).await;
        }
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            watch.begin(Phase::Lingering, server.now_ms());
            ignore(stream.shutdown().await, "a client whose handshake failed is gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::Reply, http::ResponseOptions};

    /// The future that `start` returns.
    fn future_bytes<A, B, F: Future>(_start: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_kept_of_a_connection_that_waits_stays_small() {
        // Each as a size class of the allocator; the task's has its header beside the future.
        assert!(future_bytes(serve::<Socket>) <= 208, "{}", future_bytes(serve::<Socket>));
        assert!(size_of::<Parked<'_>>() <= 128, "{}", size_of::<Parked<'_>>());
        let reply_bytes = size_of::<(Reply<'_>, ResponseOptions)>();
        assert!(reply_bytes <= 256, "{reply_bytes}");
    }
}
