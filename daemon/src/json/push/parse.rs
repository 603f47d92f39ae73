//! Parsing a push request in one pass.

use super::{
    PushError, PushItem, PushLimits, PushRequest,
    fault::{Fault, PAYLOAD, Place},
    rules,
};
use crate::json::{
    JsonError,
    scan::{Scanner, StringSpan},
    validate::skip_value,
};
use std::borrow::Cow;

const MISSING: &str = "missing";
const NOT_A_STRING: &str = "must be a string";

/// Splits the body of a push into items.
///
/// # Errors
/// The first fault. Nothing of the request may be kept then.
pub fn parse<'a>(body: &'a [u8], limits: &PushLimits) -> Result<PushRequest<'a>, PushError> {
    let mut parser = Parser { scanner: Scanner::new(body), place: Place::default(), limits };
    parser.request().map_err(|fault| parser.place.explain(fault))
}

struct Parser<'a, 'l> {
    scanner: Scanner<'a>,
    /// The place of the next error.
    place: Place,
    limits: &'l PushLimits,
}

/// Room for items before the first one is read.
const FEW_ITEMS: usize = 4;

/// An item whose fields are not read yet. It is put into the list first, so that its fields need not be moved.
const EMPTY: PushItem<'static> = PushItem {
    queue: Cow::Borrowed(""),
    partition: None,
    payload: b"",
    transaction_id: None,
    trace_id: None,
    namespace: None,
    task: None,
};

/// The required fields that an item has.
#[derive(Default)]
struct Seen {
    queue: bool,
    payload: bool,
}

impl<'a> Parser<'a, '_> {
    fn request(&mut self) -> Result<PushRequest<'a>, Fault> {
        self.scanner.start()?;
        if self.scanner.peek()? != b'{' {
            skip_value(&mut self.scanner)?;
            self.scanner.finish()?;
            return Err(Fault::NoItems);
        }
        let (mut items, mut buffer_ms, mut buffer_max, mut qos0) = (None, None, None, false);
        let mut more = self.scanner.open(b'}')?;
        while more {
            let key = self.scanner.key()?.decode();
            match &*key {
                "items" => items = Some(self.items()?),
                "bufferMs" => buffer_ms = self.integer("bufferMs", rules::parse_buffer_ms)?,
                "bufferMax" => buffer_max = self.integer("bufferMax", rules::parse_buffer_max)?,
                "qos0" => qos0 = self.boolean("qos0")?,
                _ => skip_value(&mut self.scanner)?,
            }
            self.place = Place::default();
            more = self.scanner.more(b'}')?;
        }
        self.scanner.finish()?;
        let items = items.ok_or(Fault::NoItems)?;
        Ok(PushRequest { items, buffer_ms, buffer_max, qos0 })
    }

    fn items(&mut self) -> Result<Vec<PushItem<'a>>, Fault> {
        if self.scanner.peek()? != b'[' {
            skip_value(&mut self.scanner)?;
            return Err(Fault::NoItems);
        }
        let mut items: Vec<PushItem<'a>> = Vec::with_capacity(FEW_ITEMS);
        let mut more = self.scanner.open(b']')?;
        while more {
            if items.len() >= self.limits.max_items {
                return Err(Fault::TooManyItems(self.limits.max_items));
            }
            self.place = Place { item: Some(items.len()), field: None };
            let start = self.scanner.offset();
            let item = items.push_mut(EMPTY);
            self.item(item)?;
            if items.len() == 1 {
                items.reserve(self.likely_more(self.scanner.offset() - start));
            }
            more = self.scanner.more(b']')?;
        }
        Ok(items)
    }

    /// Items for which to make room after the first, which has `item_bytes` bytes. The items of a request are usually alike. The
    /// whole body is in memory already, so the room is a few times its size at most.
    fn likely_more(&self, item_bytes: usize) -> usize {
        const AT_ONCE_MAX: usize = 1024;
        (self.scanner.rest_bytes() / item_bytes.max(1)).min(AT_ONCE_MAX)
    }

    fn item(&mut self, item: &mut PushItem<'a>) -> Result<(), Fault> {
        if self.scanner.peek()? != b'{' {
            skip_value(&mut self.scanner)?;
            return Err(Fault::Rule("must be an object"));
        }
        let mut seen = Seen::default();
        let mut more = self.scanner.open(b'}')?;
        while more {
            let key = self.scanner.key()?;
            self.field(key, item, &mut seen)?;
            self.place.field = None;
            more = self.scanner.more(b'}')?;
        }
        self.required("queue", seen.queue)?;
        self.required(PAYLOAD, seen.payload)
    }

    fn field(&mut self, key: StringSpan<'a>, item: &mut PushItem<'a>, seen: &mut Seen) -> Result<(), Fault> {
        match &*key.decode() {
            "queue" => {
                self.place.field = Some("queue");
                let queue = self.string()?;
                rules::check_queue(&queue).map_err(Fault::Rule)?;
                item.queue = queue;
                seen.queue = true;
            }
            PAYLOAD => {
                self.place.field = Some(PAYLOAD);
                let start = self.scanner.offset();
                skip_value(&mut self.scanner)?;
                item.payload = self.scanner.raw(start, self.scanner.offset());
                seen.payload = true;
            }
            "partition" => item.partition = self.optional("partition", rules::check_partition)?,
            "transactionId" => item.transaction_id = self.optional("transactionId", rules::check_transaction_id)?,
            "namespace" => item.namespace = self.optional("namespace", rules::check_namespace)?,
            "task" => item.task = self.optional("task", rules::check_task)?,
            "traceId" => {
                let text = self.optional("traceId", |_| Ok(()))?;
                item.trace_id = match text {
                    Some(text) => Some(rules::parse_uuid(&text).ok_or(Fault::Rule("must be a UUID"))?),
                    None => None,
                };
            }
            _ => skip_value(&mut self.scanner)?,
        }
        Ok(())
    }

    fn required(&mut self, field: &'static str, is_there: bool) -> Result<(), Fault> {
        if is_there {
            return Ok(());
        }
        self.place.field = Some(field);
        Err(Fault::Rule(MISSING))
    }

    fn optional(
        &mut self,
        field: &'static str,
        check: impl FnOnce(&str) -> Result<(), &'static str>,
    ) -> Result<Option<Cow<'a, str>>, Fault> {
        self.place.field = Some(field);
        if self.null()? {
            return Ok(None);
        }
        let text = self.string()?;
        check(&text).map_err(Fault::Rule)?;
        Ok(Some(text))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        if self.scanner.peek()? == b'"' {
            return Ok(self.scanner.string()?.decode());
        }
        // A value that is not JSON is reported as such.
        skip_value(&mut self.scanner)?;
        Err(Fault::Rule(NOT_A_STRING))
    }

    fn integer(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&str) -> Result<u32, &'static str>,
    ) -> Result<Option<u32>, Fault> {
        self.place.field = Some(field);
        if self.null()? {
            return Ok(None);
        }
        let start = self.scanner.offset();
        skip_value(&mut self.scanner)?;
        let text = self.scanner.text(start, self.scanner.offset());
        read(text).map(Some).map_err(Fault::Rule)
    }

    fn boolean(&mut self, field: &'static str) -> Result<bool, Fault> {
        self.place.field = Some(field);
        let start = self.scanner.offset();
        skip_value(&mut self.scanner)?;
        match self.scanner.raw(start, self.scanner.offset()) {
            b"true" => Ok(true),
            b"false" | b"null" => Ok(false),
            _ => Err(Fault::Rule("must be true or false")),
        }
    }

    /// Steps over a `null`, if one is next.
    fn null(&mut self) -> Result<bool, JsonError> {
        if self.scanner.peek()? != b'n' {
            return Ok(false);
        }
        skip_value(&mut self.scanner)?;
        Ok(true)
    }
}
