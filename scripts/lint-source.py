#!/usr/bin/env python3
"""Checks the Rust sources for faults that neither rustc nor clippy reports. Prints each as FILE:LINE: TEXT.

    scripts/lint-source.py              check the repository; exit status 1 if there is a fault
    scripts/lint-source.py --self-test  plant each kind of fault in a copy of the sources; exit status 1 unless all are found

The faults, in tests as well:
- A `Result` has `String` as its error type, also as `type Err = String`. An error is a type that tells the faults apart.
- An inherent `impl T` block is in another file than the definition of `T`. A type that outgrows its file is divided into
  types. Trait impls may be anywhere.

The script reads text, not syntax trees: it blanks comments and literals, then matches brackets. It does not expand macros.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The beginning of a block comment or raw string, or the whole of another comment or literal. A lifetime is no literal.
COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*
      | /\*
      | (?<!\w)[bc]?r(?P<hashes>\#*)"
      | (?<!\w)[bc]?"(?:[^"\\]|\\.)*"
      | b?'(?:[^'\\\n]|\\x[0-9a-fA-F]{2}|\\u\{[^}]*\}|\\.)'""",
    re.VERBOSE | re.DOTALL,
)
RESULT = re.compile(r"\bResult\s*(?:::\s*)?(?=<)")
STRING = re.compile(r"(?:(?:::)?(?:std|alloc)::string::)?String")
ERROR_TYPE_STRING = re.compile(r"\btype\s+(?:Err|Error)\s*=\s*(?:\w+\s*::\s*)*String\s*;")
# An `impl` that begins an item follows another item, a brace, an attribute or nothing.
IMPL = re.compile(r"(?:(?<=[{};\]])|\A)\s*(?:(?:default|unsafe)\s+)*\bimpl\b")
SELF_TYPE = re.compile(r"\s*(?:dyn\s+)?(?:::)?(?:\w+\s*::\s*)*(\w+)")
TRAIT_IMPL = re.compile(r"\bfor\b(?!\s*<)")


def blanked(source):
    """The source with spaces in place of comments and literals; line numbers and positions stay."""
    parts, at = [], 0
    while match := COMMENT_OR_LITERAL.search(source, at):
        end = match.end()
        if match.group() == "/*":
            end = end_of_block_comment(source, end)
        elif match.group("hashes") is not None:
            terminator = '"' + match.group("hashes")
            end = source.index(terminator, end) + len(terminator)
        parts += [source[at : match.start()], re.sub(r"[^\n]", " ", source[match.start() : end])]
        at = end
    return "".join(parts) + source[at:]


def end_of_block_comment(source, at):
    """The end of a block comment whose content begins at `at`. Block comments nest."""
    depth = 1
    while depth > 0:
        match = re.compile(r"/\*|\*/").search(source, at)
        depth += 1 if match.group() == "/*" else -1
        at = match.end()
    return at


def end_of_generics(code, at):
    """The position behind the `>` that closes the `<` at `at`."""
    depth = 0
    for match in re.compile(r"->|=>|[<>]").finditer(code, at):
        depth += {"<": 1, ">": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(code)


def arguments(text):
    """The parts of `text` between commas that are in no brackets. The arrow of a function type closes no bracket."""
    parts, depth = [""], 0
    for token in re.findall(r"->|=>|.", text, re.DOTALL):
        depth += (token in "<([{") - (token in ">)]}")
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts if part.strip()]


def results_with_string(code):
    """The positions of `Result<_, String>`."""
    for match in RESULT.finditer(code):
        end = end_of_generics(code, match.end())
        of = arguments(code[match.end() + 1 : end - 1])
        if len(of) == 2 and STRING.fullmatch(re.sub(r"\s", "", of[1])):
            yield match.start()
    for match in ERROR_TYPE_STRING.finditer(code):
        yield match.start()


def inherent_impls(code):
    """The positions of inherent `impl` blocks, each with the name of its type."""
    for match in IMPL.finditer(code):
        at = match.end()
        if generics := re.compile(r"\s*(?=<)").match(code, at):
            at = end_of_generics(code, generics.end())
        header = re.split(r"\bwhere\b", header_without_generics(code, at))[0]
        self_type = SELF_TYPE.match(header)
        # Without a name it is a macro's `impl $name`.
        if self_type and not TRAIT_IMPL.search(header):
            yield code.rindex("impl", 0, match.end()), self_type.group(1)


def header_without_generics(code, at):
    """The header of an `impl` block from `at` to its `{`, without everything between angle brackets."""
    parts = []
    while match := re.compile(r"[<{]").search(code, at):
        parts.append(code[at : match.start()])
        if match.group() == "{":
            break
        at = end_of_generics(code, match.start())
    return "".join(parts)


def faults_of(path, source):
    """The faults of one file, as (path, line, text)."""
    code = blanked(source)
    found = [(at, "the error type is String; make it an enum") for at in results_with_string(code)]
    defined = set(re.findall(r"\b(?:struct|enum|union|trait)\s+(\w+)", code))
    for at, name in inherent_impls(code):
        if name not in defined:
            found.append((at, f"an inherent impl of {name} is outside the file that defines {name}"))
    return [(path, code.count("\n", 0, at) + 1, text) for at, text in sorted(found)]


def sources(root):
    """The Rust files below `root`, relative to it, without build directories and hidden ones."""
    files = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if name != "target" and not name.startswith(".")]
        files += [(Path(directory) / name).relative_to(root) for name in names if name.endswith(".rs")]
    return sorted(files)


def faults(root):
    return [fault for file in sources(root) for fault in faults_of(file, (root / file).read_text())]


# Files to plant. A fault is expected on each line that contains `FAULT`, and on no other.
PLANTED = {
    "wal/src/planted.rs": r"""
        fn one() -> Result<(), String> { todo!() } // FAULT
        fn two() -> Result< // FAULT
            Vec<(u8, Box<dyn Fn(u8) -> Vec<u8>>)>,
            String,
        > { todo!() }
        fn three(f: impl Fn() -> std::result::Result<u8, std::string::String>) {} // FAULT
        type Alias<T> = core::result::Result<T, String>; // FAULT
        fn four() { let ok = Result::<_, String>::Ok(1); } // FAULT
        fn five() -> Option<io::Result<Result<u8, String>>> { None } // FAULT
        fn six<'a>(c: char) -> Result<&'a str, String> { if c == '"' { Ok("'") } else { todo!() } } // FAULT
        impl FromStr for Local { type Err = String; } // FAULT
        struct Local;
        // -> Result<(), String>
        /* /* Result<u8, String> */ Result<u8, String> */
        const TEXT: &str = "Result<u8, String>\" Result<u8, String>";
        const RAW: &str = r#"" Result<u8, String>"#;
        fn good() -> Result<String, Error> { todo!() }
        fn also_good() -> Result<Vec<String>, Box<dyn Fn(String) -> String>> { todo!() }
        fn good_too() -> io::Result<String> { todo!() }
    """,
    "daemon/tests/planted.rs": r"""
        impl Elsewhere { fn f() {} } // FAULT
        impl<'a, S: Fn(u8) -> Vec<u8>> crate::there::Generic<'a, S> // FAULT
        where
            S: for<'b> Fn(&'b u8),
        {}
        #[allow(dead_code)]
        impl<const N: usize> Sized<N> {} // FAULT
        unsafe impl Send for Elsewhere {}
        impl Trait<{ N }> for Elsewhere<{ 1 + N }> {}
        impl<'a, T> From<&'a T> for Elsewhere<T> where T: Copy { fn from(t: &'a T) -> impl Copy { todo!() } }
        impl Local { fn f(g: impl Fn(u8) -> u8, h: &mut impl Read) -> impl Iterator<Item = u8> { todo!() } }
        pub(crate) struct Local;
        impl Local {}
        impl<T> Choice<T> where T: for<'a> From<&'a str> {}
        enum Choice<T> { A(T) }
        impl dyn Trait {}
        trait Trait {}
        macro_rules! define { ($name:ident) => { impl $name {} }; }
        // impl Elsewhere {}
        mod tests { impl super::Elsewhere {} } // FAULT
    """,
}


def self_test():
    """Whether all planted faults are found, and nothing else."""
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy)
        for file in sources(ROOT):
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, copy / file)
        before = {(path, line) for path, line, _ in faults(copy)}
        expected = set()
        for file, text in PLANTED.items():
            (copy / file).write_text(text)
            expected |= {(Path(file), line) for line, of in enumerate(text.splitlines(), 1) if "FAULT" in of}
        found = {(path, line) for path, line, _ in faults(copy)} - before
    for path, line in sorted(expected - found):
        print(f"self-test: planted {path}:{line} is not found")
    for path, line in sorted(found - expected):
        print(f"self-test: planted {path}:{line} is found without a fault")
    return found == expected


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    found = faults(ROOT)
    for path, line, text in found:
        print(f"{path}:{line}: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
