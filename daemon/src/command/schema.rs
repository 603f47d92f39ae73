//! `forebay schema`

use super::{Exit, print::print};
use crate::{
    config::{Config, PostgresTarget, args::ServeArgs},
    postgres::schema,
    rt,
};
use clap::Subcommand;
use forebay_pgwire::Connection;

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
    /// Bring the schema up to date in the database that --postgres names
    Migrate {
        #[command(flatten)]
        args: Box<ServeArgs>,
    },
}

pub(super) fn run(command: SchemaCommand) -> Result<(), Exit> {
    match command {
        SchemaCommand::Print { schema } => print(|out| out.write_all(schema::print(&schema).as_bytes())),
        SchemaCommand::Migrate { args } => migrate(&Config::resolve(*args)?),
    }
}

fn migrate(config: &Config) -> Result<(), Exit> {
    let PostgresTarget::External(target) = &config.postgres else {
        return Err(Exit::usage("name the database with --postgres; `forebay serve` migrates the private one"));
    };
    let mut runtime = rt::runtime(RING_OPERATIONS).map_err(|error| Exit::usage(error.to_string()))?;
    runtime.block_on(async {
        let mut conn = Connection::connect(target).await.map_err(|error| Exit::postgres(error.to_string()))?;
        schema::ensure(&mut conn, &config.schema, true).await.map_err(|error| Exit::postgres(error.to_string()))
    })?;
    print(|out| writeln!(out, "schema {:?} has version {}", config.schema, schema::VERSION))
}
