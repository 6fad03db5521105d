//! The grammar as data, and its parser.
//!
//! The comment in the grammar file explains the notation. The file is embedded, so an error in it
//! is a bug in patchtui.

use std::collections::HashMap;
use std::sync::LazyLock;

use thiserror::Error;

const BUILT_IN: &str = include_str!("../../../assets/grammar.txt");

/// A set of stories with a probability for each.
#[derive(Debug)]
pub struct Grammar {
    pub(super) tables: Vec<Table>,
    pub(super) num_variables: usize,
    pub(super) story: Node,
    fingerprint: String,
}

/// Interchangeable words, all equally likely.
#[derive(Debug)]
pub(super) struct Table {
    pub name: String,
    pub columns: Vec<String>,
    /// One row per entry, one word per column.
    pub rows: Vec<Vec<String>>,
}

/// A part of a story.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Fixed text.
    Word(String),
    /// A word of a table, remembered if there is a variable.
    Draw { table: usize, column: usize, variable: Option<usize>, style: WordStyle },
    /// Another form of the entry that a variable remembers.
    Recall { table: usize, column: usize, variable: usize, style: WordStyle },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A weighted choice.
    Choice(Vec<(u64, Node)>),
}

/// Formatting of a word: space before it, capital letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WordStyle {
    pub space_before: bool,
    pub capital: bool,
}

/// A syntax error in a grammar file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct GrammarError {
    /// Line, counted from 1.
    pub line: usize,
    /// Description of the error.
    pub reason: String,
}

impl Grammar {
    /// The built-in grammar.
    ///
    /// # Panics
    /// If the file in `assets` is broken, which a test rules out.
    pub fn built_in() -> &'static Self {
        static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| match Grammar::parse(BUILT_IN) {
            Ok(grammar) => grammar,
            Err(error) => unreachable!("assets/grammar.txt, {error}"),
        });
        &GRAMMAR
    }

    /// Reads a grammar; its last rule is the story.
    pub fn parse(text: &str) -> Result<Self, GrammarError> {
        let mut parser = GrammarParser::default();
        for (index, line) in text.lines().enumerate() {
            parser
                .read_line(line.trim())
                .map_err(|reason| GrammarError { line: index + 1, reason })?;
        }
        let complaint = |reason: String| GrammarError { line: text.lines().count(), reason };
        parser.close_block().map_err(complaint)?;
        let story = parser.rules.pop().ok_or_else(|| complaint("there is no rule".into()))?.1;
        let fingerprint = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(Self {
            tables: parser.tables,
            num_variables: parser.variables.len(),
            story,
            fingerprint,
        })
    }

    /// A hash of everything that determines the stories, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl WordStyle {
    /// Formats `word` as it appears in the text.
    pub(super) fn set(self, word: &str) -> String {
        let mut text = String::from(if self.space_before { " " } else { "" });
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if self.capital => {
                text.extend(first.to_uppercase());
                text.push_str(letters.as_str());
            }
            _ => text.push_str(word),
        }
        text
    }
}

/// State of the parser.
#[derive(Default)]
struct GrammarParser {
    tables: Vec<Table>,
    rules: Vec<(String, Node)>,
    /// The table whose entry each variable remembers, by name.
    variables: HashMap<String, (usize, usize, usize)>,
    block: Block,
}

#[derive(Default)]
enum Block {
    #[default]
    None,
    Words(Table),
    Rule(String, Vec<(u64, Node)>),
}

impl GrammarParser {
    fn read_line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(header) = line.strip_prefix("words ") {
            self.close_block()?;
            let (name, columns) = header.split_once('=').unwrap_or((header, "word"));
            let columns = columns.split_whitespace().map(str::to_owned).collect();
            self.block =
                Block::Words(Table { name: name.trim().to_owned(), columns, rows: Vec::new() });
            return Ok(());
        }
        if let Some(name) = line.strip_prefix("rule ") {
            self.close_block()?;
            self.block = Block::Rule(name.trim().to_owned(), Vec::new());
            return Ok(());
        }
        match std::mem::take(&mut self.block) {
            Block::None => return Err("text outside a block".into()),
            Block::Words(mut table) => {
                for entry in line.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
                    let row: Vec<String> = entry.split_whitespace().map(str::to_owned).collect();
                    if row.len() != table.columns.len() {
                        return Err(format!(
                            "{entry:?} has {} words, not {}",
                            row.len(),
                            table.columns.len()
                        ));
                    }
                    table.rows.push(row);
                }
                self.block = Block::Words(table);
            }
            Block::Rule(name, mut alternatives) => {
                let symbols: Vec<&str> = line.split_whitespace().collect();
                let mut symbols = symbols.as_slice();
                alternatives.push(self.alternative(&mut symbols)?);
                if let Some(rest) = symbols.first() {
                    return Err(format!("{rest:?} is outside brackets"));
                }
                self.block = Block::Rule(name, alternatives);
            }
        }
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), String> {
        match std::mem::take(&mut self.block) {
            Block::None => {}
            Block::Words(table) if table.rows.is_empty() => {
                return Err(format!("table {:?} is empty", table.name));
            }
            Block::Words(table) => self.tables.push(table),
            Block::Rule(name, alternatives) if alternatives.is_empty() => {
                return Err(format!("rule {name:?} is empty"));
            }
            Block::Rule(name, alternatives) => self.rules.push((name, Node::Choice(alternatives))),
        }
        Ok(())
    }

    /// Reads up to a bar, a closing bracket or the end: an optional weight, then symbols.
    fn alternative(&mut self, symbols: &mut &[&str]) -> Result<(u64, Node), String> {
        let mut weight = 1;
        if let Some((first, rest)) = symbols.split_first()
            && let Some(number) = first.strip_suffix(':').and_then(|digits| digits.parse().ok())
        {
            weight = number;
            *symbols = rest;
        }
        let mut nodes = Vec::new();
        while let Some((symbol, rest)) = symbols.split_first() {
            match *symbol {
                "|" | ")" => break,
                "(" => {
                    *symbols = rest;
                    nodes.push(self.choice(symbols)?);
                }
                symbol => {
                    *symbols = rest;
                    nodes.push(self.symbol(symbol)?);
                }
            }
        }
        Ok((weight, Node::Sequence(nodes)))
    }

    /// Reads the alternatives after an opening bracket, and the closing one.
    fn choice(&mut self, symbols: &mut &[&str]) -> Result<Node, String> {
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.alternative(symbols)?);
            match symbols.split_first() {
                Some((&"|", rest)) => *symbols = rest,
                Some((_, rest)) => {
                    *symbols = rest;
                    return Ok(Node::Choice(alternatives));
                }
                None => return Err("a bracket is not closed".into()),
            }
        }
    }

    fn symbol(&mut self, symbol: &str) -> Result<Node, String> {
        let joined = symbol.strip_prefix('_');
        let bare = joined.unwrap_or(symbol);
        let capital = bare.starts_with('^');
        let bare = bare.trim_start_matches('^');
        let style = WordStyle {
            space_before: joined.is_none() && !bare.starts_with([',', '.', '!', '?', ';']),
            capital,
        };
        if let Some(variable) = bare.strip_prefix('$') {
            return self.recall(variable, style);
        }
        match bare.strip_prefix('<').and_then(|bare| bare.strip_suffix('>')) {
            Some(reference) => self.reference(reference, style),
            None => Ok(Node::Word(style.set(bare))),
        }
    }

    fn recall(&self, reference: &str, style: WordStyle) -> Result<Node, String> {
        let (name, column) = split_column(reference);
        let &(variable, table, drawn) = self
            .variables
            .get(name)
            .ok_or_else(|| format!("nothing was remembered as {name:?}"))?;
        let column = column.map_or(Ok(drawn), |column| self.column(table, column))?;
        Ok(Node::Recall { table, column, variable, style })
    }

    /// Reads the text between `<` and `>`: a rule, or `variable=table.column` with both sides
    /// optional.
    fn reference(&mut self, reference: &str, style: WordStyle) -> Result<Node, String> {
        if let Some((_, rule)) = self.rules.iter().find(|(name, _)| name == reference) {
            return Ok(rule.clone());
        }
        let (variable, drawn) = reference
            .split_once('=')
            .map_or((None, reference), |(variable, drawn)| (Some(variable), drawn));
        let (name, column) = split_column(drawn);
        let table = self
            .tables
            .iter()
            .position(|table| table.name == name)
            .ok_or_else(|| format!("{name:?} is neither a rule nor a table"))?;
        let column = column.map_or(Ok(0), |column| self.column(table, column))?;
        let variable = variable.map(|name| self.remember(name, table, column)).transpose()?;
        Ok(Node::Draw { table, column, variable, style })
    }

    fn remember(&mut self, name: &str, table: usize, column: usize) -> Result<usize, String> {
        let next = self.variables.len();
        let (variable, known_table, _) =
            *self.variables.entry(name.to_owned()).or_insert((next, table, column));
        if known_table == table {
            Ok(variable)
        } else {
            Err(format!("{name:?} remembers entries of two tables"))
        }
    }

    fn column(&self, table: usize, column: &str) -> Result<usize, String> {
        let table = &self.tables[table];
        table
            .columns
            .iter()
            .position(|name| name == column)
            .ok_or_else(|| format!("table {:?} has no column {column:?}", table.name))
    }
}

fn split_column(reference: &str) -> (&str, Option<&str>) {
    reference.split_once('.').map_or((reference, None), |(name, column)| (name, Some(column)))
}
