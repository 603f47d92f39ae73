//! Documents that resemble JSON; most are close to a limit of validity.

use super::common::random::Random;

/// Generates documents, one after the other.
pub(super) struct Documents {
    random: Random,
}

/// All forms of invalid UTF-8.
const FLAWS: [&[u8]; 10] = [
    b"\x80",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xff",
    b"\xe2\x82",
    b"\xf8\x88\x80\x80\x80",
];

/// Valid escapes and invalid ones.
const ESCAPES: [&str; 28] = [
    "\\\"",
    "\\\\",
    "\\/",
    "\\b",
    "\\f",
    "\\n",
    "\\r",
    "\\t",
    "\\u0041",
    "\\u00e9",
    "\\uFFFF",
    "\\u0001",
    "\\u0000",
    "\\ud83d\\ude00",
    "\\uD800\\uDC00",
    "\\udbff\\udfff",
    "\\ud83d",
    "\\ude00",
    "\\ude00\\ud83d",
    "\\ud83d\\n",
    "\\ud83d\\u0041",
    "\\u12",
    "\\u12g4",
    "\\x41",
    "\\'",
    "\\a",
    "\\U0041",
    "\\\\u0000",
];

/// Valid and invalid white space between tokens.
const SPACES: [&str; 14] =
    ["", "", "", "", " ", "\t", "\n", "\r\n", "  ", "\u{b}", "\u{c}", "\u{a0}", "\u{2028}", "\u{feff}"];

const TOKENS: [&str; 32] = [
    "{", "}", "[", "]", ",", ":", "\"a\"", "\"\"", "0", "-0", "1", "-", "01", "1.", ".5", "1e", "1e5", "1E+2", "true",
    "false", "null", "nul", "True", "NaN", "Infinity", "'a'", "//", "/**/", "\\", "\"", "\u{0}", "é",
];

/// Bytes with a meaning in JSON.
const MEANING: &[u8] = b"{}[]\",:\\u0dD8eE+-.tfn \n/\0\x1f\x7f\xc3\xa9";

impl Documents {
    pub(super) fn new(random: Random) -> Self {
        Self { random }
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0..18 => self.document(),
            18..26 => {
                let mut document = self.document();
                for _ in 0..=self.random.below(3) {
                    self.mutate(&mut document);
                }
                document
            }
            26..28 => {
                let mut document = self.document();
                document.truncate(self.random.below(document.len() as u64 + 1) as usize);
                document
            }
            28..30 => {
                let mut document = self.document();
                document.extend_from_slice(self.pick(&TOKENS).as_bytes());
                document
            }
            30..33 => self.tokens(),
            33..37 => {
                let mut document = self.string().into_bytes();
                if self.random.once_in(6) {
                    self.put_flaw(&mut document);
                }
                document
            }
            37 => self.spaced(),
            38 => self.long_number().into_bytes(),
            _ => match self.random.below(8) {
                0 => self.nested(),
                1 => self.long_string(),
                _ => self.bytes(),
            },
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn document(&mut self) -> Vec<u8> {
        let mut out = String::new();
        self.value(&mut out, 5);
        out.into_bytes()
    }

    fn value(&mut self, out: &mut String, depth: u32) {
        let kinds = if depth == 0 { 7 } else { 12 };
        match self.random.below(kinds) {
            0 => out.push_str(self.pick(&["true", "false", "null"])),
            1..4 => {
                let number = self.number();
                out.push_str(&number);
            }
            4..7 => self.good_string(out),
            7..9 => self.list(out, ('[', ']'), |documents, out| documents.value(out, depth - 1)),
            _ => self.list(out, ('{', '}'), |documents, out| {
                // In one object of three, a key eventually repeats.
                if documents.random.once_in(3) {
                    out.push_str("\"same\"")
                } else {
                    documents.good_string(out)
                }
                let space = documents.pick(&SPACES[..9]);
                out.push_str(space);
                out.push(':');
                out.push_str(space);
                documents.value(out, depth - 1);
            }),
        }
    }

    fn list(&mut self, out: &mut String, (open, close): (char, char), mut member: impl FnMut(&mut Self, &mut String)) {
        out.push(open);
        for n in 0..self.random.below(4) {
            if n > 0 {
                out.push(',');
            }
            out.push_str(self.pick(&SPACES[..9]));
            member(self, out);
            out.push_str(self.pick(&SPACES[..9]));
        }
        out.push(close);
    }

    fn digits(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'0' + self.random.below(10) as u8)).collect()
    }

    fn number(&mut self) -> String {
        let mut number = self.pick(&["", "-"]).to_owned();
        match self.random.below(3) {
            0 => number.push('0'),
            _ => {
                number.push(char::from(b'1' + self.random.below(9) as u8));
                let count = self.random.below(20);
                number.push_str(&self.digits(count));
            }
        }
        if self.random.once_in(2) {
            let count = 1 + self.random.below(20);
            number.push('.');
            number.push_str(&self.digits(count));
        }
        if self.random.once_in(3) {
            let count = 1 + self.random.below(3);
            number.push_str(self.pick(&["e", "E", "e+", "E-", "e-"]));
            number.push_str(&self.digits(count));
        }
        number
    }

    /// A number close to the maximum number of digits of the edge, or to the largest exponents of `numeric`.
    fn long_number(&mut self) -> String {
        let near = |random: &mut Random, middle: u64| middle - 4 + random.below(9);
        let zeros = |count: u64| "0".repeat(count as usize);
        let sign = self.pick(&["", "-"]);
        let around = near(&mut self.random, 1_000);
        let half = self.random.below(around);
        match self.random.below(8) {
            0 => format!("{sign}7{}", self.digits(around - 1)),
            1 => format!("{sign}0.{}", self.digits(around)),
            2 => format!("{sign}1{}.{}", self.digits(half), self.digits(around - half)),
            3 => format!("{sign}{}e{around}", self.pick(&["1", "10", "0", "0.1", "0.001", "1.5", "0.0"])),
            4 => format!("{sign}{}e-{around}", self.pick(&["1", "10", "0", "0.1", "0.001", "1.5", "0.0"])),
            5 => format!("{sign}1{}e-{half}", self.digits(around)),
            6 => format!("{sign}0.{}1{}e{half}", zeros(half), self.digits(around - half)),
            _ => {
                let border =
                    self.pick(&[16_383, 131_071, 1_073_741_823, 2_147_483_647, 4_294_967_295, 100_000_000_000]);
                let mantissa = self.pick(&["0", "1", "0.0", "9.9"]);
                let exponent_sign = self.pick(&["", "-", "+"]);
                format!("{sign}{mantissa}e{exponent_sign}{}", near(&mut self.random, border))
            }
        }
    }

    fn good_string(&mut self, out: &mut String) {
        out.push('"');
        for _ in 0..self.random.below(4) {
            match self.random.below(4) {
                0 => {
                    let escape = ESCAPES[self.random.below(12) as usize];
                    out.push_str(escape);
                }
                1 => out.push_str(self.pick(&[
                    "é",
                    "😀",
                    "\u{7f}",
                    "\u{80}",
                    "\u{2028}",
                    "\u{fffe}",
                    "\u{10ffff}",
                    "ключ",
                ])),
                _ => {
                    let count = self.random.below(24);
                    (0..count).for_each(|_| out.push(char::from(b'a' + self.random.below(26) as u8)));
                }
            }
        }
        out.push('"');
    }

    /// A string with arbitrary content.
    fn string(&mut self) -> String {
        let mut out = String::from(self.pick(&["\"", "[\"", "{\"a\":\"", "{\""]));
        let end = match out.as_str() {
            "\"" => "\"",
            "[\"" => "\"]",
            "{\"" => "\":1}",
            _ => "\"}",
        };
        for _ in 0..self.random.below(6) {
            match self.random.below(6) {
                0..3 => out.push_str(self.pick(&ESCAPES)),
                3 => {
                    let unit = self.random.below(0x10000);
                    out.push_str(&format!("\\u{unit:04x}"));
                }
                4 if self.random.once_in(4) => out.push(char::from(self.random.below(0x80) as u8)),
                _ => {
                    let count = self.random.below(20);
                    (0..count).for_each(|_| out.push(char::from(b'a' + self.random.below(26) as u8)));
                }
            }
        }
        out.push_str(end);
        out
    }

    fn spaced(&mut self) -> Vec<u8> {
        let (before, after) = (self.pick(&SPACES), self.pick(&SPACES));
        [before.as_bytes(), &self.document(), after.as_bytes()].concat()
    }

    fn tokens(&mut self) -> Vec<u8> {
        (0..=self.random.below(8)).map(|_| self.pick(&TOKENS)).collect::<String>().into_bytes()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = self.random.below(12);
        (0..count).map(|_| if self.random.once_in(4) { self.random.next() as u8 } else { self.pick(MEANING) }).collect()
    }

    /// Nesting close to the edge's maximum depth, seldom far deeper.
    fn nested(&mut self) -> Vec<u8> {
        let depth = if self.random.once_in(20) { 30_000 } else { 506 + self.random.below(13) as usize };
        let (open, close) = self.pick(&[("[", "]"), ("{\"a\":", "}"), ("[[", "]]"), ("[{\"a\":", "}]")]);
        let levels = depth / close.len();
        let inner = self.pick(&["", "1", "[]", "{}", "\"[[\""]);
        let closed = levels - usize::from(self.random.once_in(8));
        format!("{}{inner}{}", open.repeat(levels), close.repeat(closed)).into_bytes()
    }

    fn long_string(&mut self) -> Vec<u8> {
        let length = self.random.below(30_000) as usize;
        let mut document = [b"\"", "x".repeat(length).as_bytes(), b"\""].concat();
        if self.random.once_in(2) {
            self.mutate(&mut document);
        }
        document
    }

    /// Inserts, deletes or replaces one byte, or inserts a flaw.
    fn mutate(&mut self, document: &mut Vec<u8>) {
        let at = self.random.below(document.len() as u64 + 1) as usize;
        let byte = if self.random.once_in(4) { self.random.next() as u8 } else { self.pick(MEANING) };
        match self.random.below(7) {
            0..2 => document.insert(at, byte),
            2..4 if at < document.len() => drop(document.remove(at)),
            4..6 if at < document.len() => document[at] = byte,
            _ => self.put_flaw(document),
        }
    }

    fn put_flaw(&mut self, document: &mut Vec<u8>) {
        let at = self.random.below(document.len() as u64 + 1) as usize;
        let flaw = self.pick(&FLAWS);
        drop(document.splice(at..at, flaw.iter().copied()));
    }
}
