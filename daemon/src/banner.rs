//! The lines that `serve` prints on standard output once it listens.

use forebay_cluster::Watch;
use std::net::SocketAddr;

/// Prints three curl commands that work as they are, and how to open a shell in the private PostgreSQL.
pub fn print(address: SocketAddr, postgres: Option<&Watch>) {
    println!("forebay is listening on http://{address}\n");
    println!("  curl http://{address}/push/events -d '{{\"hello\":\"world\"}}'");
    println!("  curl 'http://{address}/push/events/orders?wait=postgres' -d '{{\"order\":1}}'");
    println!("  curl http://{address}/api/v1/status/buffers");
    if let Some(watch) = postgres {
        let cluster = watch.cluster();
        let psql = cluster.binaries().path("psql");
        println!(
            "\n  {} -h {} -U forebay forebay -c 'TABLE forebay.message_log'",
            psql.display(),
            cluster.socket_dir().display()
        );
    }
    println!();
}
