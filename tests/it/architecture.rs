//! The import rules of the architecture, checked against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The page with the table of allowed imports.
const PAGE: &str = include_str!("../../src/lib.rs");
/// Modules above the layers, which may import all of them.
const ABOVE: [&str; 2] = ["main", "lib"];

/// Allowed imports of each module besides itself, from the table in `lib.rs`. `None`: everything.
fn may_import() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| {
        row.trim_end_matches(" |")
            .split(" | ")
            .map(|cell| cell.trim_matches(['[', ']', '`']).to_owned())
            .collect::<Vec<_>>()
    });
    let layers = cells.skip_while(|cells| cells[0] != "module").skip(1).map(|cells| {
        let [layer, _, allowed] = cells.as_slice() else {
            panic!("a row of the table of imports has three cells: {cells:?}")
        };
        let allowed = match allowed.as_str() {
            "all" => None,
            "-" => Some(BTreeSet::new()),
            names => Some(names.split(", ").map(str::to_owned).collect()),
        };
        (layer.clone(), allowed)
    });
    layers.chain(ABOVE.map(|layer| (layer.to_owned(), None))).collect()
}

/// Maximum length of a file, without its tests.
const MOST_LINES: usize = 800;

/// A source file and its layer.
struct Source {
    path: PathBuf,
    layer: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
        let layer = inside.split(['/', '.']).next().unwrap_or_default().to_owned();
        Self { path: path.into(), layer, text: text.to_owned() }
    }

    /// The lines of code, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(idx, line)| (idx + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn complaint(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files_below(&root.join("src"));
    let rust = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    rust.map(|path| {
        Source::new(
            &path.strip_prefix(root).unwrap().to_string_lossy(),
            &fs::read_to_string(path).unwrap(),
        )
    })
    .collect()
}

/// The modules that a file names with `crate::`, each with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code: Vec<(usize, &str)> = source.code().collect();
    let mut found = Vec::new();
    for (at, (number, line)) in code.iter().enumerate() {
        for (start, _) in line.match_indices("crate::") {
            let rest = &line[start + "crate::".len()..];
            if rest.starts_with('{') {
                let whole: String = std::iter::once(rest)
                    .chain(code[at + 1..].iter().map(|(_, line)| *line))
                    .collect();
                found.extend(heads_of_group(&whole).into_iter().map(|head| (*number, head)));
            } else {
                found.push((*number, word(rest)));
            }
        }
    }
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// The first names inside the outermost braces of `{a::b, c::{d, e}}`: `a` and `c`.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut heads) = (0_usize, false, Vec::new());
    for (idx, c) in group.char_indices() {
        match c {
            '{' => {
                depth += 1;
                at_head = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ',' => at_head = depth == 1,
            c if at_head && !c.is_whitespace() => {
                heads.push(word(&group[idx..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// Whether `line` uses the crate `name`: as a path, in an import, or a crate of its family
/// (`burn_wgpu`).
fn uses_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(start, _)| {
        let begins = !line[..start]
            .ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '"' | '.'));
        let rest = &line[start + name.len()..];
        let member = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let family = rest.is_empty() || rest.starts_with(['_', ':', ';']);
        begins
            && family
            && (member.starts_with("::")
                || line.trim_start().starts_with("use ")
                || line.trim_start().starts_with("pub use "))
    })
}

fn forbidden_imports(source: &Source) -> Vec<String> {
    let table = may_import();
    let Some(allowed) = table.get(&source.layer) else {
        return vec![
            source.complaint(
                1,
                &format!("the layer {} is not in the table of imports", source.layer),
            ),
        ];
    };
    let Some(allowed) = allowed else {
        return Vec::new();
    };
    let is_forbidden = |name: &str| name != source.layer && !allowed.contains(name);
    imports(source)
        .into_iter()
        .filter(|(_, name)| is_forbidden(name))
        .map(|(line, name)| {
            source.complaint(line, &format!("{} must not import {name}", source.layer))
        })
        .collect()
}

fn forbidden_crates(source: &Source) -> Vec<String> {
    let homes = [("ratatui", "tui"), ("burn", "engine")];
    let away = homes.iter().filter(|(_, home)| source.layer != *home);
    away.flat_map(|(name, home)| {
        let lines = source.code().filter(|(_, line)| uses_crate(line, name));
        lines.map(move |(line, _)| source.complaint(line, &format!("{name} belongs into {home}")))
    })
    .collect()
}

/// The kernels work on slices: they know neither tensors nor the operations that call them.
fn tensors_in_kernels(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/engine/kernels") {
        return Vec::new();
    }
    let knows = |line: &str| uses_crate(line, "burn") || line.contains("crate::engine::ops");
    source
        .code()
        .filter(|(_, line)| knows(line))
        .map(|(line, _)| source.complaint(line, "kernels know no tensors"))
        .collect()
}

fn forbidden_printing(source: &Source) -> Vec<String> {
    if ["main", "report", "commands"].contains(&source.layer.as_str()) {
        return Vec::new();
    }
    // Output of tests goes to the person who runs them, not to a screen.
    if source.path.ends_with("tests.rs") {
        return Vec::new();
    }
    let prints = |line: &str| {
        ["println!", "print!", "eprintln!", "eprint!"].iter().any(|name| line.contains(name))
    };
    source
        .code()
        .filter(|(_, line)| prints(line))
        .map(|(line, _)| source.complaint(line, "only main, report and commands print"))
        .collect()
}

fn too_long(source: &Source) -> Option<String> {
    let is_test = source.path.ends_with("tests.rs")
        || source.path.components().any(|part| part.as_os_str() == "tests");
    let lines =
        source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count();
    (!is_test && lines > MOST_LINES)
        .then(|| source.complaint(lines, &format!("more than {MOST_LINES} lines")))
}

fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn layers_import_only_what_lies_below_them() {
    check(forbidden_imports);
}

#[test]
fn burn_stays_in_the_engine_and_ratatui_in_the_tui() {
    check(forbidden_crates);
}

#[test]
fn kernels_know_no_tensors() {
    check(tensors_in_kernels);
}

#[test]
fn only_main_report_and_commands_print() {
    check(forbidden_printing);
}

#[test]
fn no_file_is_too_long() {
    check(|source| too_long(source).into_iter().collect());
}

#[test]
fn every_integration_test_is_part_of_the_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(folder.join("main.rs")).unwrap();
    let listed: BTreeSet<String> = main
        .lines()
        .filter_map(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "rs");
    let entries: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let modules = entries.iter().filter(|path| is_rust(path) || path.join("mod.rs").exists());
    let present: BTreeSet<String> = modules
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "main")
        .collect();
    assert_eq!(present, listed);
}

#[test]
fn the_rules_see_what_they_forbid() {
    let upwards = Source::new(
        "src/config/a.rs",
        "// crate::engine in a comment\nuse crate::{config::Share, plan::{RunPlan, engine},\n    \
         tui};\n",
    );
    assert_eq!(
        forbidden_imports(&upwards),
        [
            "src/config/a.rs:2: config must not import plan",
            "src/config/a.rs:2: config must not import tui"
        ]
    );
    let inline = Source::new(
        "src/record/a.rs",
        "fn f() -> crate::control::Feed {}\npub use crate::plan::RunPlan;\n",
    );
    assert_eq!(forbidden_imports(&inline), ["src/record/a.rs:1: record must not import control"]);
    let unknown = Source::new("src/helpers.rs", "");
    assert_eq!(
        forbidden_imports(&unknown),
        ["src/helpers.rs:1: the layer helpers is not in the table of imports"]
    );

    let tensors = Source::new(
        "src/data/a.rs",
        "use burn::Tensor;\nlet a = burn_wgpu::init();\nlet sunburn = 1; // burn\nuse \
         crate::burn_rate;\n",
    );
    assert_eq!(
        forbidden_crates(&tensors),
        ["src/data/a.rs:1: burn belongs into engine", "src/data/a.rs:2: burn belongs into engine"]
    );
    let screen = Source::new("src/report/a.rs", "    ratatui::init();\n");
    assert_eq!(forbidden_crates(&screen), ["src/report/a.rs:1: ratatui belongs into tui"]);

    let kernel = "use burn::tensor::Tensor;\nuse crate::engine::ops::head;\nlet burn = 1;\n";
    assert_eq!(
        tensors_in_kernels(&Source::new("src/engine/kernels/a.rs", kernel)),
        [
            "src/engine/kernels/a.rs:1: kernels know no tensors",
            "src/engine/kernels/a.rs:2: kernels know no tensors"
        ]
    );
    assert!(tensors_in_kernels(&Source::new("src/engine/ops/a.rs", kernel)).is_empty());

    let print = "fn f() {\n    println!();\n}\n";
    assert_eq!(
        forbidden_printing(&Source::new("src/tui/a.rs", print)),
        ["src/tui/a.rs:2: only main, report and commands print"]
    );
    assert!(forbidden_printing(&Source::new("src/commands/a.rs", print)).is_empty());

    let long = "\n".repeat(MOST_LINES);
    assert_eq!(too_long(&Source::new("src/record/a.rs", &long)), None);
    assert_eq!(
        too_long(&Source::new(
            "src/record/a.rs",
            &format!("{long}#[cfg(test)]\nmod tests {{\n\n\n}}\n")
        )),
        None
    );
    assert_eq!(
        too_long(&Source::new("src/record/a.rs", &format!("{long}\n"))),
        Some("src/record/a.rs:801: more than 800 lines".into())
    );
}
