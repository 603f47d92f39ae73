//! Connections: from a socket to requests, and from replies back to the socket.
//!
//! ```text
//!   server ─► listener ─► serve ─► conversation ─► requests     a pass over the buffer: bytes in, replies out, no I/O
//!     │                     │            ├───────► body, stream what does not fit in a buffer
//!     └► sweep ─► registry  └► parked    └───────► exchange     reads, writes, budget ─► rt
//!                    └───────────────────────────► watch        phases and timeouts
//! ```
//!
//! All complete requests at hand are taken in one pass and answered with one write, in their order. An idle connection has
//! neither a buffer nor a conversation. A connection whose reply waits for PostgreSQL keeps the reply and little else.

mod body;
mod budget;
mod conversation;
mod exchange;
pub mod listener;
mod parked;
mod registry;
mod requests;
mod server;
mod stream;
mod sweep;
mod watch;

pub use server::{CoreFailed, ServerStart, run};

use crate::{
    ignore::ignore,
    rt,
    rt::{Socket, TlsStream, Transport},
    tls::TlsSession,
};
use conversation::{Conversation, ConversationEnd};
use monoio::io::AsyncWriteRent;
use registry::Registered;
use watch::Phase;

/// Serves a connection to its end, over any transport; `registered` is the entry of the socket below it.
async fn serve<S: Transport>(mut stream: S, registered: Registered) {
    let (server, watch) = (registered.server(), registered.watch());
    let mut parked = None;
    loop {
        let conversation = match parked.take() {
            Some(parked) => Conversation::resume(server, &mut stream, watch, parked),
            None => {
                watch.go_on(Phase::Idle);
                let readable =
                    if server.is_shutting_down() { stream.shutdown().await } else { stream.readable().await };
                if server.is_shutting_down() || readable.is_err() {
                    return;
                }
                Conversation::new(server, &mut stream, watch)
            }
        };
        match rt::catch_panic(Box::pin(conversation.run())).await {
            Some(Ok(ConversationEnd::Idle)) => {}
            Some(Ok(ConversationEnd::Closed)) => return,
            Some(Ok(ConversationEnd::Parked(mut waiting))) => {
                if rt::catch_panic(Box::pin(waiting.settle(watch))).await.is_none() {
                    return give_up_after_panic();
                }
                parked = Some(*waiting);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection ended");
                return;
            }
            None => return give_up_after_panic(),
        }
    }
}

fn give_up_after_panic() {
    tracing::error!(code = "connection_panicked", "a connection was given up after a panic");
}

/// Serves a connection under TLS. A handshake has the time that a head has.
async fn serve_tls(socket: Socket, session: TlsSession, registered: Registered) {
    let (server, watch) = (registered.server(), registered.watch());
    let mut stream = TlsStream::new(socket, session);
    watch.begin(Phase::Head, server.now_ms());
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
