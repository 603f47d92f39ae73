//! The lines that `serve` prints on standard output once it listens.

use crate::ignore::ignore;
use forebay_cluster::HelpedServer;
use std::{
    fmt::{self, Write as _},
    io::Write as _,
    net::SocketAddr,
};

/// Prints three curl commands that work as they are, and how to open a shell in the private PostgreSQL. A thread of its own
/// does so, for standard output may take nothing, or nobody may read it.
pub fn print(address: SocketAddr, postgres: Option<&HelpedServer>) {
    let mut text = String::new();
    ignore(write(&mut text, address, postgres), "a string takes everything");
    let print = move || ignore(std::io::stdout().write_all(text.as_bytes()), "nobody reads standard output");
    let started = std::thread::Builder::new().name("banner".into()).spawn(print);
    ignore(started.map(drop), "the banner is a courtesy");
}

fn write(out: &mut String, address: SocketAddr, postgres: Option<&HelpedServer>) -> fmt::Result {
    writeln!(out, "forebay is listening on http://{address}\n")?;
    writeln!(out, "  curl http://{address}/push/events -d '{{\"hello\":\"world\"}}'")?;
    writeln!(out, "  curl 'http://{address}/push/events/orders?wait=postgres' -d '{{\"order\":1}}'")?;
    writeln!(out, "  curl http://{address}/api/v1/status/buffers")?;
    if let Some(HelpedServer { psql, socket_dir, .. }) = postgres {
        let (psql, socket_dir) = (psql.display(), socket_dir.display());
        writeln!(out, "\n  {psql} -h {socket_dir} -U forebay forebay -c 'TABLE forebay.message_log'")?;
    }
    writeln!(out)
}
