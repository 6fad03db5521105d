//! Every command named in a hint, an error, a help text or the README can be typed: this build has
//! it, with these arguments.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use patchtui::cli::Cli;

/// Words that follow the program's name in a sentence.
const PROSE: [&str; 20] = [
    "did",
    "was",
    "is",
    "in",
    "on",
    "of",
    "and",
    "that",
    "cannot",
    "needs",
    "has",
    "does",
    "with",
    "for",
    "to",
    "refuses",
    "computes",
    "writes",
    "reads",
    "executable",
];

/// The text after `patchtui ` in `text`, up to where a command must end, each with its line.
fn named_commands(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (start, name) in line.match_indices("patchtui ") {
            // Part of a longer word or path.
            if line[..start]
                .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '-'))
            {
                continue;
            }
            let rest = &line[start + name.len()..];
            let end = rest
                .find(['"', '`', ';', ',', ')', '(', '#', '\\', '|', '<', ':'])
                .unwrap_or(rest.len());
            found.push((number + 1, rest[..end].trim_end().trim_end_matches('.').to_owned()));
        }
    }
    found
}

/// The command with its placeholders replaced by words.
fn typed(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in command.split_whitespace() {
        let is_placeholder =
            word.contains('{') || word.chars().all(|c| c.is_ascii_uppercase() || c == '-');
        words.push(if is_placeholder { "demo".into() } else { word.to_owned() });
    }
    words
}

/// Whether a prefix of `words` is a complete command of this build; a sentence may continue after
/// it, but not with a flag.
fn can_be_typed(words: &[String]) -> bool {
    (1..=words.len()).any(|length| {
        let arguments =
            std::iter::once("patchtui".to_owned()).chain(words[..length].iter().cloned());
        let is_command = match Cli::try_parse_from(arguments) {
            Ok(cli) => cli.command.is_some() || words[0].starts_with("--"),
            Err(error) => error.kind() == ErrorKind::DisplayHelp,
        };
        is_command && !words[length..].iter().any(|word| word.starts_with("--"))
    })
}

fn problems(path: &Path) -> Vec<String> {
    // The comments of `cli.rs` are the help texts.
    let is_rust =
        path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("cli.rs");
    let text = fs::read_to_string(path).unwrap();
    // Tests at the end of a file mention commands that do not exist.
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = text
        .lines()
        .map(|line| {
            if is_rust && line.trim_start().starts_with("//") { "\n" } else { line }.to_owned()
                + "\n"
        })
        .collect();
    // Text that begins with a placeholder is not a command: a version, a folder.
    let commands = named_commands(&code)
        .into_iter()
        .filter(|(_, command)| !command.starts_with('{'))
        .map(|(line, command)| (line, typed(&command)));
    let named = commands.filter(|(_, words)| {
        words.first().is_some_and(|word| {
            (word.starts_with("--") || word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                && !PROSE.contains(&word.as_str())
        })
    });
    named
        .filter(|(_, words)| !can_be_typed(words))
        .map(|(line, words)| format!("{}:{line}: patchtui {}", path.display(), words.join(" ")))
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path
            .extension()
            .is_some_and(|ending| matches!(ending.to_str(), Some("rs" | "toml")))
        {
            found.push(path);
        }
    }
}

#[test]
fn every_command_that_a_text_names_can_be_typed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    sources(&root.join("src"), &mut files);
    sources(&root.join("configs"), &mut files);
    let problems: Vec<String> = files.iter().flat_map(|path| problems(path)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let named: usize =
        files.iter().map(|path| named_commands(&fs::read_to_string(path).unwrap()).len()).sum();
    assert!(named > 40, "only {named} commands were found: the test looks in the wrong place");
}

#[test]
fn the_rule_sees_what_cannot_be_typed() {
    let words = |command: &str| typed(command);
    for command in [
        "attach {name}",
        "ctl RUN status",
        "run CONFIG --name {name} --resume",
        "plan demo to see it",
        "resume",
        "--help",
    ] {
        assert!(can_be_typed(&words(command)), "{command}");
    }
    for command in ["fly", "ctl RUN", "attach --quickly", "run"] {
        assert!(!can_be_typed(&words(command)), "{command}");
    }
    assert_eq!(
        named_commands("hint: \"go with: patchtui attach {name}; or not\""),
        [(1, "attach {name}".to_owned())]
    );
}
