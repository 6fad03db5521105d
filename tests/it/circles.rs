//! No circles inside a folder: of two of its files, or of a file and a folder in it, at most one
//! imports the other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::architecture::files_below;

/// A path of names, e.g. `record::lines::decode`; of a module, or of something in one.
type Names = Vec<String>;

/// The modules of the crate, with their text but without their tests.
struct Crate(BTreeMap<Names, String>);

impl Crate {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = files_below(&root).into_iter().filter(|path| {
            path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs")
        });
        Self(
            files
                .map(|path| {
                    let name = path.strip_prefix(&root).unwrap().with_extension("");
                    let names = name.iter().map(|name| name.to_str().unwrap().to_owned());
                    let module = names.filter(|name| name != "mod").collect();
                    (module, code(&fs::read_to_string(&path).unwrap()))
                })
                .collect(),
        )
    }

    /// What each folder re-exports: its own name for it, and the real one.
    fn exports(&self) -> BTreeMap<Names, Names> {
        let mut exports = BTreeMap::new();
        for (module, text) in &self.0 {
            for (start, _) in text.match_indices(" use ") {
                let line = text[..start].rsplit(['\n', ';']).next().unwrap_or_default().trim();
                if line != "pub" && !line.starts_with("pub(") {
                    continue;
                }
                for (target, alias) in tree(&text[start + 5..], &[]) {
                    let target = absolute(&target, module);
                    let name = alias.or_else(|| target.last().cloned()).unwrap_or_default();
                    exports.insert([module.as_slice(), &[name]].concat(), target);
                }
            }
        }
        exports
    }

    /// The module that defines what `names` leads to.
    fn module_of(&self, mut names: Names, exports: &BTreeMap<Names, Names>) -> Names {
        // More re-exports of re-exports would be hard to follow for a reader, too.
        for _ in 0..6 {
            let known = (0..=names.len())
                .rev()
                .find(|length| *length == 0 || self.0.contains_key(&names[..*length]));
            let length = known.unwrap_or_default();
            let Some(target) = names.get(..=length).and_then(|head| exports.get(head)) else {
                return names[..length].to_vec();
            };
            names = [target.as_slice(), &names[length + 1..]].concat();
        }
        names
    }

    /// Which parts of each folder import which others.
    fn imports(&self) -> BTreeMap<Names, BTreeSet<(String, String)>> {
        let exports = self.exports();
        let mut imports: BTreeMap<Names, BTreeSet<(String, String)>> = BTreeMap::new();
        for (module, text) in &self.0 {
            for (start, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
                if text[..start].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)) {
                    continue;
                }
                for (names, _) in tree(&text[start..], &[]) {
                    let target = self.module_of(absolute(&names, module), &exports);
                    let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                    if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                        let folder = imports.entry(module[..common].to_vec()).or_default();
                        folder.insert((from.clone(), to.clone()));
                    }
                }
            }
        }
        imports
    }

    /// Every pair that imports each other, as text.
    fn circles(&self) -> Vec<String> {
        let mut circles = Vec::new();
        for (folder, edges) in self.imports() {
            for (from, to) in &edges {
                if from < to && is_reachable(to, from, &edges)
                    || from > to
                        && is_reachable(to, from, &edges)
                        && !edges.contains(&(to.clone(), from.clone()))
                {
                    circles.push(format!("{}: {from} <-> {to}", folder.join("/")));
                }
            }
        }
        circles
    }
}

/// Without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The paths of an import like `a::{b, c::{d, e as f}}` at the start of `text`, with their aliases.
fn tree(text: &str, prefix: &[String]) -> Vec<(Names, Option<String>)> {
    let mut names = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length > 0 {
            names.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(inside) if inside.starts_with('{') => {
                return parts(&inside[1..]).flat_map(|part| tree(part, &names)).collect();
            }
            Some(more) if more.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                rest = more;
            }
            _ => break,
        }
    }
    let alias = rest.strip_prefix(" as ").map(|rest| {
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    });
    names.retain(|name| name != "self");
    vec![(names, alias)]
}

/// The parts between the commas of `a, b::{c, d}, e}` up to the closing brace.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (idx, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&text[start..idx]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..idx]);
                start = idx + 1;
            }
            _ => {}
        }
    }
    found.into_iter().filter(|part| !part.trim().is_empty())
}

/// `crate::a`, `super::a` or `a`, as written in `module`, from the root of the crate.
fn absolute(names: &[String], module: &[String]) -> Names {
    match names.first().map(String::as_str) {
        Some("crate") => names[1..].to_vec(),
        Some("super") => {
            let up = names.iter().take_while(|name| *name == "super").count();
            let above = &module[..module.len().saturating_sub(up)];
            [above, &names[up..]].concat()
        }
        _ => [module, names].concat(),
    }
}

fn is_reachable(from: &str, to: &str, edges: &BTreeSet<(String, String)>) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(edges.iter().filter(|(start, _)| start == at).map(|(_, end)| end.as_str()));
        }
    }
    false
}

#[test]
fn no_two_parts_of_a_folder_import_each_other() {
    let circles = Crate::read().circles();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn circles_are_found_through_other_files_and_through_re_exports() {
    let module = |name: &str, text: &str| {
        (name.split("::").map(str::to_owned).collect::<Names>(), code(text))
    };
    let direct = Crate(BTreeMap::from([
        module("a", "mod b;\nmod c;\npub use b::One;\npub use c::{Two as Second};\n"),
        module("a::b", "use crate::a::Second;\npub struct One;\n"),
        module("a::c", "use crate::{a::One, z::Other};\n// crate::a::b\n"),
        module("z", "fn f() { crate::a::c::g() }\n"),
    ]));
    assert_eq!(direct.circles(), [": a <-> z", "a: b <-> c"]);
    let round = Crate(BTreeMap::from([
        module("a::b", "use super::c;\n"),
        module("a::c", "use super::d::X;\n"),
        module("a::d", "use super::b;\n#[cfg(test)]\nmod tests { use super::super::c; }\n"),
    ]));
    assert_eq!(round.circles(), ["a: b <-> c", "a: c <-> d", "a: d <-> b"]);
    let tree = Crate(BTreeMap::from([
        module("a::b", "use super::c;\n"),
        module("a::c", "use std::fmt;\n"),
    ]));
    assert_eq!(tree.circles(), Vec::<String>::new());
}
