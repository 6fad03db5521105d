use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::measure::{is_encoded_by_words, words};
use super::syntax::Node;
use super::*;
use crate::data::Tokenizer;

/// A place in the story where one word comes from, with everything that can stand there.
struct Leaf {
    texts: BTreeSet<String>,
    /// Leaves that can come next.
    next: Vec<usize>,
    is_last: bool,
}

/// The story as an automaton: a derivation is a path through its leaves.
#[derive(Default)]
struct Automaton {
    leaves: Vec<Leaf>,
    first: Vec<usize>,
}

/// The leaves with which a part of the story can begin and end, and in how many ways it can be
/// empty.
#[derive(Clone, Default)]
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
    ways_to_be_empty: usize,
}

impl Automaton {
    fn of(grammar: &Grammar) -> Self {
        let mut automaton = Self::default();
        let ends = automaton.add(grammar, &grammar.story);
        assert_eq!(ends.ways_to_be_empty, 0, "no story is empty");
        ends.last.iter().for_each(|leaf| automaton.leaves[*leaf].is_last = true);
        automaton.first = ends.first;
        automaton
    }

    fn add(&mut self, grammar: &Grammar, node: &Node) -> Ends {
        match node {
            Node::Word(text) => self.leaf([text.clone()].into()),
            Node::Draw { table, column, style, .. } => {
                let rows = &grammar.tables[*table].rows;
                let texts: BTreeSet<String> =
                    rows.iter().map(|row| style.set(&row[*column])).collect();
                assert_eq!(
                    texts.len(),
                    rows.len(),
                    "table {:?} has an entry twice",
                    grammar.tables[*table].name
                );
                self.leaf(texts)
            }
            Node::Recall { table, column, style, .. } => self.leaf(
                grammar.tables[*table].rows.iter().map(|row| style.set(&row[*column])).collect(),
            ),
            Node::Sequence(parts) => {
                let mut whole = Ends { ways_to_be_empty: 1, ..Ends::default() };
                for part in parts {
                    let part = self.add(grammar, part);
                    whole.last.iter().for_each(|leaf| self.leaves[*leaf].next.extend(&part.first));
                    if whole.ways_to_be_empty > 0 {
                        whole.first.extend(&part.first);
                    }
                    if part.ways_to_be_empty == 0 {
                        whole.last.clear();
                    }
                    whole.last.extend(&part.last);
                    whole.ways_to_be_empty *= part.ways_to_be_empty;
                }
                whole
            }
            Node::Choice(alternatives) => {
                let mut whole = Ends::default();
                for (weight, part) in alternatives {
                    assert!(*weight > 0, "an alternative with weight 0 is never told");
                    let part = self.add(grammar, part);
                    whole.first.extend(part.first);
                    whole.last.extend(part.last);
                    whole.ways_to_be_empty += part.ways_to_be_empty;
                }
                assert!(whole.ways_to_be_empty < 2, "two alternatives are empty");
                whole
            }
        }
    }

    fn leaf(&mut self, texts: BTreeSet<String>) -> Ends {
        self.leaves.push(Leaf { texts, next: Vec::new(), is_last: false });
        let leaf = self.leaves.len() - 1;
        Ends { first: vec![leaf], last: vec![leaf], ways_to_be_empty: 0 }
    }

    /// Two different paths with a text in common, if there are any.
    ///
    /// Walks all pairs of paths that can spell the same words, from the start forwards and from the
    /// end backwards: a pair of different leaves that is reached from both sides lies on two
    /// such paths. Without one, every text has one derivation: the leaves of a path decide all
    /// alternatives (empty ones too, since there is only one way to be empty), and the word at a
    /// leaf decides the entry of its table. What words are remembered is ignored here, which can
    /// only find too many pairs.
    fn ambiguity(&self) -> Option<(&BTreeSet<String>, &BTreeSet<String>)> {
        let num_leaves = self.leaves.len();
        let mut previous = vec![Vec::new(); num_leaves];
        for (leaf, next) in self
            .leaves
            .iter()
            .enumerate()
            .flat_map(|(leaf, it)| it.next.iter().map(move |next| (leaf, *next)))
        {
            previous[next].push(leaf);
        }
        let ends: Vec<usize> = (0..num_leaves).filter(|leaf| self.leaves[*leaf].is_last).collect();
        let forwards = self.reach(&self.first, |leaf| &self.leaves[leaf].next);
        let backwards = self.reach(&ends, |leaf| &previous[leaf]);
        let (a, b) = *forwards.intersection(&backwards).find(|(a, b)| a != b)?;
        Some((&self.leaves[a].texts, &self.leaves[b].texts))
    }

    fn reach<'a>(
        &'a self,
        starts: &[usize],
        steps: impl Fn(usize) -> &'a [usize] + 'a,
    ) -> HashSet<(usize, usize)> {
        let fits =
            |(a, b): &(usize, usize)| !self.leaves[*a].texts.is_disjoint(&self.leaves[*b].texts);
        let pairs = |x: &[usize], y: &[usize]| -> Vec<(usize, usize)> {
            x.iter().flat_map(|a| y.iter().map(|b| (*a, *b))).filter(fits).collect()
        };
        let mut queue = VecDeque::from(pairs(starts, starts));
        let mut seen: HashSet<(usize, usize)> = queue.iter().copied().collect();
        while let Some((a, b)) = queue.pop_front() {
            queue.extend(pairs(steps(a), steps(b)).into_iter().filter(|pair| seen.insert(*pair)));
        }
        seen
    }
}

#[test]
fn every_story_has_one_derivation() {
    let automaton = Automaton::of(Grammar::built_in());
    let found = automaton.ambiguity();
    assert!(found.is_none(), "two derivations meet at {found:?}");
}

#[test]
fn the_search_for_two_derivations_finds_them() {
    let ambiguous =
        |text: &str| Automaton::of(&Grammar::parse(text).unwrap()).ambiguity().is_some();
    assert!(ambiguous("rule s\n a b\n a ( b | c )"));
    assert!(ambiguous("rule s\n a ( b | ) b ( | b ) c"), "abbc is told in two ways");
    assert!(ambiguous("words t\n a; b\nrule s\n <t> c\n b c"));
    assert!(!ambiguous("rule s\n a b\n a ( c | d )"));
    assert!(!ambiguous("words t\n a; b\nrule s\n <t> c\n <t> d\n c ( | a )"));
}

#[test]
fn a_name_is_known_before_it_is_used() {
    /// The variables that are remembered after `node` whatever was chosen.
    fn known(node: &Node, mut before: BTreeSet<usize>) -> BTreeSet<usize> {
        match node {
            Node::Word(_) | Node::Draw { variable: None, .. } => before,
            Node::Draw { variable: Some(variable), .. } => {
                before.insert(*variable);
                before
            }
            Node::Recall { variable, .. } => {
                assert!(
                    before.contains(variable),
                    "variable {variable} is used before it is known"
                );
                before
            }
            Node::Sequence(parts) => parts.iter().fold(before, |before, part| known(part, before)),
            Node::Choice(parts) => parts
                .iter()
                .map(|(_, part)| known(part, before.clone()))
                .reduce(|a, b| a.intersection(&b).copied().collect())
                .unwrap_or_default(),
        }
    }
    let grammar = Grammar::built_in();
    assert_eq!(known(&grammar.story, BTreeSet::new()).len(), grammar.num_variables);
}

#[test]
fn the_entropy_of_a_small_grammar_is_that_of_its_enumerated_texts() {
    // Six texts: a x y (1/4 each for x in {p, q}), b with or without !, each remembered word
    // repeated.
    let grammar = Grammar::parse("words t\n p; qq\nrule s\n _a <x=t> $x\n _b ( 3: | ! )").unwrap();
    let chances = [("a p p", 0.25), ("a qq qq", 0.25), ("b", 0.375), ("b!", 0.125)];
    let nats: f64 = chances.iter().map(|(_, chance)| -chance * f64::ln(*chance)).sum();
    let tokens: f64 = chances.iter().map(|(text, chance)| chance * text.len() as f64).sum();
    let bytes = Tokenizer::load("bytes").unwrap();
    let measure = grammar.measure(&bytes).unwrap();
    assert!(
        (measure.nats - nats).abs() < 1e-12 && (measure.tokens - tokens).abs() < 1e-12,
        "{measure:?}"
    );
    let rate = grammar.entropy_rate(&bytes, 2).unwrap().unwrap();
    assert!((rate - nats / (tokens + 2.0)).abs() < 1e-12);
    for index in 0..200 {
        let story = grammar.story(1, index);
        let (_, chance) = chances.iter().find(|(text, _)| *text == story.text).unwrap();
        assert!((story.nats + chance.ln()).abs() < 1e-12, "{story:?}");
    }
}

#[test]
fn sampled_stories_agree_with_the_exact_rate() {
    const STORIES: u64 = 20_000;
    let grammar = Grammar::built_in();
    for choice in ["demo", "bytes"] {
        let tokenizer = Tokenizer::load(choice).unwrap();
        let rate = grammar.entropy_rate(&tokenizer, 1).unwrap().unwrap();
        let mut lengths: HashMap<String, usize> = HashMap::new();
        let mut length = |word: &str| {
            *lengths.entry(word.to_owned()).or_insert_with(|| tokenizer.encode(word).unwrap().len())
                as f64
        };
        let samples: Vec<(f64, f64)> = (0..STORIES)
            .map(|index| grammar.story(7, index))
            .map(|story| (story.nats, 1.0 + words(&story.text).map(&mut length).sum::<f64>()))
            .collect();
        let mean =
            |f: &dyn Fn(&(f64, f64)) -> f64| samples.iter().map(f).sum::<f64>() / STORIES as f64;
        let tokens = mean(&|sample| sample.1);
        let empirical = mean(&|sample| sample.0) / tokens;
        // The spread of a quotient of two means, to first order.
        let variance = mean(&|sample| (sample.0 - empirical * sample.1).powi(2));
        let standard_error = (variance / STORIES as f64).sqrt() / tokens;
        assert!(
            (empirical - rate).abs() < 4.0 * standard_error,
            "{choice}: {empirical} against {rate}, standard error {standard_error}"
        );
        println!("{choice}: {rate:.4} nats per token, {tokens:.1} tokens per story");
    }
}

#[test]
fn stories_are_encoded_word_by_word() {
    let grammar = Grammar::built_in();
    for choice in ["demo", "bytes"] {
        let tokenizer = Tokenizer::load(choice).unwrap();
        for index in 0..2000 {
            let text = grammar.story(3, index).text;
            assert_eq!(words(&text).collect::<String>(), text);
            assert!(is_encoded_by_words(&text, &tokenizer).unwrap(), "{choice}: {text}");
        }
    }
}

#[test]
fn a_story_depends_on_its_seed_and_number_only() {
    let grammar = Grammar::built_in();
    let texts: Vec<String> = grammar.documents(5).take(50).collect();
    assert_eq!(texts[49], grammar.story(5, 49).text);
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), 50);
    assert_ne!(texts[0], grammar.story(6, 0).text);
}

#[test]
fn a_broken_grammar_is_refused_with_its_line() {
    for (text, line, part) in [
        ("rule s\n a ( b", 2, "not closed"),
        ("rule s\n a b )", 2, "outside brackets"),
        ("rule s\n <nothing>", 2, "neither a rule nor a table"),
        ("rule s\n $x", 2, "nothing was remembered"),
        ("words t = one two\n a b; c\nrule s\n <t>", 2, "has 1 words"),
        ("words t\n a\nrule s\n <t.two>", 4, "no column"),
        ("words t\nrule s\n a", 2, "is empty"),
        ("a b", 1, "outside a block"),
        ("# nothing", 1, "no rule"),
    ] {
        let error = Grammar::parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.reason.contains(part), "{text:?}: {error}");
    }
}
