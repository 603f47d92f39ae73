//! What `serve` says on standard output once it listens: lines to paste.

use forebay_cluster::Watch;
use std::net::SocketAddr;

/// Prints three curl lines that work, and how to look into the private PostgreSQL.
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
