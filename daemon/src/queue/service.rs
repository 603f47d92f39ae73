//! Drives the dispatcher on the queue's thread: requests of the cores, commits of the drain, batches to PostgreSQL, time.

use super::{
    acks, answers,
    batch::PairId,
    configure::configure,
    directory::{Directory, FoundGroup},
    dispatcher::{Ack, AckId, Dispatcher, Effect, Pop, PopId},
    leases::Leases,
    names::{KnownGroup, Names},
    request::{PopRequest, QueueRequest, Subscription},
    sizes::Sizes,
    store::CursorStore,
    stored_message::StoredMessage,
};
use crate::{
    http::{ErrorCode, Refusal},
    limits::{PG_REQUEST_DEADLINE, POP_BYTES_MAX, UNSENT_BYTES_MAX},
    postgres::{channel::ChannelError, remedy::Remedy},
    rt::{self, Notify},
    state::{
        answer_to::AnswerTo,
        commits::{Commit, Commits},
        log_identity::LogIdentity,
        pg_answer::PgAnswer,
        unsent_bytes::UnsentBytes,
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often it is looked whether consumers that wait have left.
const SWEEP_MS: u64 = 100;

/// How long a connection rests after PostgreSQL refused to say how cursors stand.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether consumers have read enough for more to be taken.
const BEHIND_MS: u64 = 10;

/// How often pops are tried again that wait for a queue, for a partition, or for PostgreSQL.
const RETRY_MS: u64 = 1000;

/// How often the partitions are scanned for what nobody told, while somebody waits: retried letters, other daemons' leases.
const RESCAN_MS: u64 = 30_000;

/// How often it is looked whether there are other daemons, while somebody waits.
const LOOK_MS: u64 = 1000;

/// How often the partitions are scanned while there are.
const LOOK_OTHERS_MS: u64 = 50;

/// A scan may take one part in so many of the time.
const RESCAN_SHARE: u32 = 10;

/// How long it is believed that there are other daemons, or that there are none.
const OTHERS_KNOWN: Duration = Duration::from_secs(1);

/// A pop that is not answered.
struct OpenPop {
    request: PopRequest,
    answer_to: AnswerTo,
    /// When it stops waiting; `None`: it does not wait.
    until_ms: Option<u64>,
}

/// The groups of queues, by their names.
enum GroupState {
    /// It is looked up, or scanned; these pops wait for that.
    Opening(Vec<OpenPop>),
    /// The group's id.
    Open(i64),
}

type GroupKey = (Rc<str>, Rc<str>);

/// What the service remembers.
#[derive(Default)]
struct Memory {
    groups: HashMap<GroupKey, GroupState>,
    /// Pops that the dispatcher has.
    pops: HashMap<PopId, OpenPop>,
    /// Pops of a queue or partition that does not exist, or while PostgreSQL is away.
    held: Vec<OpenPop>,
    /// By queue.
    sizes: HashMap<i64, Sizes>,
    next_id: u64,
    swept_ms: u64,
    retried_ms: u64,
    scanned_ms: u64,
    look_due_ms: u64,
    is_looking: bool,
    others: Option<(Instant, bool)>,
}

/// The queue's thread as one object.
pub(super) struct Service {
    pub(super) store: CursorStore,
    pub(super) directory: Directory,
    pub(super) names: RefCell<Names>,
    pub(super) leases: RefCell<Leases>,
    dispatcher: RefCell<Dispatcher<StoredMessage>>,
    memory: RefCell<Memory>,
    /// Acks whose outcome somebody waits for.
    acks: RefCell<HashMap<AckId, Rc<AckWait>>>,
    commits: Arc<Commits>,
    identity: Arc<LogIdentity>,
    start: Instant,
    wake: Notify,
    /// Answers to pops that their clients have not taken.
    unsent: UnsentBytes,
    /// When the clock's task wakes up.
    wakes_ms: Cell<u64>,
}

/// The outcome of an ack, once it is there.
#[derive(Default)]
struct AckWait {
    is_held: Cell<Option<bool>>,
    came: Notify,
}

impl Service {
    /// Over these parts; `identity` is the log of this daemon.
    pub(super) fn new(
        store: CursorStore,
        directory: Directory,
        dispatcher: Dispatcher<StoredMessage>,
        commits: Arc<Commits>,
        identity: Arc<LogIdentity>,
    ) -> Rc<Self> {
        Rc::new(Self {
            store,
            directory,
            names: RefCell::default(),
            leases: RefCell::default(),
            dispatcher: RefCell::new(dispatcher),
            memory: RefCell::default(),
            acks: RefCell::default(),
            commits,
            identity,
            start: Instant::now(),
            wake: Notify::default(),
            unsent: UnsentBytes::default(),
            wakes_ms: Cell::new(u64::MAX),
        })
    }

    /// Takes in what other threads left: commits before the requests of those who may have heard of them.
    pub(super) fn arrive(self: &Rc<Self>, commits: Vec<Vec<Commit>>, requests: Vec<(QueueRequest, AnswerTo)>) {
        for commit in commits.into_iter().flatten() {
            self.committed(&commit);
        }
        for (request, answer_to) in requests {
            match request {
                QueueRequest::Pop(request) => {
                    let until_ms = request.wait_ms.map(|ms| self.now_ms() + ms);
                    self.pop(OpenPop { request, answer_to, until_ms });
                }
                QueueRequest::Ack(request) => rt::spawn(acks::acknowledge(Rc::clone(self), request, answer_to)),
                QueueRequest::Extend(request) => rt::spawn(acks::extend(Rc::clone(self), request, answer_to)),
                QueueRequest::Configure(request) => rt::spawn(configure(Rc::clone(self), request, answer_to)),
            }
        }
        self.pump();
    }

    /// Runs the clock.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            self.tick();
            self.pump();
            let next_ms = self.next_tick_ms();
            self.wakes_ms.set(next_ms);
            let deadline = (next_ms < u64::MAX).then(|| self.start + Duration::from_millis(next_ms));
            self.wake.notified_until(deadline).await;
        }
    }

    /// Milliseconds since the thread started.
    pub(super) fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Which connection serves a pair.
    pub(super) fn connection_of(&self, pair: PairId) -> usize {
        self.dispatcher.borrow().connection_of(pair)
    }

    /// Hands an ack to the dispatcher, and waits for its outcome: whether it counts. `None`: PostgreSQL has not said so in time, and
    /// may still carry it out.
    pub(super) async fn ack(self: &Rc<Self>, ack: Ack) -> Option<bool> {
        let deadline = Instant::now() + PG_REQUEST_DEADLINE;
        let id = AckId(self.next_id());
        let wait = Rc::<AckWait>::default();
        self.acks.borrow_mut().insert(id, Rc::clone(&wait));
        self.dispatcher.borrow_mut().ack(id, ack);
        self.pump();
        loop {
            if let Some(is_held) = wait.is_held.get() {
                return Some(is_held);
            }
            if Instant::now() >= deadline {
                self.acks.borrow_mut().remove(&id);
                return None;
            }
            wait.came.notified_until(Some(deadline)).await;
        }
    }

    /// What a partition is called; empty if that is not known.
    pub(super) fn partition_name(&self, partition: i64) -> String {
        self.names.borrow().partition(partition).map_or_else(String::new, |name| name.to_string())
    }

    /// Learns of a pair what its parts are called. Returns whether they belong together.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub(super) async fn know(self: &Rc<Self>, pair: PairId) -> Result<bool, ChannelError> {
        let is_known = {
            let names = self.names.borrow();
            names.group(pair.group).is_some() && names.partition(pair.partition).is_some()
        };
        if is_known {
            return Ok(true);
        }
        let Some([queue, group, partition]) = self.directory.names(pair.group, pair.partition).await? else {
            return Ok(false);
        };
        let (queue, group) = (Rc::from(queue), Rc::from(group));
        let Some(found) = self.directory.open(&queue, &group, Subscription::All).await? else { return Ok(false) };
        let mut names = self.names.borrow_mut();
        names.add_group(&found, &queue, &group);
        names.add_partition(found.queue, pair.partition, &partition);
        Ok(true)
    }

    /// A lease was given another end, so many milliseconds from now.
    pub(super) fn extended(&self, pair: PairId, lease: Uuid, for_ms: u64) {
        let until_ms = self.now_ms() + for_ms;
        self.dispatcher.borrow_mut().extended(pair, lease, until_ms);
        self.leases.borrow_mut().extend(lease, until_ms);
    }

    fn next_id(&self) -> u64 {
        let mut memory = self.memory.borrow_mut();
        memory.next_id += 1;
        memory.next_id
    }

    fn committed(self: &Rc<Self>, commit: &Commit) {
        let queue = self.names.borrow().queue(&commit.queue);
        if let Some(queue) = queue {
            self.names.borrow_mut().add_partition(queue, commit.partition_id, &commit.partition);
            let largest = self.memory.borrow().sizes.get(&queue).map_or(0, |sizes| sizes.largest);
            if commit.largest_bytes > largest {
                self.memory.borrow_mut().sizes.entry(queue).or_default().largest = commit.largest_bytes;
            }
            self.dispatcher.borrow_mut().committed(queue, commit.partition_id, commit.last);
        }
        let is_waited_for = |held: &mut OpenPop| held.request.queue == commit.queue;
        let held: Vec<OpenPop> = self.memory.borrow_mut().held.extract_if(.., is_waited_for).collect();
        held.into_iter().for_each(|pop| self.pop(pop));
    }

    fn pop(self: &Rc<Self>, pop: OpenPop) {
        if pop.request.cancel_flag.is_set() {
            return;
        }
        let key: GroupKey = (Rc::from(&*pop.request.queue), Rc::from(&*pop.request.group));
        let mut memory = self.memory.borrow_mut();
        match memory.groups.get_mut(&key) {
            Some(GroupState::Opening(waiting)) => waiting.push(pop),
            Some(GroupState::Open(group)) => {
                let group = *group;
                drop(memory);
                self.dispatch(pop, group);
            }
            None => {
                let subscription = pop.request.subscription;
                memory.groups.insert(key.clone(), GroupState::Opening(vec![pop]));
                drop(memory);
                // Before anything is read, so that no commit is missed.
                self.commits.want();
                rt::spawn(Rc::clone(self).open(key, subscription));
            }
        }
    }

    async fn open(self: Rc<Self>, key: GroupKey, subscription: Subscription) {
        let opened = self.find_and_scan(&key, subscription).await;
        let state = self.memory.borrow_mut().groups.remove(&key);
        let Some(GroupState::Opening(waiting)) = state else {
            unreachable!("a group that is opened has pops that wait")
        };
        match opened {
            Ok(Some(known)) => {
                self.memory.borrow_mut().groups.insert(key, GroupState::Open(known.group));
                waiting.into_iter().for_each(|pop| self.dispatch(pop, known.group));
            }
            Ok(None) => waiting.into_iter().for_each(|pop| self.hold(pop)),
            Err(error) => waiting.into_iter().for_each(|pop| self.hold_or_refuse(pop, &error)),
        }
        self.pump();
    }

    async fn find_and_scan(
        self: &Rc<Self>,
        (queue_name, group_name): &GroupKey,
        subscription: Subscription,
    ) -> Result<Option<KnownGroup>, ChannelError> {
        let Some(found) = self.directory.open(queue_name, group_name, subscription).await? else { return Ok(None) };
        let known = self.names.borrow_mut().add_group(&found, queue_name, group_name);
        let FoundGroup { queue, group, .. } = found;
        self.dispatcher.borrow_mut().add_group(queue, group);
        self.scan(queue, group).await?;
        Ok(Some(known))
    }

    /// Reads all partitions of a queue, and tells the dispatcher which have something for the group.
    async fn scan(&self, queue: i64, group: i64) -> Result<(), ChannelError> {
        let mut after = String::new();
        loop {
            let step = self.directory.scan(queue, group, &after).await?;
            let Some(end) = step.last() else { return Ok(()) };
            after = end.name.to_string();
            let is_sample_missing = !self.memory.borrow().sizes.contains_key(&queue);
            if is_sample_missing && step.iter().any(|partition| partition.last > 0) {
                let (count, bytes, largest) = self.directory.sample(&step).await?;
                self.memory.borrow_mut().sizes.entry(queue).or_default().seen(count, bytes, largest);
            }
            let mut names = self.names.borrow_mut();
            let mut dispatcher = self.dispatcher.borrow_mut();
            for partition in step {
                names.add_partition(queue, partition.id, &partition.name);
                if partition.last > partition.cursor {
                    let pair = PairId { partition: partition.id, group };
                    dispatcher.found(queue, pair, partition.last, Some(partition.cursor));
                }
            }
        }
    }

    fn dispatch(&self, pop: OpenPop, group: i64) {
        let names = self.names.borrow();
        let Some(known) = names.group(group) else { unreachable!("a group that is open has a name") };
        let partition = match &pop.request.partition {
            None => None,
            Some(name) => match names.partition_id(known.queue, name) {
                Some(id) => Some(id),
                None => return self.hold(pop),
            },
        };
        let id = PopId(self.next_id());
        let mut memory = self.memory.borrow_mut();
        let Sizes { mean, largest } = memory.sizes.get(&known.queue).copied().unwrap_or_default();
        let count = u64::from(pop.request.count).min((POP_BYTES_MAX / mean.max(1)).max(1));
        let asked = Pop {
            queue: known.queue,
            group: known.group,
            partition,
            count: count as i64,
            message_bytes: mean,
            largest_bytes: largest,
            lease_ms: (!pop.request.auto_ack).then_some(known.options.lease_ms),
            wait_until_ms: pop.until_ms,
        };
        memory.pops.insert(id, pop);
        drop(memory);
        self.dispatcher.borrow_mut().pop(id, asked);
    }

    /// There is nothing that could be handed out now.
    fn hold(&self, pop: OpenPop) {
        match pop.until_ms {
            None => pop.answer_to.answer(PgAnswer::Empty),
            Some(_) => self.memory.borrow_mut().held.push(pop),
        }
    }

    /// PostgreSQL was asked in vain. What passes by itself is waited for.
    fn hold_or_refuse(&self, pop: OpenPop, error: &ChannelError) {
        match error.remedy() {
            Remedy::Again | Remedy::BackOff => self.hold(pop),
            Remedy::SetAside | Remedy::Probe | Remedy::Pause => pop.answer_to.answer(refused(error)),
        }
    }

    /// Carries out what the dispatcher wants.
    fn pump(self: &Rc<Self>) {
        loop {
            let effects = {
                let mut dispatcher = self.dispatcher.borrow_mut();
                dispatcher.set_paused(self.is_behind());
                dispatcher.effects()
            };
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Send { connection, batch } => {
                        let service = Rc::clone(self);
                        rt::spawn(async move {
                            let answer = service.store.carry_out(connection, &batch).await;
                            // They are asked again at once otherwise.
                            if answer.is_question_refused() {
                                rt::sleep(REFUSED_PAUSE).await;
                            }
                            service.let_leave(connection);
                            service.dispatcher.borrow_mut().answered(connection, answer);
                            service.pump();
                        });
                    }
                    Effect::Feed => rt::spawn(Rc::clone(self).feed()),
                    Effect::Deliver { pop, pair, lease, messages } => self.deliver(pop, pair, lease, &messages),
                    Effect::Empty { pop } => {
                        if let Some(pop) = self.memory.borrow_mut().pops.remove(&pop) {
                            pop.answer_to.answer(PgAnswer::Empty);
                        }
                    }
                    Effect::Acked { ack, is_held } => {
                        if let Some(wait) = self.acks.borrow_mut().remove(&ack) {
                            wait.is_held.set(Some(is_held));
                            wait.came.notify();
                        }
                    }
                }
            }
        }
        if self.next_tick_ms() < self.wakes_ms.get() {
            self.wake.notify();
        }
    }

    /// Whether consumers are to read what they asked for before more is taken.
    fn is_behind(&self) -> bool {
        self.unsent.get() > UNSENT_BYTES_MAX
    }

    /// Who has left gets nothing of what a connection brings.
    fn let_leave(&self, connection: usize) {
        let mut dispatcher = self.dispatcher.borrow_mut();
        let under_way: Vec<PopId> = dispatcher.pops_under_way(connection).collect();
        let memory = self.memory.borrow();
        let has_left = |id: &PopId| memory.pops.get(id).is_none_or(|pop| pop.request.cancel_flag.is_set());
        under_way.into_iter().filter(has_left).for_each(|id| dispatcher.leave(id));
    }

    fn deliver(self: &Rc<Self>, pop: PopId, pair: PairId, lease: Option<Uuid>, messages: &[StoredMessage]) {
        let pop = self.memory.borrow_mut().pops.remove(&pop);
        let names = self.names.borrow();
        let (Some(pop), Some(known)) = (pop, names.group(pair.group)) else { return };
        self.measure(known.queue, messages);
        if let Some(lease) = lease {
            let until_ms = self.now_ms() + known.options.lease_ms;
            let keys = messages.iter().map(|message| (message.seq, message.key(), message.attempts > 0));
            self.leases.borrow_mut().add(lease, pair, until_ms, keys);
            if pop.request.cancel_flag.is_set() {
                let release = Ack { pair, lease, done: Vec::new(), release_ms: Some(0) };
                self.dispatcher.borrow_mut().ack(AckId(self.next_id()), release);
                return;
            }
        }
        let partition = names.partition(pair.partition).map_or("", |name| &**name);
        let autopilot = pop.request.is_autopilot.then_some(pop.request.count);
        let body = answers::popped(known, partition, pair, lease, messages, autopilot);
        let unsent = self.unsent.count(body.len());
        pop.answer_to.answer(PgAnswer::Popped { body, unsent });
    }

    /// Learns how large the messages of a queue are.
    fn measure(&self, queue: i64, messages: &[StoredMessage]) {
        let sizes = || messages.iter().map(|message| message.payload.len() as u64);
        let mut memory = self.memory.borrow_mut();
        memory.sizes.entry(queue).or_default().seen(messages.len(), sizes().sum(), sizes().max().unwrap_or(0));
    }

    /// What other daemons committed, before a pop is answered with nothing.
    async fn feed(self: Rc<Self>) {
        let has_others = self.has_others().await;
        if has_others {
            self.rescan().await;
        }
        self.dispatcher.borrow_mut().fed(Some(&[]));
        self.pump();
    }

    /// Whether other daemons drain into the database, as far as is known.
    async fn has_others(&self) -> bool {
        let known = self.memory.borrow().others;
        if let Some((at, has_others)) = known
            && at.elapsed() < OTHERS_KNOWN
        {
            return has_others;
        }
        match self.directory.has_others(self.identity.log_id().into_bytes()).await {
            Ok(has_others) => {
                self.memory.borrow_mut().others = Some((Instant::now(), has_others));
                has_others
            }
            Err(error) => {
                tracing::debug!(%error, "whether there are other daemons is not known");
                known.is_some_and(|(_, has_others)| has_others)
            }
        }
    }

    /// Looks for what nobody told, while somebody waits.
    async fn look_around(&self) {
        let has_others = self.has_others().await;
        let is_scan_due = has_others || self.memory.borrow().scanned_ms + RESCAN_MS <= self.now_ms();
        let start = Instant::now();
        if is_scan_due {
            self.rescan().await;
        }
        let mut memory = self.memory.borrow_mut();
        let share_ms = (start.elapsed() * RESCAN_SHARE).as_millis() as u64;
        let wait_ms = share_ms.max(if has_others { LOOK_OTHERS_MS } else { LOOK_MS });
        memory.look_due_ms = self.now_ms() + wait_ms;
        memory.is_looking = false;
    }

    /// Scans the partitions of all groups for which somebody waits.
    async fn rescan(&self) {
        self.memory.borrow_mut().scanned_ms = self.now_ms();
        let groups: HashSet<(i64, i64)> = {
            let (memory, names) = (self.memory.borrow(), self.names.borrow());
            let known = memory.pops.values().filter_map(|pop| {
                let key = (Rc::from(&*pop.request.queue), Rc::from(&*pop.request.group));
                match memory.groups.get(&key)? {
                    GroupState::Open(group) => names.group(*group).map(|known| (known.queue, known.group)),
                    GroupState::Opening(_) => None,
                }
            });
            known.collect()
        };
        for (queue, group) in groups {
            if let Err(error) = self.scan(queue, group).await {
                tracing::debug!(%error, "partitions could not be scanned");
                break;
            }
        }
    }

    fn tick(self: &Rc<Self>) {
        let now_ms = self.now_ms();
        self.dispatcher.borrow_mut().tick(now_ms);
        self.leases.borrow_mut().tick(now_ms);
        let mut memory = self.memory.borrow_mut();
        if now_ms >= memory.swept_ms + SWEEP_MS {
            memory.swept_ms = now_ms;
            let has_left = |_: &PopId, pop: &mut OpenPop| pop.request.cancel_flag.is_set();
            let left: Vec<PopId> = memory.pops.extract_if(has_left).map(|(id, _)| id).collect();
            let mut dispatcher = self.dispatcher.borrow_mut();
            left.into_iter().for_each(|id| dispatcher.leave(id));
            memory.held.retain(|pop| !pop.request.cancel_flag.is_set());
        }
        let is_over = |pop: &mut OpenPop| pop.until_ms.is_none_or(|until_ms| until_ms <= now_ms);
        let over: Vec<OpenPop> = memory.held.extract_if(.., is_over).collect();
        over.into_iter().for_each(|pop| pop.answer_to.answer(PgAnswer::Empty));
        let mut again = Vec::new();
        if now_ms >= memory.retried_ms + RETRY_MS {
            memory.retried_ms = now_ms;
            again = std::mem::take(&mut memory.held);
        }
        let is_look_due = !memory.pops.is_empty() && !memory.is_looking && now_ms >= memory.look_due_ms;
        memory.is_looking |= is_look_due;
        drop(memory);
        again.into_iter().for_each(|pop| self.pop(pop));
        if is_look_due {
            let service = Rc::clone(self);
            rt::spawn(async move {
                service.look_around().await;
                service.pump();
            });
        }
    }

    fn next_tick_ms(&self) -> u64 {
        let memory = self.memory.borrow();
        let mut next_ms = self.dispatcher.borrow().next_tick_ms().unwrap_or(u64::MAX);
        if !memory.pops.is_empty() && self.is_behind() {
            next_ms = next_ms.min(self.now_ms() + BEHIND_MS);
        }
        if !memory.pops.is_empty() || !memory.held.is_empty() {
            next_ms = next_ms.min(memory.swept_ms + SWEEP_MS);
        }
        for pop in &memory.held {
            next_ms = next_ms.min(pop.until_ms.unwrap_or(0)).min(memory.retried_ms + RETRY_MS);
        }
        if !memory.pops.is_empty() && !memory.is_looking {
            next_ms = next_ms.min(memory.look_due_ms);
        }
        next_ms
    }
}

/// The refusal of a request that PostgreSQL did not carry out.
pub(super) fn refused(error: &ChannelError) -> PgAnswer {
    match error.remedy() {
        Remedy::BackOff | Remedy::Again => PgAnswer::away(error),
        Remedy::SetAside | Remedy::Probe | Remedy::Pause => {
            PgAnswer::Refused(Refusal::new(ErrorCode::PostgresRefuses, error.to_string()))
        }
    }
}
