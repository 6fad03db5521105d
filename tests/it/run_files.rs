//! The files of a run: every record is read back, whatever happens to the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use patchtui::disk::{Disk, Operation};
use patchtui::record::{
    Activations, CheckpointFailure, CheckpointInfo, CommandNote, ControlChange, ControlState,
    DiskChange, Evaluation, EventSender, History, LayerActivation, LineFile, MeasuredStep,
    MomentsOutline, Note, Outcome, Progress, Record, RunCommand, RunDirectory, RunEnd, RunEvent,
    RunLock, RunLog, RunState, RunSummary, Sample, StageLedger, StageStart, StepMetrics, Store,
    TaskScores, TrialSteps, Trouble, Warning, decode, encode, encode_event, read_records,
};
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::fake_run::{evaluation, header, patch_size, record, step, whole_loss, whole_run};

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![6 => proptest::num::f64::ANY, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
}

fn any_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..24).prop_map(String::from_iter)
}

fn any_metrics() -> impl Strategy<Value = RunEvent> {
    (any::<u64>(), 0..9_usize, 1..1024_u64, proptest::array::uniform8(any_number()), any::<u64>())
        .prop_map(|(step, stage, k, n, tokens)| {
            RunEvent::StepCompleted(StepMetrics {
                step,
                stage,
                patch_size: patch_size(k),
                epoch: step,
                tokens,
                positions: tokens,
                flops: n[0],
                loss: n[1],
                learning_rate: n[2],
                grad_norm: n[3],
                step_seconds: n[4],
                active_seconds: n[5],
                tokens_per_second: n[6],
                data_wait_seconds: n[7],
            })
        })
}

fn any_measurement() -> impl Strategy<Value = RunEvent> {
    let layer = (any_number(), any_number())
        .prop_map(|(rate, mean_abs)| LayerActivation { rate, mean_abs });
    let layers = proptest::collection::vec(layer, 0..4);
    (any::<u64>(), any_number(), layers, any_text(), 0..5_u8).prop_map(
        |(step, number, layers, text, which)| {
            let (stage, patch_size, tokens) = (1, patch_size(4), step);
            match which {
                0 => RunEvent::Evaluated(Evaluation {
                    step,
                    stage,
                    patch_size,
                    tokens,
                    token_loss: number,
                    perplexity: number,
                    standard_error: (step % 2 == 0).then_some(number),
                    bits_per_byte: (step % 3 == 0).then_some(number),
                    targets: step,
                    all_targets: (step % 5 == 0).then_some(step),
                    whole: (step % 7 == 0).then_some(whole_loss(number)),
                    seconds: number,
                }),
                1 => RunEvent::ActivationsMeasured(Activations {
                    step,
                    stage,
                    patch_size,
                    tokens,
                    threshold: number,
                    layers,
                }),
                2 => RunEvent::Sampled(Sample { step, stage, tokens, prompt: text.clone(), text }),
                3 => RunEvent::TrialStepsTaken(TrialSteps { tokens_per_second: vec![number, 1.0] }),
                _ => RunEvent::StageCompleted(StageLedger {
                    stage,
                    patch_size,
                    step,
                    steps: step,
                    tokens,
                    positions: step,
                    flops: number,
                    active_seconds: number,
                    tokens_per_second: number,
                }),
            }
        },
    )
}

fn any_note() -> impl Strategy<Value = RunEvent> {
    (any::<u64>(), any_number(), any_text(), any::<bool>(), 0..12_u8).prop_map(
        |(step, number, text, flag, which)| {
            let note = CommandNote {
                id: text.clone(),
                command: RunCommand::Checkpoint,
                from: text.clone(),
                step,
                message: text.clone(),
                also: Vec::new(),
                seconds: None,
                bytes: None,
            };
            match which {
                0 => header(Path::new("/runs/books"), flag.then_some(step)),
                1 => RunEvent::Progress(Progress {
                    activity: text,
                    done: step,
                    total: flag.then_some(step),
                }),
                2 => RunEvent::StageStarted(StageStart {
                    stage: 0,
                    patch_size: patch_size(4),
                    step,
                    tokens: step,
                    optimizer_reset: flag,
                }),
                3 => RunEvent::CheckpointSaved(CheckpointInfo {
                    step,
                    path: "checkpoints/x".into(),
                    bytes: step,
                    seconds: number,
                    permanent: flag,
                }),
                4 => RunEvent::CheckpointFailed(CheckpointFailure { step, error: text }),
                5 => RunEvent::ControlChanged(ControlChange { state: ControlState::Pausing, step }),
                6 => RunEvent::CommandAccepted(note),
                7 => RunEvent::CommandDone(note),
                8 => RunEvent::CommandFailed(note),
                9 => RunEvent::Warning(Warning { message: text }),
                10 => RunEvent::Note(Note { message: text }),
                _ => RunEvent::RunFinished(RunEnd {
                    outcome: Outcome::Failed,
                    step,
                    tokens: step,
                    active_seconds: number,
                    token_loss: flag.then_some(number),
                    whole: flag.then_some(whole_loss(number)),
                    error: Some(Trouble { message: text.clone(), hint: flag.then_some(text) }),
                }),
            }
        },
    )
}

proptest! {
    #[test]
    fn every_event_survives_its_line(event in Union::new([any_metrics().boxed(), any_measurement().boxed(), any_note().boxed()]), seq in 0..1_u64 << 62) {
        let record = record(seq, event);
        let line = encode(&record).unwrap();
        let (body, end) = line.split_at(line.len() - 1);
        prop_assert!(end == "\n" && !body.contains('\n'));
        let read = decode(LineFile::of(&record.event).unwrap_or(LineFile::Events), line.as_bytes()).unwrap();
        // NaN is not equal to itself; the debug text shows every field and distinguishes all numbers.
        prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
        let read = decode(LineFile::Events, encode_event(&record).unwrap().as_bytes()).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
        prop_assert!(!line.contains(":null") || line.contains("resumed_from") || line.contains("total") || line.contains("token_loss") || line.contains("hint"));
    }

    #[test]
    fn no_line_makes_the_reader_panic(bytes: Vec<u8>) {
        for file in LineFile::ALL {
            prop_assert!(decode(file, &bytes).is_err());
        }
    }
}

#[test]
fn a_line_of_metrics_has_the_fields_of_the_contract() {
    let line = encode(&record(7, step(3))).unwrap();
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    let contract = "format_version seq at attempt step stage patch_size epoch tokens positions \
                    flops loss learning_rate grad_norm step_seconds active_seconds \
                    tokens_per_second data_wait_seconds";
    assert_eq!(names, contract.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn fields_and_event_types_of_a_newer_program_are_passed_over() {
    let line = encode(&record(7, step(3)))
        .unwrap()
        .replace("{\"format_version\"", "{\"colour\":{\"of\":[1]},\"format_version\"");
    assert_eq!(decode(LineFile::Metrics, line.as_bytes()).unwrap(), record(7, step(3)));
    let unknown = r#"{"format_version":1,"seq":8,"at":"2027-01-01T00:00:00Z","attempt":1,"event":{"type":"rewarded","points":3}}"#;
    assert_eq!(decode(LineFile::Events, unknown.as_bytes()).unwrap().event, RunEvent::Unknown);
    // A line is parsed by its type, whatever file it is in.
    let typed = r#"{"format_version":1,"seq":9,"at":"2027-01-01T00:00:00Z","attempt":1,"type":"gpu_measured","watts":300}"#;
    assert_eq!(decode(LineFile::Metrics, typed.as_bytes()).unwrap().event, RunEvent::Unknown);
    let typed = r#"{"format_version":1,"seq":9,"at":"2027-01-01T00:00:00Z","attempt":1,"type":"warning","message":"hot"}"#;
    assert_eq!(
        decode(LineFile::Metrics, typed.as_bytes()).unwrap().event,
        RunEvent::Warning(Warning { message: "hot".into() })
    );
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    fs::write(run.events(), format!("{unknown}\n")).unwrap();
    let (history, report) = History::read(&run).unwrap();
    assert_eq!((history.last_seq, report.num_bad_lines), (8, 0));
}

#[test]
fn a_header_of_a_newer_or_older_program_still_has_what_a_screen_shows() {
    let header = r#"{"format_version":1,"seq":1,"at":"2027-01-01T00:00:00Z","attempt":1,"event":{"type":"run_started","name":"books","directory":"/runs/books",
        "device":"cpu","threads":2,"resumed_from":null,"decisions":[],"nodes":4,"plan":{"steps":6,"world_size":8,"stages":[
        {"patch_size":4,"first_step":0,"steps":6,"first_token":0,"tokens_per_step":1024,"optimizer_state":"halve","mesh":[2,4]}]}}}"#;
    let RunEvent::RunStarted(header) =
        decode(LineFile::Events, header.replace('\n', " ").as_bytes()).unwrap().event
    else {
        panic!("not a header")
    };
    assert_eq!(
        (header.plan.steps, header.plan.stages[0].optimizer_state),
        (6, MomentsOutline::Unknown)
    );
    assert_eq!(header.plan.entropy_rate, None);
}

#[test]
fn a_number_beyond_what_a_run_can_have_is_a_broken_line() {
    let line = encode(&record(u64::MAX, step(3))).unwrap();
    assert_eq!(
        decode(LineFile::Metrics, line.as_bytes()).unwrap_err().to_string(),
        "record 18446744073709551615 of attempt 1 is out of range"
    );
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    fs::write(
        run.events(),
        line.replace("\"step\"", "\"event\":{\"type\":\"warning\",\"message\":\"\"},\"step\""),
    )
    .unwrap();
    let shown = attempt(&run, |events| events.send(step(1)));
    assert_eq!(shown.last().map(|record| (record.seq, record.attempt)), Some((2, 1)));
}

#[test]
fn a_line_of_a_newer_program_is_refused_with_its_version() {
    let line = encode(&record(7, step(3)))
        .unwrap()
        .replace("\"format_version\":1", "\"format_version\":9");
    assert_eq!(
        decode(LineFile::Metrics, line.as_bytes()).unwrap_err().to_string(),
        "format version 9 is too new: this version of patchtui reads up to 1"
    );
}

fn run_in(folder: &Path) -> RunDirectory {
    RunDirectory::create(folder.join("books")).unwrap()
}

/// Starts an attempt, lets `talk` send events, ends it, and returns what listeners received.
fn send_all(events: &EventSender, all: impl IntoIterator<Item = RunEvent>) {
    for event in all {
        events.send(event);
    }
}

fn attempt(run: &RunDirectory, talk: impl FnOnce(&EventSender)) -> Vec<Record> {
    attempt_on(run, Disk::default(), talk)
}

fn attempt_on(run: &RunDirectory, disk: Disk, talk: impl FnOnce(&EventSender)) -> Vec<Record> {
    let mut store = Store::open_on(run, disk).unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reporter = shown.clone();
    store.report_to(Box::new(move |record| reporter.lock().unwrap().push(record.clone())));
    let (events, handle) = store.start().unwrap();
    talk(&events);
    drop(events);
    handle.join().unwrap();
    Arc::try_unwrap(shown).unwrap().into_inner().unwrap()
}

fn kept(run: &RunDirectory) -> Vec<Record> {
    let mut records = Vec::new();
    read_records(run, |record| records.push(record)).unwrap();
    records
}

#[test]
fn files_give_back_what_was_shown_but_progress_in_the_same_order() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let shown = attempt(&run, |events| {
        send_all(events, whole_run(run.path()));
    });
    assert_eq!(
        shown.iter().map(|record| record.seq).collect::<Vec<_>>(),
        (1..=26).collect::<Vec<_>>()
    );
    let lasting: Vec<_> = shown
        .iter()
        .filter(|record| !matches!(record.event, RunEvent::Progress(_)))
        .cloned()
        .collect();
    assert_eq!(kept(&run), lasting);
    let mut live = History::default();
    for record in &shown {
        live.apply(record);
    }
    assert_eq!(History::read(&run).unwrap().0, live);
}

#[test]
fn a_resumed_run_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    attempt(&run, |events| {
        send_all(events, [header(run.path(), None), step(1), step(2), step(3)]);
    });
    attempt(&run, |events| {
        send_all(events, [header(run.path(), Some(2)), step(3)]);
    });
    let numbers: Vec<_> = kept(&run).iter().map(|record| (record.seq, record.attempt)).collect();
    assert_eq!(numbers, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]);
    let steps: Vec<_> =
        History::read(&run).unwrap().0.steps.iter().map(|point| point.step).collect();
    assert_eq!(steps, [1, 2, 3]);
}

#[test]
fn a_torn_last_line_is_cut_before_the_next_attempt_appends() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    attempt(&run, |events| send_all(events, [step(1), step(2)]));
    let whole = fs::read(run.metrics()).unwrap();
    // A crash can interrupt the write anywhere, even just before the line feed.
    for length in [whole.len() - 1, whole.len() - 20] {
        fs::write(run.metrics(), &whole[..length]).unwrap();
        let shown = attempt(&run, |events| events.send(step(2)));
        assert_eq!(
            shown[0].event,
            RunEvent::Warning(Warning {
                message: "an incomplete last line of metrics.jsonl was removed".into()
            })
        );
        let text = fs::read_to_string(run.metrics()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| decode(LineFile::Metrics, line.as_bytes()).is_ok()));
        assert_eq!(History::read(&run).unwrap().1.num_bad_lines, 0);
    }
}

#[test]
fn a_torn_line_longer_than_a_read_block_is_cut_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let line = encode(&record(1, step(1))).unwrap();
    fs::write(run.metrics(), line.clone() + &"x".repeat(200_000)).unwrap();
    let (log, torn) = RunLog::open(&run).unwrap();
    drop(log);
    assert_eq!(torn, [run.metrics()]);
    assert_eq!(fs::read_to_string(run.metrics()).unwrap(), line);
}

#[test]
fn a_bad_line_in_the_middle_is_counted_reported_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let lines: Vec<_> = (1..=3).map(|n| encode(&record(n, step(n))).unwrap()).collect();
    fs::write(run.metrics(), format!("{}{}\0\0\0\n{}", lines[0], lines[1], lines[2])).unwrap();
    let (history, report) = History::read(&run).unwrap();
    assert_eq!(history.steps.len(), 3);
    assert_eq!((report.num_bad_lines, report.bad_lines[0].line), (1, 3));
    let shown = attempt(&run, |_| {});
    let RunEvent::Warning(warning) = &shown[0].event else { panic!("{shown:?}") };
    assert!(
        warning.message.starts_with(
            "1 broken line was skipped while reading the run, the first at metrics.jsonl:3: not a \
             record"
        ),
        "{}",
        warning.message
    );
}

/// A disk that refuses metrics while the returned flag is set.
fn full_disk() -> (Disk, Arc<AtomicBool>) {
    let is_full = Arc::new(AtomicBool::new(true));
    let gate = is_full.clone();
    let disk = Disk::with_gate(move |operation, path| {
        let refuses = gate.load(Ordering::Relaxed)
            && operation == Operation::Append
            && path.ends_with("metrics.jsonl");
        if refuses { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    (disk, is_full)
}

#[test]
fn a_line_without_an_end_is_skipped_and_not_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let mut file = File::create(run.events()).unwrap();
    let good = encode(&record(1, header(run.path(), None))).unwrap();
    file.write_all(good.as_bytes()).unwrap();
    // A sparse file: gigabytes of zeros without disk space.
    file.set_len(good.len() as u64 + (3 << 30)).unwrap();
    let (history, report) = History::read(&run).unwrap();
    assert!(history.header.is_some() && report.num_bad_lines == 0, "{report:?}");
    let mut file = File::options().append(true).open(run.events()).unwrap();
    file.write_all(
        format!(
            "\n{}",
            encode(&record(2, RunEvent::Warning(Warning { message: "after".into() }))).unwrap()
        )
        .as_bytes(),
    )
    .unwrap();
    let (history, report) = History::read(&run).unwrap();
    assert_eq!((history.last_seq, report.num_bad_lines), (2, 1));
    assert_eq!(report.bad_lines[0].reason, "longer than 16777216 bytes");
}

#[test]
fn lines_wait_for_a_full_disk_and_are_written_once_it_has_space() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let (disk, is_full) = full_disk();
    let (mut log, _) = RunLog::open_on(&run, disk).unwrap();
    let lines: Vec<_> = (1..=3).map(|n| encode(&record(n, step(n))).unwrap()).collect();
    let change = log.append(LineFile::Metrics, lines[0].clone());
    assert!(
        matches!(&change, Some(DiskChange::Failing { path, reason }) if *path == run.metrics() && reason.contains("no storage space")),
        "{change:?}"
    );
    assert_eq!(log.append(LineFile::Metrics, lines[1].clone()), None);
    log.sync().unwrap_err();
    is_full.store(false, Ordering::Relaxed);
    assert_eq!(
        log.append(LineFile::Metrics, lines[2].clone()),
        Some(DiskChange::Recovered { waited: 3, dropped: 0 })
    );
    log.sync().unwrap();
    assert_eq!(fs::read_to_string(run.metrics()).unwrap(), lines.concat());
}

#[test]
fn a_full_disk_is_one_warning_and_never_the_end_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let shown = attempt_on(&run, full_disk().0, |events| {
        (1..=5).for_each(|n| events.send(step(n)));
        // A checkpoint must not become valid before these lines are written.
        assert_eq!(events.sync_lines().unwrap_err().kind(), io::ErrorKind::StorageFull);
    });
    let warnings: Vec<_> =
        shown.iter().filter(|record| matches!(record.event, RunEvent::Warning(_))).collect();
    assert_eq!((shown.len(), warnings.len()), (6, 1), "{warnings:?}");
    assert!(
        format!("{:?}", warnings[0].event)
            .contains("keeps its lines in memory until the disk accepts writes again")
    );
}

#[test]
fn lines_are_on_the_disk_when_a_sender_has_waited_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let synced = Arc::new(Mutex::new(Vec::new()));
    let seen = synced.clone();
    let disk = Disk::with_gate(move |operation, path| {
        if operation == Operation::Sync {
            seen.lock().unwrap().push(path.to_owned());
        }
        Ok(())
    });
    attempt_on(&run, disk, |events| {
        (1..=50).for_each(|n| events.send(step(n)));
        events.sync_lines().unwrap();
        assert_eq!(fs::read_to_string(run.metrics()).unwrap().lines().count(), 50);
        assert_eq!(*synced.lock().unwrap(), [run.metrics()]);
        // Nothing new: nothing to wait for.
        events.sync_lines().unwrap();
        assert_eq!(synced.lock().unwrap().len(), 1);
    });
}

/// A file system of 64 KiB that is removed at the end of the test.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_tears_no_line_and_loses_none() {
    let Some(disk) = TinyDisk::mount() else {
        println!("skipped: no file system can be mounted here (needs root)");
        return;
    };
    let run = run_in(disk.0.path());
    let (mut log, _) = RunLog::open(&run).unwrap();
    // Leaves a few pages, so that a line is cut in the middle, at the end of a page.
    let ballast = disk.0.path().join("ballast");
    File::create(&ballast).unwrap().write_all(&vec![0; 40 * 1024]).unwrap();
    let lines: Vec<_> = (1..=200).map(|n| encode(&record(n, step(n))).unwrap()).collect();
    let changes: Vec<_> =
        lines.iter().filter_map(|line| log.append(LineFile::Metrics, line.clone())).collect();
    assert!(matches!(changes.as_slice(), [DiskChange::Failing { .. }]), "{changes:?}");
    let written = fs::read_to_string(run.metrics()).unwrap();
    assert!(!written.is_empty() && written.ends_with('\n') && lines.concat().starts_with(&written));
    fs::remove_file(ballast).unwrap();
    assert!(matches!(log.flush(), Some(DiskChange::Recovered { dropped: 0, .. }) | None));
    // Only a part of 200 lines fits into 64 KiB: that part is written, the rest still waits.
    let written = fs::read_to_string(run.metrics()).unwrap();
    assert!(
        written.len() > 20 * 1024
            && written.ends_with('\n')
            && lines.concat().starts_with(&written)
    );
}

#[test]
fn a_summary_counts_no_step_and_no_loss_that_a_later_attempt_has_undone() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let summary =
        || RunSummary::read(&run).map(|summary| (summary.step, summary.token_loss)).unwrap();
    let first = [
        header(run.path(), None),
        step(1),
        evaluation(1, 5.5),
        step(2),
        evaluation(2, 5.0),
        step(3),
        evaluation(3, 4.5),
    ];
    attempt(&run, |events| send_all(events, first));
    assert_eq!(summary(), (3, Some(4.5)));
    // An attempt that is preparing its text has not undone anything yet.
    attempt(&run, |events| {
        events.send(RunEvent::Progress(Progress {
            activity: "reading text (bytes)".into(),
            done: 0,
            total: None,
        }));
    });
    assert_eq!(summary(), (3, Some(4.5)));
    attempt(&run, |events| events.send(header(run.path(), Some(2))));
    assert_eq!(summary(), (2, Some(5.0)));
    // The last line of evals.jsonl may be about tasks, or come from an attempt before the last.
    let scores = RunEvent::TasksScored(TaskScores {
        step: 2,
        stage: 0,
        tokens: 2048,
        scores: Vec::new(),
        seconds: 1.0,
    });
    attempt(&run, |events| {
        send_all(events, [header(run.path(), Some(2)), scores, step(3)]);
    });
    assert_eq!(summary(), (3, Some(5.0)));
    attempt(&run, |events| events.send(header(run.path(), Some(1))));
    assert_eq!(summary(), (1, Some(5.5)));
    attempt(&run, |events| events.send(header(run.path(), None)));
    assert_eq!(summary(), (0, None));
}

#[test]
fn what_was_measured_before_a_stop_is_known_and_what_a_resume_superseded_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let sample = |step: u64, prompt: &str| {
        RunEvent::Sampled(Sample {
            step,
            stage: 0,
            tokens: 0,
            prompt: prompt.into(),
            text: String::new(),
        })
    };
    let measured = || MeasuredStep::read(&run, 3).unwrap();
    assert_eq!(measured(), MeasuredStep::default());
    // Killed after step 3; the next attempt resumes from step 2 and is stopped in the middle of the
    // measurements of step 3.
    let send = |events: Vec<RunEvent>| attempt(&run, |sender| send_all(sender, events));
    send(vec![
        header(run.path(), None),
        evaluation(3, 5.5),
        sample(3, "a"),
        step(4),
        evaluation(4, 4.0),
    ]);
    assert_eq!(
        measured(),
        MeasuredStep {
            token_loss: Some(5.5),
            prompts: vec!["a".into()],
            ..MeasuredStep::default()
        }
    );
    send(vec![header(run.path(), Some(2))]);
    assert_eq!(measured(), MeasuredStep::default());
    send(vec![header(run.path(), Some(2)), evaluation(3, 5.25)]);
    let expected = MeasuredStep { token_loss: Some(5.25), ..MeasuredStep::default() };
    assert_eq!(measured(), expected);
    // The next attempt is killed between measurement and checkpoint.
    send(vec![header(run.path(), Some(3)), sample(3, "a")]);
    assert_eq!(measured(), MeasuredStep { prompts: vec!["a".into()], ..expected });
    send(vec![header(run.path(), None)]);
    assert_eq!(measured(), MeasuredStep::default());
}

#[test]
fn a_run_whose_lock_tells_nothing_is_never_said_to_have_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    let state = || RunSummary::read(&run).unwrap().state;
    attempt(&run, |events| {
        send_all(events, [header(run.path(), None), step(1)]);
    });
    assert_eq!(state(), RunState::Crashed);
    // A lock file that cannot be opened simulates a file system without locks.
    std::os::unix::fs::symlink("lock", run.lock()).unwrap();
    assert_eq!(state(), RunState::Unknown);
    attempt(&run, |events| send_all(events, whole_run(run.path())));
    assert_eq!(state(), RunState::Completed);
}

#[test]
fn a_checkpointed_run_that_is_killed_counts_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path());
    fs::write(run.config(), "").unwrap();
    let state = || RunSummary::read(&run).unwrap().state;
    assert_eq!(state(), RunState::New);
    let lock = RunLock::acquire(&run).unwrap();
    attempt(&run, |events| {
        send_all(events, [header(run.path(), None), step(1), evaluation(1, 5.5)]);
    });
    assert_eq!(state(), RunState::Alive);
    attempt(&run, |events| {
        events
            .send(RunEvent::ControlChanged(ControlChange { state: ControlState::Paused, step: 1 }));
    });
    assert_eq!(state(), RunState::Paused);
    drop(lock);
    assert_eq!(state(), RunState::Crashed);
    attempt(&run, |events| send_all(events, whole_run(run.path())));
    let summary = RunSummary::read(&run).unwrap();
    let whole = whole_loss(4.5);
    assert_eq!((summary.state, summary.step, summary.steps), (RunState::Completed, 6, Some(6)));
    assert_eq!(
        (summary.token_loss, summary.standard_error, summary.bits_per_byte),
        (Some(whole.token_loss), whole.standard_error, whole.bits_per_byte)
    );
    assert!(summary.on_whole_validation_text);
}
