//! The small files of a run: its five files of lines, `engine.json` and `plan.json`.
//!
//! A record reads back as it was written, a repair of torn lines changes nothing that is read, and
//! nothing in the files reaches a terminal unsanitised.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use patchtui::control::{FrameError, ServerMessage, frame};
use patchtui::record::{
    EngineInfo, History, LineFile, PlanFile, Record, RunDirectory, RunLog, RunSummary, decode,
    encode, encode_event, last_record, log_text, read_records,
};
use patchtui::report::{Json, Output, Plain, runs_table, status_text};
use patchtui::tui::view_text;

use super::{assert_harmless, parts, scratch};

pub(super) fn read(bytes: &[u8]) {
    let [events, metrics, evals, activations, samples, engine, plan] = parts(bytes);
    let run = RunDirectory::create(scratch("run_files").join("books")).unwrap();
    for (file, content) in
        LineFile::ALL.into_iter().zip([events, metrics, evals, activations, samples])
    {
        fs::write(file.path(&run), content).unwrap();
        content.split(|byte| *byte == b'\n').for_each(|line| check_line(file, line));
    }
    fs::write(run.engine_json(), engine).unwrap();
    fs::write(run.plan(), plan).unwrap();
    check_run(&run);
    if let Some(info) = EngineInfo::read(&run) {
        let _ = (info.other_machine(), info.is_of_ended_process());
    }
    if let Ok(file) = serde_json::from_slice::<PlanFile>(plan) {
        let again: PlanFile = serde_json::from_slice(&serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(again, file);
        let _ = (file.plan.cost_after(u64::MAX), file.plan.stage_idx_after(u64::MAX));
    }
}

fn check_line(file: LineFile, line: &[u8]) {
    let Ok(record) = decode(file, line) else { return };
    let expected = format!("{record:?}");
    // A type that only a newer program knows has no file here.
    let own_file = LineFile::of(&record.event).unwrap_or(LineFile::Events);
    let again = decode(own_file, encode(&record).unwrap().as_bytes()).unwrap();
    assert_eq!(format!("{again:?}"), expected);
    let again = decode(LineFile::Events, encode_event(&record).unwrap().as_bytes()).unwrap();
    assert_eq!(format!("{again:?}"), expected);
}

fn check_run(run: &RunDirectory) {
    let mut records = Vec::new();
    read_records(run, |record| records.push(record)).unwrap();
    let (history, report) = History::read(run).unwrap();
    report
        .complaint()
        .into_iter()
        .for_each(|complaint| drop(patchtui::text::sanitize_line(&complaint)));
    let summary = RunSummary::read(run).unwrap();
    let _ = LineFile::ALL.map(|file| last_record(file, run));
    for text in [
        runs_table(std::slice::from_ref(&summary), Timestamp::UNIX_EPOCH),
        status_text(&summary, &history, None),
    ] {
        assert_harmless(&text);
    }
    assert_harmless(&view_text(&history, 100, 34));
    check_reports(&records);
    check_snapshot(&history);
    RunLog::open(run).unwrap();
    let (repaired, _) = History::read(run).unwrap();
    assert_eq!(format!("{repaired:?}"), format!("{history:?}"));
}

/// What an engine would send of `history` is what a client reads.
fn check_snapshot(history: &History) {
    let message = ServerMessage::Snapshot(Box::new(history.thinned(16)));
    match frame(&message) {
        Ok(bytes) => assert_eq!(
            format!("{:?}", serde_json::from_slice::<ServerMessage>(&bytes[4..]).unwrap()),
            format!("{message:?}")
        ),
        Err(error) => assert!(matches!(error, FrameError::TooLarge { .. })),
    }
    let _ = (history.eta(), history.tokens_per_second());
}

/// Prints `records` as lines for people and for scripts.
pub(super) fn check_reports(records: &[Record]) {
    let printed = Printed::default();
    let (mut plain, mut json) = (Plain::new(printed.output()), Json::new(printed.output()));
    for record in records {
        plain.show(record);
        json.show(record);
        let _ = log_text(&record.event);
    }
    let bytes = printed.0.lock().unwrap();
    assert_harmless(std::str::from_utf8(&bytes).unwrap());
}

/// Collects what is printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn output(&self) -> Output {
        Output::new(Box::new(self.clone()))
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
