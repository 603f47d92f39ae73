//! A core in this very process, for what only its own process can look at, or bring about.

use forebay::{
    config::{Config, args::ServeArgs},
    connection::{self, ServerStart, listener::bind_all},
    postgres::worker::PgRequests,
    queue::thread::QueueRequests,
    state::{
        commits::Commits,
        database_health::{DatabaseHealth, HealthMonitor},
        drain_signal::DrainSignal,
        drain_view::DrainView,
        log_view::LogView,
        mailbox::Mailboxes,
        pulse::Pulse,
    },
};
use forebay_wal::log::{self, LogOptions};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc::channel},
};

/// Starts one on a thread of its own, which runs `first` before; nothing drains what it takes. It ends with the process.
pub fn start_core(
    dir: &Path,
    health: DatabaseHealth,
    configure: impl FnOnce(&mut Config),
    first: impl FnOnce() + Send + 'static,
) -> SocketAddr {
    let args = ServeArgs { postgres: Some(super::NOWHERE.into()), ..ServeArgs::default() };
    let mut config = Config::resolve(args).unwrap();
    configure(&mut config);
    let (segment_bytes, quota_bytes) = (16 << 20, 256 << 20);
    let sync = forebay_wal::group::SyncMethod::None;
    let mut log = log::open(&LogOptions { dir: dir.join("wal"), lanes: 1, sync, segment_bytes, quota_bytes }).unwrap();
    let mailboxes = Arc::new(Mailboxes::new(1).unwrap());
    let monitor = Arc::new(HealthMonitor::new(Arc::clone(&mailboxes)));
    monitor.set(health);
    let (mut sockets, address) = bind_all(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let (lane, socket) = (log.lanes.remove(0), sockets.remove(0));
    std::thread::spawn(move || {
        first();
        let pg_requests = PgRequests::new(Arc::clone(&mailboxes)).unwrap();
        let commits = Arc::new(Commits::new().unwrap());
        let queue_requests = QueueRequests::new(Arc::clone(&mailboxes), commits).unwrap();
        let start = ServerStart {
            gate: Arc::new(forebay::access::Gate::open(&config).unwrap()),
            config: Arc::new(config),
            log: Arc::new(LogView::new(&log, None, (segment_bytes, quota_bytes), false)),
            drain: Arc::new(DrainView::new(DrainSignal::new().unwrap(), None)),
            health: monitor,
            mailboxes,
            pulses: Arc::new([Pulse::default()]),
            connections: Arc::default(),
            memory: Arc::default(),
            pg_requests,
            queue_requests,
            lane,
            socket,
            cpu: None,
            connections_max: 100,
            on_failure: Box::new(|failed| panic!("{failed}")),
            starting: channel().0,
        };
        connection::run(start).unwrap();
        // It lives as long as the core.
        drop(log);
    });
    address
}
