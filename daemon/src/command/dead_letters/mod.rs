//! `forebay dead-letters`: what PostgreSQL refused, in its table and in files below the log, and what to do with it.
//!
//! Works beside a running daemon, which counts anew within a second or so.

use super::{
    Exit,
    database::with_channel,
    print::{note, print, print_json},
};
use crate::{
    config::{Config, args::ServeArgs},
    datadir::{open_wal, wal_dir},
    ids::rfc3339,
    letters::{
        files::LetterFiles,
        id::LetterId,
        page::{Listed, PAGE_MAX, Page, PageLimit},
        put_back::RetryOutcome,
        store::{DeadLetterStore, StoreError},
        view::{LetterView, RetryView, place},
    },
    postgres::schema::quoted,
};
use clap::{Args, Subcommand};

/// Characters of an error that `ls` shows.
const ERROR_SHOWN_CHARS: usize = 60;

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List them
    Ls {
        #[command(flatten)]
        at: At,
        /// Only of this queue
        #[arg(long, value_name = "QUEUE")]
        queue: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Show one whole
    Show {
        #[command(flatten)]
        at: At,
        /// Its id, as `ls` shows it
        id: LetterId,
    },
    /// Put messages back, each as the last one of its partition; exit code 1 if one is refused again
    Retry {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        which: Which,
    },
    /// Drop messages for good
    Drop {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        which: Which,
        /// With --all: it is understood that this cannot be taken back
        #[arg(long)]
        yes: bool,
    },
}

/// Where they are, and how they are shown.
#[derive(Args)]
pub(super) struct At {
    #[command(flatten)]
    args: Box<ServeArgs>,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Which of them.
#[derive(Args)]
pub(super) struct Which {
    /// Their ids, as `ls` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<LetterId>,
    /// All
    #[arg(long)]
    all: bool,
    /// With --all: only of this queue
    #[arg(long, value_name = "QUEUE", requires = "all")]
    queue: Option<String>,
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Postgres(_) | StoreError::NoRoom(_) => Self::postgres(error.to_string()),
            StoreError::Files(_) => Self::storage(error.to_string()),
        }
    }
}

pub(super) fn run(command: DeadLettersCommand) -> Result<(), Exit> {
    match command {
        DeadLettersCommand::Ls { at, queue, limit } => {
            let json = at.json;
            at.with_store(async |store| ls(store, queue.as_deref(), limit, json).await)
        }
        DeadLettersCommand::Show { at, id } => {
            let json = at.json;
            at.with_store(async |store| show(store, id, json).await)
        }
        DeadLettersCommand::Retry { at, which } => {
            let json = at.json;
            at.with_store(async |store| retry(store, &which, json).await)
        }
        DeadLettersCommand::Drop { which: Which { all: true, .. }, yes: false, .. } => {
            Err(Exit::usage("dropping them all cannot be taken back: say --yes"))
        }
        DeadLettersCommand::Drop { at, which, yes: _ } => {
            let json = at.json;
            at.with_store(async |store| remove(store, &which, json).await)
        }
    }
}

impl At {
    fn with_store(self, work: impl AsyncFnOnce(&DeadLetterStore) -> Result<(), Exit>) -> Result<(), Exit> {
        let config = Config::resolve(*self.args)?;
        let failed = |error| Exit::storage(format!("cannot open {}: {error}", wal_dir(&config.data_dir).display()));
        with_channel(&config, async |client| {
            let files = match open_wal(&config.data_dir) {
                // The table may be looked at from anywhere.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => LetterFiles::none(),
                wal => LetterFiles::below(&wal.map_err(failed)?),
            };
            work(&DeadLetterStore::new(client, &quoted(&config.schema), files)).await
        })
    }
}

async fn ls(store: &DeadLetterStore, queue: Option<&str>, limit: u32, json: bool) -> Result<(), Exit> {
    let (mut after, mut rest) = (None, limit);
    loop {
        let page = store.list(queue, after, PageLimit::letters(rest.min(PAGE_MAX))).await?;
        if let Some(refused) = &page.table_refused {
            note(format_args!("only those in files are shown: {refused}"));
        }
        let is_first = after.is_none();
        show_page(&page, json, is_first)?;
        (after, rest) = (page.next, rest.saturating_sub(page.letters.len() as u32));
        if after.is_none() || rest == 0 {
            return Ok(());
        }
    }
}

fn show_page(page: &Page, json: bool, has_header: bool) -> Result<(), Exit> {
    print(|out| {
        if !json && has_header {
            writeln!(
                out,
                "{:>8}  {:<9} {:<27}  {:<8}  {:<24} {:<36}  error",
                "id", "where", "failed at", "sqlstate", "queue/partition", "transaction id"
            )?;
        }
        for listed in &page.letters {
            if json {
                print_json(out, &LetterView::listed(listed.id, &listed.letter))?;
                continue;
            }
            let letter = &listed.letter;
            let name = format!("{}/{}", letter.queue.escape_debug(), letter.partition.escape_debug());
            writeln!(
                out,
                "{:>8}  {:<9} {:<27}  {:<8}  {name:<24} {:<36}  {}",
                listed.id.to_string(),
                place(listed.id),
                rfc3339(letter.failed_us),
                letter.sqlstate,
                letter.transaction_id.as_deref().unwrap_or("-").escape_debug().to_string(),
                shortened(&letter.error),
            )?;
        }
        Ok(())
    })
}

fn shortened(error: &str) -> String {
    let mut shown: String = error.chars().take(ERROR_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if error.chars().nth(ERROR_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

async fn show(store: &DeadLetterStore, id: LetterId, json: bool) -> Result<(), Exit> {
    let Some(letter) = store.get(id).await? else {
        return Err(Exit { code: 1, message: format!("there is no dead letter {id}") });
    };
    print(|out| {
        if json {
            return print_json(out, &LetterView::whole(id, &letter));
        }
        let lines = [
            ("id", id.to_string()),
            ("where", place(id).to_owned()),
            ("queue", letter.queue.clone()),
            ("partition", letter.partition.clone()),
            ("message id", letter.message_id.map_or_else(String::new, |id| id.to_string())),
            ("transaction id", letter.transaction_id.clone().unwrap_or_default()),
            ("trace id", letter.trace_id.map_or_else(String::new, |id| id.to_string())),
            ("producer sub", letter.producer_sub.clone().unwrap_or_default()),
            ("log number", letter.number.map_or_else(String::new, |number| number.to_string())),
            ("accepted at", rfc3339(letter.accepted_us)),
            ("failed at", rfc3339(letter.failed_us)),
            ("sqlstate", letter.sqlstate.clone()),
            ("error", letter.error.clone()),
        ];
        for (name, value) in lines {
            writeln!(out, "{name:<14} {}", value.escape_debug())?;
        }
        writeln!(out, "\n{}", letter.payload.shown())
    })
}

/// Hands the ids of `which` to `work`, which says whether the letter was dealt with.
async fn each(
    store: &DeadLetterStore,
    which: &Which,
    mut work: impl AsyncFnMut(&DeadLetterStore, LetterId) -> Result<bool, Exit>,
) -> Result<(), Exit> {
    let mut done = true;
    for &id in &which.ids {
        done &= work(store, id).await?;
    }
    let mut after = None;
    let mut more = which.all;
    while more {
        let page = store.list(which.queue.as_deref(), after, PageLimit::letters(PAGE_MAX)).await?;
        if let Some(refused) = page.table_refused {
            note(format_args!("only those in files are dealt with: {refused}"));
            done = false;
        }
        after = page.letters.last().map(|last| last.id);
        more = after.is_some();
        for Listed { id, .. } in page.letters {
            done &= work(store, id).await?;
        }
    }
    if done { Ok(()) } else { Err(Exit::findings()) }
}

async fn retry(store: &DeadLetterStore, which: &Which, json: bool) -> Result<(), Exit> {
    each(store, which, async |store, id| {
        let outcome = store.retry(id).await?;
        print(|out| match &outcome {
            _ if json => print_json(out, &RetryView::of(id, &outcome)),
            RetryOutcome::Queued { seq } => writeln!(out, "{id}: queued, seq {seq}"),
            RetryOutcome::Duplicate { of } => writeln!(out, "{id}: a duplicate of message {of}; the letter is gone"),
            RetryOutcome::Refused { sqlstate, error } => writeln!(out, "{id}: refused again, {sqlstate}: {error}"),
            RetryOutcome::NoMessage => writeln!(out, "{id}: it is not a message that this release knows"),
            RetryOutcome::PartitionDeleted => {
                writeln!(out, "{id}: its partition was deleted at the same time; the letter stays")
            }
            RetryOutcome::Gone => writeln!(out, "{id}: there is no such letter"),
        })?;
        Ok(matches!(outcome, RetryOutcome::Queued { .. } | RetryOutcome::Duplicate { .. }))
    })
    .await
}

async fn remove(store: &DeadLetterStore, which: &Which, json: bool) -> Result<(), Exit> {
    each(store, which, async |store, id| {
        let was_there = store.remove(id).await?;
        let status = if was_there { "dropped" } else { "gone" };
        print(|out| match (json, was_there) {
            (true, _) => print_json(out, &serde_json::json!({"id": id.to_string(), "status": status})),
            (false, true) => writeln!(out, "{id}: dropped"),
            (false, false) => writeln!(out, "{id}: there is no such letter"),
        })?;
        Ok(was_there)
    })
    .await
}
