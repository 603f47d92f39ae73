//! `forebay schema`

use super::{
    Exit,
    database::{postgres, refused, with_connect_result},
    print::print,
};
use crate::{
    config::{Config, PostgresTarget, args::ServeArgs},
    postgres::{
        connect::ConnectError,
        schema::{
            self, SchemaError, compare,
            difference::Difference,
            triggers::{self, TriggerReport},
        },
    },
    rt,
    serve::schema_settings,
};
use clap::Subcommand;
use forebay_pgwire::{Connection, Error, SearchPath};

/// Most operations that a migration's ring has in flight.
const RING_OPERATIONS: u32 = 64;

#[derive(Subcommand)]
pub(super) enum SchemaCommand {
    /// Print the schema as SQL, for an empty database
    Print {
        /// Name of the schema
        #[arg(long, env = "FOREBAY_SCHEMA", default_value = "forebay", value_name = "NAME")]
        schema: String,
    },
    /// Bring the schema up to date in the database that --postgres names, and make its views again
    Migrate {
        #[command(flatten)]
        args: Box<ServeArgs>,
    },
    /// Compare the schema in the database with what the daemon relies on; exit code 1 if something differs
    Check {
        #[command(flatten)]
        args: Box<ServeArgs>,
    },
}

pub(super) fn run(command: SchemaCommand) -> Result<(), Exit> {
    match command {
        SchemaCommand::Print { schema } => print(|out| out.write_all(schema::print(&schema).as_bytes())),
        SchemaCommand::Migrate { args } => migrate(&Config::resolve(*args)?),
        SchemaCommand::Check { args } => check(&Config::resolve(*args)?),
    }
}

/// A migration may take its time, so the connection has no limits.
fn migrate(config: &Config) -> Result<(), Exit> {
    let PostgresTarget::External(target) = &config.postgres else {
        return Err(Exit::usage("name the database with --postgres; `forebay serve` migrates the private one"));
    };
    let mut runtime = rt::runtime(RING_OPERATIONS).map_err(|error| Exit::usage(error.to_string()))?;
    runtime.block_on(async {
        let mut conn = Connection::connect(target, SearchPath::System).await.map_err(postgres)?;
        let refused = |error: SchemaError| Exit::postgres(error.to_string());
        schema_settings(config).check(&mut conn).await.map_err(refused)?;
        schema::ensure(&mut conn, &config.schema, true).await.map_err(refused)?;
        schema::make_views(&mut conn, &config.schema).await.map_err(postgres)
    })?;
    print(|out| writeln!(out, "schema {:?} has version {}", config.schema, schema::VERSION))
}

fn check(config: &Config) -> Result<(), Exit> {
    let report = with_connect_result(config, async |connected| match connected {
        Ok(mut conn) => Report::make(&mut conn, &config.schema).await.map_err(postgres),
        Err(ConnectError::Untrusted(untrusted)) => Ok(Report::of(vec![format!("stops delivery: {untrusted}")])),
        Err(error) => Err(refused(error)),
    })?;
    print(|out| report.findings.iter().chain(&report.warnings).try_for_each(|line| writeln!(out, "{line}")))?;
    if !report.findings.is_empty() {
        return Err(Exit::findings());
    }
    print(|out| writeln!(out, "the schema {:?} has all that this release relies on", config.schema))
}

/// What `schema check` says, a line for each thing.
struct Report {
    /// Differences.
    findings: Vec<String>,
    /// What may lead to errors, but is no difference.
    warnings: Vec<String>,
}

impl Report {
    fn of(findings: Vec<String>) -> Self {
        Self { findings, warnings: Vec::new() }
    }

    async fn make(conn: &mut Connection, schema: &str) -> Result<Self, Error> {
        let version = schema::version(conn, schema).await?;
        if version != schema::VERSION {
            let needed = schema::VERSION;
            return Ok(Self::of(vec![format!("stops delivery: the schema has version {version}, not {needed}")]));
        }
        let line = |difference: &Difference| match difference.stops_delivery() {
            true => format!("stops delivery: {difference}"),
            false => format!("differs: {difference}"),
        };
        let findings = compare::differences(conn, schema).await?.iter().map(line).collect();
        let TriggerReport { triggers, warnings } = triggers::report(conn, schema).await?;
        let of_others = triggers.iter().map(|trigger| format!("note: there is a trigger of others, {trigger}"));
        let warnings = of_others.chain(warnings.iter().map(|warning| format!("warning: {warning}"))).collect();
        Ok(Self { findings, warnings })
    }
}
