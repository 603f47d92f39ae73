//! Patterns of paths: literals, names in braces, and at most one greedy name that takes several segments.
//!
//! ```text
//! /api/v1/push                            itself
//! /push/{queue}/{partition}               /push/orders/eu           queue = orders       partition = eu
//! /pop/queue/{queue...}/partition/{name}  /pop/queue/a/b/partition/c  queue = a/b        name = c
//! ```
//!
//! A path is cut at its slashes and then decoded, so `%2F` stays inside a segment. A greedy name takes one segment or more,
//! with the slashes between them. Matching allocates nothing; only the values of names that have a `%` are copied.

use crate::http::{Refusal, path};
use std::borrow::Cow;

/// Most segments of a pattern: the longest paths of Queen's clients have nine.
const SEGMENTS_MAX: usize = 9;

/// Most names of a pattern. Each takes 24 bytes of every request's state.
const NAMES_MAX: usize = 3;

/// One part of a pattern between slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Literal(&'static str),
    Name(&'static str),
    /// `{name...}`
    Greedy(&'static str),
}

impl Segment {
    const fn parse(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let length = bytes.len();
        if length == 0 || bytes[0] != b'{' {
            return Self::Literal(text);
        }
        assert!(length > 2 && bytes[length - 1] == b'}', "a name stands alone in its braces");
        let is_greedy =
            length > 5 && bytes[length - 2] == b'.' && bytes[length - 3] == b'.' && bytes[length - 4] == b'.';
        if is_greedy { Self::Greedy(part(text, 1, length - 4)) } else { Self::Name(part(text, 1, length - 1)) }
    }

    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Literal(_) => None,
            Self::Name(name) | Self::Greedy(name) => Some(name),
        }
    }
}

const fn part(text: &'static str, from: usize, to: usize) -> &'static str {
    text.split_at(to).0.split_at(from).1
}

/// What paths must look like.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    text: &'static str,
    /// The first `count` of them.
    segments: [Segment; SEGMENTS_MAX],
    count: usize,
    /// Segments before the greedy name, if there is one.
    greedy_at: Option<usize>,
    names: usize,
}

impl Pattern {
    /// Reads a pattern, at compile time where it stands in a constant.
    ///
    /// # Panics
    /// If it does not begin with a slash, has more than nine segments or three names, or two greedy ones.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        assert!(!bytes.is_empty() && bytes[0] == b'/', "a pattern begins with a slash");
        let mut pattern =
            Self { text, segments: [Segment::Literal(""); SEGMENTS_MAX], count: 0, greedy_at: None, names: 0 };
        let (mut start, mut at) = (1, 1);
        while at <= bytes.len() {
            if at == bytes.len() || bytes[at] == b'/' {
                pattern.push(Segment::parse(part(text, start, at)));
                start = at + 1;
            }
            at += 1;
        }
        pattern
    }

    const fn push(&mut self, segment: Segment) {
        assert!(self.count < SEGMENTS_MAX, "a pattern has too many segments");
        if segment.name().is_some() {
            assert!(self.names < NAMES_MAX, "a pattern has too many names");
            self.names += 1;
        }
        if matches!(segment, Segment::Greedy(_)) {
            assert!(self.greedy_at.is_none(), "a pattern has two greedy names");
            self.greedy_at = Some(self.count);
        }
        self.segments[self.count] = segment;
        self.count += 1;
    }

    /// As it is written.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// Whether it has no names, and `path` is it, character for character.
    #[inline]
    pub(super) fn is(&self, path: &str) -> bool {
        self.names == 0 && self.text == path
    }

    /// The names' values as the path has them, if the path matches.
    pub(super) fn capture<'a>(&self, path: &'a str) -> Option<Captures<'a>> {
        let path = path.strip_prefix('/')?;
        let mut captures = Captures { values: [""; NAMES_MAX], count: 0 };
        let Some(greedy_at) = self.greedy_at else {
            let mut parts = path.split('/');
            let is_match = self.segments[..self.count].iter().all(|segment| captures.take(segment, parts.next()));
            return (is_match && parts.next().is_none()).then_some(captures);
        };
        let (before, behind) = (&self.segments[..greedy_at], &self.segments[greedy_at + 1..self.count]);
        let mut parts = path.splitn(greedy_at + 1, '/');
        if !before.iter().all(|segment| captures.take(segment, parts.next())) {
            return None;
        }
        // What is not split off at the end, slashes and all, is the greedy name's.
        let mut parts = parts.next()?.rsplitn(behind.len() + 1, '/');
        let mut last = [""; SEGMENTS_MAX];
        for part in last[..behind.len()].iter_mut().rev() {
            *part = parts.next()?;
        }
        captures.push(parts.next()?);
        behind.iter().zip(last).all(|(segment, part)| captures.take(segment, Some(part))).then_some(captures)
    }

    /// Where a name stands among the pattern's names.
    fn position(&self, name: &str) -> Option<usize> {
        self.segments[..self.count].iter().filter_map(|segment| segment.name()).position(|known| known == name)
    }
}

/// The values of a pattern's names in a path, in their order and not decoded.
pub(super) struct Captures<'a> {
    values: [&'a str; NAMES_MAX],
    count: usize,
}

impl<'a> Captures<'a> {
    /// Whether a part of the path is what the segment says. A name's value is kept.
    fn take(&mut self, segment: &Segment, part: Option<&'a str>) -> bool {
        match (segment, part) {
            (Segment::Literal(literal), Some(part)) => part == *literal || path::is_encoded(part, literal),
            (Segment::Name(_) | Segment::Greedy(_), Some(part)) => {
                self.push(part);
                true
            }
            (_, None) => false,
        }
    }

    fn push(&mut self, value: &'a str) {
        self.values[self.count] = value;
        self.count += 1;
    }

    /// The values of the names of `pattern`, decoded.
    ///
    /// # Errors
    /// 400 for a value that cannot be decoded.
    pub(super) fn decode(&self, pattern: &'static Pattern) -> Result<PathParams<'a>, Refusal> {
        let mut params = PathParams::none(pattern);
        for (param, value) in params.values.iter_mut().zip(&self.values[..self.count]) {
            *param = path::decode(value)?;
        }
        Ok(params)
    }
}

/// The values of a pattern's names in a path. They are decoded, and none of them is checked yet.
#[derive(Clone)]
pub(super) struct PathParams<'a> {
    pattern: &'static Pattern,
    /// In the order of the names.
    values: [Cow<'a, str>; NAMES_MAX],
}

impl<'a> PathParams<'a> {
    /// Every name's value is empty.
    pub(super) fn none(pattern: &'static Pattern) -> Self {
        Self { pattern, values: Default::default() }
    }

    /// The same values, which borrow nothing.
    pub(super) fn into_owned(self) -> PathParams<'static> {
        PathParams { pattern: self.pattern, values: self.values.map(|value| Cow::Owned(value.into_owned())) }
    }

    /// The same values, borrowed from these.
    pub(super) fn borrowed(&self) -> PathParams<'_> {
        PathParams { pattern: self.pattern, values: self.values.each_ref().map(|value| Cow::Borrowed(value.as_ref())) }
    }

    /// The value of a name; `None` where the pattern has no such name.
    pub(super) fn get(&self, name: &str) -> Option<&Cow<'a, str>> {
        self.pattern.position(name).map(|position| &self.values[position])
    }

    /// The value of a name that the pattern has.
    ///
    /// # Panics
    /// If it has no such name: the handler is not made for this row of the table.
    pub(super) fn value(&self, name: &str) -> &Cow<'a, str> {
        match self.get(name) {
            Some(value) => value,
            None => panic!("the pattern {} has no {{{name}}}", self.pattern.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
        let pattern = kept(pattern);
        let params = pattern.capture(path)?.decode(pattern).unwrap();
        let names = pattern.segments.iter().filter_map(|segment| segment.name());
        Some(names.map(|name| (name, params.value(name).clone().into_owned())).collect())
    }

    /// As in a table of routes.
    fn kept(pattern: &'static str) -> &'static Pattern {
        Box::leak(Box::new(Pattern::new(pattern)))
    }

    fn some(pairs: &[(&'static str, &str)]) -> Option<Vec<(&'static str, String)>> {
        Some(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn literals_match_themselves_also_encoded_and_nothing_else() {
        for path in ["/api/v1/push", "/api/v1/p%75sh", "/%61pi/v1/push"] {
            assert_eq!(values("/api/v1/push", path), some(&[]), "{path}");
        }
        for path in
            ["/api/v1/pus", "/api/v1/push/", "/api/v1", "/api//push", "api/v1/push", "/api/v1/p%7", "*", "", "/"]
        {
            assert_eq!(values("/api/v1/push", path), None, "{path}");
        }
        assert_eq!(values("/", "/"), some(&[]));
    }

    #[test]
    fn names_take_one_segment_each_decoded_after_the_path_was_cut() {
        let pattern = "/push/{queue}/{partition}";
        assert_eq!(values(pattern, "/push/q/p"), some(&[("queue", "q"), ("partition", "p")]));
        assert_eq!(values(pattern, "/push/a%2Fb/%C3%A9"), some(&[("queue", "a/b"), ("partition", "é")]));
        assert_eq!(values(pattern, "/push//"), some(&[("queue", ""), ("partition", "")]));
        for path in ["/push/q", "/push/q/p/", "/push/q/p/r", "/pus/q/p"] {
            assert_eq!(values(pattern, path), None, "{path}");
        }
    }

    #[test]
    fn a_greedy_name_takes_all_segments_that_the_others_leave() {
        let pattern = "/queue/{queue...}/partition/{partition}";
        for (path, queue, partition) in [
            ("/queue/q/partition/p", "q", "p"),
            ("/queue/a/b/c/partition/p", "a/b/c", "p"),
            ("/queue/a%2Fb/c/partition/%2F", "a/b/c", "/"),
            ("/queue//partition/p", "", "p"),
            ("/queue/a//b/partition/", "a//b", ""),
            // The last `partition` counts.
            ("/queue/a/partition/b/partition/c", "a/partition/b", "c"),
            ("/queue/1/2/3/4/5/6/7/8/9/10/11/12/partition/p", "1/2/3/4/5/6/7/8/9/10/11/12", "p"),
        ] {
            assert_eq!(values(pattern, path), some(&[("queue", queue), ("partition", partition)]), "{path}");
        }
        for path in ["/queue/partition/p", "/queue/q/partition", "/queue/q/partition/p/r", "/queue", "/q/q/partition/p"]
        {
            assert_eq!(values(pattern, path), None, "{path}");
        }
        assert_eq!(values("/queue/{queue...}", "/queue/a/b"), some(&[("queue", "a/b")]));
        assert_eq!(values("/{all...}", "/"), some(&[("all", "")]));
        assert_eq!(values("/{all...}/end", "/a/b/end"), some(&[("all", "a/b")]));
    }

    #[test]
    fn a_pattern_may_have_nine_segments_and_three_names() {
        let pattern = "/1/{a}/3/{b...}/5/6/7/{c}/9";
        assert_eq!(values(pattern, "/1/w/3/x/y/5/6/7/z/9"), some(&[("a", "w"), ("b", "x/y"), ("c", "z")]));
        for wrong in ["/1/2/3/4/5/6/7/8/9/10", "/{a}/{b}/{c}/{d}", "/{a...}/{b...}", "push", "/{a", "/{}"] {
            assert!(std::panic::catch_unwind(|| Pattern::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_found_by_name_and_one_that_cannot_be_decoded_is_refused() {
        let pattern = kept("/push/{queue}/{partition}");
        let params = pattern.capture("/push/q/p").unwrap().decode(pattern).unwrap();
        assert!(matches!(params.value("queue"), Cow::Borrowed("q")));
        assert_eq!((params.get("partition"), params.get("task")), (Some(&Cow::Borrowed("p")), None));
        assert!(matches!(params.borrowed().into_owned().value("queue"), Cow::Owned(queue) if queue == "q"));
        let captures = pattern.capture("/push/q/%zz").unwrap();
        assert_eq!(captures.decode(pattern).map(drop).map_err(|refusal| refusal.status), Err(400));
    }
}
