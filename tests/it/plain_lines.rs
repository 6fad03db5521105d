//! The plain lines of a run.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use patchtui::record::{
    ControlState, History, Outcome, Record, RunDirectory, RunEnd, RunEvent, RunState, RunSummary,
    Sample, Trouble, decode,
};
use patchtui::report::{Json, Output, Plain, runs_table, status_text};

use crate::fake_run::{end, header, record, step, whole_run};

/// A terminal whose content can be read afterwards, and that hangs up after `lines` lines.
#[derive(Clone)]
struct Paper {
    text: Arc<Mutex<String>>,
    lines: usize,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.text.lock().unwrap();
        if text.lines().count() >= self.lines {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        text.push_str(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn new(lines: usize) -> Self {
        Self { text: Arc::default(), lines }
    }

    fn output(&self) -> Output {
        Output::new(Box::new(self.clone()))
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

fn records(events: Vec<RunEvent>) -> Vec<Record> {
    events.into_iter().zip(1..).map(|(event, seq)| record(seq, event)).collect()
}

fn lines_of(events: Vec<RunEvent>) -> String {
    let paper = Paper::new(usize::MAX);
    let mut plain = Plain::new(paper.output());
    for record in records(events) {
        plain.show(&record);
    }
    paper.text()
}

#[test]
fn a_whole_run_in_lines() {
    insta::assert_snapshot!(lines_of(whole_run(Path::new("/runs/books"))));
}

#[test]
fn a_sample_is_one_harmless_line() {
    let text = " sat\non the \u{1b}]0;title\u{7}\u{1b}[31mmat\u{9b}2J".to_owned();
    let sample = RunEvent::Sampled(Sample {
        step: 4,
        stage: 0,
        tokens: 4096,
        prompt: "The \r\ncat".into(),
        text,
    });
    let text = lines_of(vec![sample]);
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "a control character reached the terminal"
    );
}

#[test]
fn a_run_that_failed_says_what_to_type() {
    let error = Some(Trouble {
        message: "the loss is NaN at step 2".into(),
        hint: Some("lower optimizer.learning_rate".into()),
    });
    let failed =
        RunEvent::RunFinished(RunEnd { error, token_loss: None, ..end(Outcome::Failed, 2) });
    insta::assert_snapshot!(lines_of(vec![
        header(Path::new("/my runs/books"), Some(1)),
        step(2),
        failed
    ]));
}

#[test]
fn a_terminal_that_hung_up_changes_nothing() {
    let paper = Paper::new(3);
    let mut plain = Plain::new(paper.output());
    for record in records(whole_run(Path::new("/runs/books"))) {
        plain.show(&record);
    }
    assert_eq!(paper.text().lines().count(), 3);
}

#[test]
fn scripts_get_every_record_as_a_line() {
    let paper = Paper::new(usize::MAX);
    let mut json = Json::new(paper.output());
    let said = records(whole_run(Path::new("/runs/books")));
    for record in &said {
        json.show(record);
    }
    let heard: Vec<_> = paper
        .text()
        .lines()
        .map(|line| decode(patchtui::record::LineFile::Events, line.as_bytes()).unwrap())
        .collect();
    assert_eq!(heard, said);
}

fn summary(name: &str, state: RunState, steps: Option<u64>) -> RunSummary {
    RunSummary {
        name: name.into(),
        directory: RunDirectory::new(format!("/runs/{name}")),
        state,
        step: 4,
        steps,
        stage: None,
        token_loss: steps.map(|_| 4.5),
        standard_error: None,
        bits_per_byte: None,
        on_whole_validation_text: false,
        bytes: 3_600_000,
        changed_at: Some("2026-03-01T10:00:00Z".into()),
    }
}

#[test]
fn runs_are_a_table() {
    let runs = [
        summary("books", RunState::Alive, Some(6)),
        summary("b\u{fc}cher-2", RunState::Crashed, Some(600)),
        summary("new", RunState::New, None),
    ];
    insta::assert_snapshot!(runs_table(&runs, "2026-03-01T12:10:00Z".parse().unwrap()));
}

#[test]
fn a_run_is_a_few_lines() {
    let mut history = History::default();
    let said = records(whole_run(Path::new("/runs/books")));
    said.iter().take(20).for_each(|record| history.apply(record));
    history.control = ControlState::Running;
    insta::assert_snapshot!(status_text(
        &summary("books", RunState::Alive, Some(6)),
        &history,
        None
    ));
}
