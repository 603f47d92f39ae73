//! Requests a second: 64 tasks on one channel, one task on it, and pgbench on one connection.

use crate::{
    Settings, median,
    server::{Ids, Server, deadline, select},
    spread,
};
use forebay::{postgres::channel::Unit, rt};
use forebay_pgwire::Param;
use std::{
    cell::Cell,
    fmt::Write,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

const TASKS: usize = 64;

/// Runs the rounds; a Markdown table.
pub(crate) fn run(server: &Server, settings: &Settings) -> String {
    let (mut many, mut one, mut pgbench) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=settings.rounds {
        many.push(channel(server, TASKS, settings.seconds));
        pgbench.push(pipelined(server, settings.seconds));
        one.push(channel(server, 1, settings.seconds));
        eprintln!("channel: throughput, round {round} of {}", settings.rounds);
    }
    let ratio = |of: &[f64], to: &[f64]| {
        let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        median(&ratios)
    };
    let mut table =
        "| primary-key SELECTs, one connection | a second | 64 tasks against it |\n|---|---|---|\n".to_owned();
    writeln!(table, "| channel, {TASKS} tasks | {} | |", spread(&many)).unwrap();
    writeln!(table, "| channel, one task | {} | {:.1} |", spread(&one), ratio(&many, &one)).unwrap();
    writeln!(table, "| pgbench, pipelines of {TASKS} | {} | {:.2} |", spread(&pgbench), ratio(&many, &pgbench))
        .unwrap();
    table
}

/// Requests a second of so many tasks, each of which asks again when it has its answer.
fn channel(server: &Server, tasks: usize, seconds: u64) -> f64 {
    server.with_channel(async |channel| {
        let sql = select();
        // Connected, and the statement prepared.
        for id in 1..4 {
            channel.submit(Unit::read(&sql, &[Param::I64(id)]), deadline(), None).await.unwrap();
        }
        let (answers, running) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(tasks)));
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        for task in 0..tasks {
            let (channel, sql) = (channel.clone(), Rc::clone(&sql));
            let (answers, running) = (Rc::clone(&answers), Rc::clone(&running));
            rt::spawn(async move {
                let mut ids = Ids::new(task as u64);
                while Instant::now() < end {
                    let unit = Unit::read(&sql, &[Param::I64(ids.next())]);
                    let results = channel.submit(unit, deadline(), None).await.unwrap().into_results().unwrap();
                    assert!(results[0].rows[0].get_str(0).unwrap().starts_with("payload"));
                    answers.set(answers.get() + 1);
                }
                running.set(running.get() - 1);
            });
        }
        while running.get() > 0 {
            rt::sleep(Duration::from_millis(1)).await;
        }
        answers.get() as f64 / begun.elapsed().as_secs_f64()
    })
}

/// SELECTs a second of pgbench.
fn pipelined(server: &Server, seconds: u64) -> f64 {
    let one =
        format!("\\set id random(1, {})\nSELECT payload FROM public.items WHERE id = :id;\n", crate::server::ROWS);
    let script = format!("\\startpipeline\n{}\\endpipeline\n", one.repeat(TASKS));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeline.sql");
    std::fs::write(&path, script).unwrap();
    let mut command = Command::new(server.program("pgbench"));
    command.args(["-M", "prepared", "-n", "-c", "1", "-j", "1", "-T", &seconds.to_string(), "-f"]);
    let output = command.arg(&path).arg(server.url()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    tps.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))) * TASKS as f64
}
