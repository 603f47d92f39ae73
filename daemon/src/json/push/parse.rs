//! The pass over the body.

use std::borrow::Cow;

use super::fault::{Fault, PAYLOAD, Place};
use super::{PushError, PushItem, PushLimits, PushRequest, rules};
use crate::json::JsonError;
use crate::json::scan::{Scanner, StringSpan};

const MISSING: &str = "missing";
const NOT_A_STRING: &str = "must be a string";

/// Cuts the body of a push into items.
///
/// # Errors
/// The first thing that is wrong; then nothing of the request may be kept. Codes:
///
/// | code | when |
/// |---|---|
/// | `malformed_json` | the body is not JSON |
/// | `payload_not_storable` | a payload is more than `jsonb` or this edge's limits can hold |
/// | `invalid_item` | a field of an item is missing, of the wrong type or against its rule |
/// | `invalid_request` | the same for what stands beside the items |
pub fn parse<'a>(body: &'a [u8], limits: &PushLimits) -> Result<PushRequest<'a>, PushError> {
    let mut parser = Parser { scanner: Scanner::new(body), place: Place::default(), limits };
    parser.request().map_err(|fault| parser.place.explain(fault))
}

struct Parser<'a, 'l> {
    scanner: Scanner<'a>,
    /// Kept up to date so that any error can be told with its place.
    place: Place,
    limits: &'l PushLimits,
}

/// For how many items there is room before the first was read.
const FEW_ITEMS: usize = 4;

/// An item of which nothing was read: it stands in the list before its fields do, so that none of them is moved.
const EMPTY: PushItem<'static> = PushItem {
    queue: Cow::Borrowed(""),
    partition: None,
    payload: b"",
    transaction_id: None,
    trace_id: None,
    namespace: None,
    task: None,
};

/// Which of an item's required fields were there.
#[derive(Default)]
struct Seen {
    queue: bool,
    payload: bool,
}

impl<'a> Parser<'a, '_> {
    fn request(&mut self) -> Result<PushRequest<'a>, Fault> {
        self.scanner.start()?;
        if self.scanner.peek()? != b'{' {
            self.scanner.skip_value()?;
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
                _ => self.scanner.skip_value()?,
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
            self.scanner.skip_value()?;
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

    /// For how many items to make room behind the first, which has so many bytes: those of a request are alike. The body
    /// has come, so the room is a few times what it takes itself.
    fn likely_more(&self, item_bytes: usize) -> usize {
        const AT_ONCE_MAX: usize = 1024;
        (self.scanner.rest_bytes() / item_bytes.max(1)).min(AT_ONCE_MAX)
    }

    fn item(&mut self, item: &mut PushItem<'a>) -> Result<(), Fault> {
        if self.scanner.peek()? != b'{' {
            self.scanner.skip_value()?;
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
                self.scanner.skip_value()?;
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
            _ => self.scanner.skip_value()?,
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
        // What is not even JSON is told as such.
        self.scanner.skip_value()?;
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
        self.scanner.skip_value()?;
        let text = self.scanner.text(start, self.scanner.offset());
        read(text).map(Some).map_err(Fault::Rule)
    }

    fn boolean(&mut self, field: &'static str) -> Result<bool, Fault> {
        self.place.field = Some(field);
        let start = self.scanner.offset();
        self.scanner.skip_value()?;
        match self.scanner.raw(start, self.scanner.offset()) {
            b"true" => Ok(true),
            b"false" | b"null" => Ok(false),
            _ => Err(Fault::Rule("must be true or false")),
        }
    }

    /// Steps over a `null`, if it is one.
    fn null(&mut self) -> Result<bool, JsonError> {
        if self.scanner.peek()? != b'n' {
            return Ok(false);
        }
        self.scanner.skip_value()?;
        Ok(true)
    }
}
