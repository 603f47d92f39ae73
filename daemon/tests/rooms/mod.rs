//! The source of a crate as rooms (its top-level modules) and files, and which uses which.
//!
//! Read with `syn`: every `use` tree, and every path in the code that begins with `crate`, `self` or `super`, or with a module
//! that the file declares. A path leads to the file of the deepest module that it names; where it names something that
//! a module re-exports, to the file from which that comes. Code for tests (`#[cfg(test)]`) does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use syn::{Item, UseTree, spanned::Spanned, visit::Visit};

/// A use of one file by another; both are paths below the crate's source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Line of `from`, counted from 1.
    pub(crate) line: usize,
}

/// A path as a file writes it.
struct Mention {
    segments: Vec<String>,
    line: usize,
    /// It is re-exported: nothing is used, but whoever names it here means what it leads to.
    is_export: bool,
}

/// Which nodes each node uses.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The source of a crate.
pub(crate) struct Code {
    /// By path below the source.
    files: BTreeMap<String, Vec<Mention>>,
    /// The file of each module.
    file_of: BTreeMap<Vec<String>, String>,
}

impl Code {
    /// Reads all files below `source`.
    pub(crate) fn read(source: &Path) -> Self {
        let mut code = Self { files: BTreeMap::new(), file_of: BTreeMap::new() };
        code.read_dir(source, source);
        code
    }

    fn read_dir(&mut self, source: &Path, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read_dir(source, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(source).unwrap().to_str().unwrap().to_owned();
                self.file_of.insert(module_of(&name), name.clone());
                self.files.insert(name, mentions(&fs::read_to_string(&path).unwrap()));
            }
        }
        // Files of tests are no part of the program.
        self.files.retain(|name, _| !is_test(name));
        self.file_of.retain(|_, name| !is_test(name));
    }

    /// Adds code to a file, as if it stood at its beginning.
    pub(crate) fn plant(&mut self, file: &str, code: &str) {
        self.files.get_mut(file).unwrap().extend(mentions(code));
    }

    /// The room of a file.
    pub(crate) fn room(&self, file: &str) -> String {
        file.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    }

    /// The rooms, and which uses which. The crate's root belongs to none.
    pub(crate) fn rooms(&self) -> Graph {
        let mut rooms: Graph =
            self.files.keys().filter(|file| !is_root(file)).map(|f| (self.room(f), [].into())).collect();
        for Arrow { from, to, .. } in self.arrows_between_rooms() {
            rooms.get_mut(&self.room(&from)).unwrap().insert(self.room(&to));
        }
        rooms
    }

    /// The arrows whose ends are in different rooms.
    pub(crate) fn arrows_between_rooms(&self) -> Vec<Arrow> {
        let is_between = |arrow: &Arrow| self.room(&arrow.from) != self.room(&arrow.to);
        self.arrows().into_iter().filter(is_between).collect()
    }

    /// The files of each room, and which uses which.
    pub(crate) fn files_by_room(&self) -> BTreeMap<String, Graph> {
        let mut rooms: BTreeMap<String, Graph> = BTreeMap::new();
        for Arrow { from, to, .. } in self.arrows() {
            if self.room(&from) == self.room(&to) {
                let files = rooms.entry(self.room(&from)).or_default();
                files.entry(to.clone()).or_default();
                files.entry(from).or_default().insert(to);
            }
        }
        rooms
    }

    fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (from, mentions) in self.files.iter().filter(|(from, _)| !is_root(from)) {
            for mention in mentions.iter().filter(|mention| !mention.is_export) {
                if let Some(to) = self.target(&module_of(from), &mention.segments, 0).filter(|to| to != from) {
                    arrows.insert(Arrow { from: from.clone(), to, line: mention.line });
                }
            }
        }
        // One arrow for each pair of files, by the first line that draws it.
        let mut seen = BTreeSet::new();
        arrows.retain(|arrow| seen.insert((arrow.from.clone(), arrow.to.clone())));
        arrows
    }

    /// The file to which a path in `module` leads.
    fn target(&self, module: &[String], segments: &[String], depth: usize) -> Option<String> {
        const RE_EXPORTS_MAX: usize = 8;
        let mut at = module.to_vec();
        let mut rest = segments;
        match segments.first().map(String::as_str)? {
            "crate" => {
                at.clear();
                rest = &segments[1..];
            }
            "self" => rest = &segments[1..],
            "super" => {}
            first => {
                at.push(first.to_owned());
                if !self.file_of.contains_key(&at) {
                    return None;
                }
                rest = &segments[1..];
            }
        }
        while rest.first().is_some_and(|segment| segment == "super") {
            at.pop()?;
            rest = &rest[1..];
        }
        while let Some(segment) = rest.first() {
            at.push(segment.clone());
            if !self.file_of.contains_key(&at) {
                at.pop();
                break;
            }
            rest = &rest[1..];
        }
        let file = self.file_of.get(&at)?;
        if let Some(name) = rest.first().filter(|_| depth < RE_EXPORTS_MAX) {
            let exported =
                self.files[file].iter().find(|mention| mention.is_export && mention.segments.last() == Some(name));
            if let Some(target) = exported.and_then(|mention| self.target(&at, &mention.segments, depth + 1)) {
                return Some(target);
            }
        }
        Some(file.clone())
    }
}

fn is_root(file: &str) -> bool {
    matches!(file, "lib.rs" | "main.rs")
}

fn is_test(file: &str) -> bool {
    file.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The module that a file holds, as the path to it.
fn module_of(file: &str) -> Vec<String> {
    let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

/// The paths in a file's code.
fn mentions(code: &str) -> Vec<Mention> {
    let mut finder = Finder(Vec::new());
    finder.visit_file(&syn::parse_file(code).unwrap());
    finder.0
}

struct Finder(Vec<Mention>);

impl Finder {
    fn use_tree(&mut self, tree: &UseTree, before: &[String], is_export: bool) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident), is_export),
            UseTree::Name(name) if name.ident == "self" => self.add(before.to_vec(), tree, is_export),
            UseTree::Name(name) => self.add(with(&name.ident), tree, is_export),
            UseTree::Rename(rename) => self.add(with(&rename.ident), tree, is_export),
            UseTree::Glob(_) => self.add(before.to_vec(), tree, is_export),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, before, is_export)),
        }
    }

    fn add(&mut self, segments: Vec<String>, at: &impl Spanned, is_export: bool) {
        self.0.push(Mention { segments, line: at.span().start().line, is_export });
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_for_tests = matches!(item, Item::Mod(module) if module.attrs.iter().any(is_cfg_test));
        if !is_for_tests {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        self.use_tree(&item.tree, &[], is_export);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // A module that a visibility names is allowed to use something; it is not used.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(segments, path, false);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // What a macro makes of its tokens is not known; paths from the crate's root are recognized all the same.
        let tokens: Vec<String> = call.tokens.to_string().split_whitespace().map(str::to_owned).collect();
        for (at, _) in tokens.iter().enumerate().filter(|(_, token)| *token == "crate") {
            let names = tokens[at..].iter().step_by(2).map(|token| token.trim_end_matches([',', ')']).to_owned());
            let segments = names.take_while(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_')).collect();
            self.add(segments, call, false);
        }
        syn::visit::visit_macro(self, call);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
}

/// The strongly connected components of more than one node (Tarjan, 1972).
pub(crate) fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let mut search =
        Search { graph, next: 0, index: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for node in graph.keys() {
        if !search.index.contains_key(node.as_str()) {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'g> {
    graph: &'g Graph,
    next: usize,
    index: BTreeMap<&'g str, usize>,
    low: BTreeMap<&'g str, usize>,
    stack: Vec<&'g str>,
    found: Vec<Vec<String>>,
}

impl<'g> Search<'g> {
    fn visit(&mut self, node: &'g str) {
        self.index.insert(node, self.next);
        self.low.insert(node, self.next);
        self.next += 1;
        self.stack.push(node);
        for next in self.graph.get(node).into_iter().flatten() {
            if !self.index.contains_key(next.as_str()) {
                self.visit(next);
                self.lower(node, self.low[next.as_str()]);
            } else if self.stack.contains(&next.as_str()) {
                self.lower(node, self.index[next.as_str()]);
            }
        }
        if self.low[node] == self.index[node] {
            let start = self.stack.iter().position(|other| *other == node).unwrap();
            let mut component: Vec<String> = self.stack.split_off(start).into_iter().map(str::to_owned).collect();
            component.sort_unstable();
            if component.len() > 1 {
                self.found.push(component);
            }
        }
    }

    fn lower(&mut self, node: &'g str, to: usize) {
        self.low.entry(node).and_modify(|low| *low = to.min(*low));
    }
}
