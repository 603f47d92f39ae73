//! The pass over the body.

use std::borrow::Cow;

use super::super::JsonError;
use super::super::scan::{Scanner, StringSpan};
use super::fault::{Fault, PAYLOAD, Place};
use super::{PushError, PushItem, PushLimits, PushRequest, rules};

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

/// An item's fields as they come.
#[derive(Default)]
struct Fields<'a> {
    queue: Option<Cow<'a, str>>,
    partition: Option<Cow<'a, str>>,
    payload: Option<&'a [u8]>,
    transaction_id: Option<Cow<'a, str>>,
    trace_id: Option<uuid::Uuid>,
    namespace: Option<Cow<'a, str>>,
    task: Option<Cow<'a, str>>,
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
        let mut items = Vec::new();
        let mut more = self.scanner.open(b']')?;
        while more {
            if items.len() >= self.limits.max_items {
                return Err(Fault::TooManyItems(self.limits.max_items));
            }
            self.place = Place { item: Some(items.len()), field: None };
            items.push(self.item()?);
            more = self.scanner.more(b']')?;
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<PushItem<'a>, Fault> {
        if self.scanner.peek()? != b'{' {
            self.scanner.skip_value()?;
            return Err(Fault::Rule("must be an object"));
        }
        let mut fields = Fields::default();
        let mut more = self.scanner.open(b'}')?;
        while more {
            let key = self.scanner.key()?;
            self.field(key, &mut fields)?;
            self.place.field = None;
            more = self.scanner.more(b'}')?;
        }
        Ok(PushItem {
            queue: self.required("queue", fields.queue)?,
            partition: fields.partition,
            payload: self.required(PAYLOAD, fields.payload)?,
            transaction_id: fields.transaction_id,
            trace_id: fields.trace_id,
            namespace: fields.namespace,
            task: fields.task,
        })
    }

    fn field(&mut self, key: StringSpan<'a>, fields: &mut Fields<'a>) -> Result<(), Fault> {
        match &*key.decode() {
            "queue" => {
                self.place.field = Some("queue");
                let queue = self.string()?;
                rules::check_queue(&queue).map_err(Fault::Rule)?;
                fields.queue = Some(queue);
            }
            PAYLOAD => {
                self.place.field = Some(PAYLOAD);
                let start = self.scanner.offset();
                self.scanner.skip_value()?;
                fields.payload = Some(self.scanner.raw(start, self.scanner.offset()));
            }
            "partition" => fields.partition = self.optional("partition", rules::check_partition)?,
            "transactionId" => fields.transaction_id = self.optional("transactionId", rules::check_transaction_id)?,
            "namespace" => fields.namespace = self.optional("namespace", rules::check_namespace)?,
            "task" => fields.task = self.optional("task", rules::check_task)?,
            "traceId" => {
                let text = self.optional("traceId", |_| Ok(()))?;
                fields.trace_id = match text {
                    Some(text) => Some(rules::parse_uuid(&text).ok_or(Fault::Rule("must be a UUID"))?),
                    None => None,
                };
            }
            _ => self.scanner.skip_value()?,
        }
        Ok(())
    }

    fn required<T>(&mut self, field: &'static str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| {
            self.place.field = Some(field);
            Fault::Rule(MISSING)
        })
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
