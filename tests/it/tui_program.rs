//! The list of runs and the view of a run as shown by the program, with and without a terminal.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use patchtui::record::{LineFile, Record, RunDirectory, encode};
use portable_pty::CommandBuilder;

use crate::tui_fixture::Story;
use crate::tui_pty::Session;

/// A run directory as an engine would have left it after `records`.
fn leave_run(path: &Path, records: &[Record]) {
    let run = RunDirectory::create(path).unwrap();
    fs::write(run.config(), "").unwrap();
    for record in records {
        let Some(file) = LineFile::of(&record.event) else { continue };
        let mut file = File::options().create(true).append(true).open(file.path(&run)).unwrap();
        file.write_all(encode(record).unwrap().as_bytes()).unwrap();
    }
}

fn bench() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    leave_run(&folder.path().join("runs/whole"), &Story::done().records);
    leave_run(&folder.path().join("runs/killed"), &Story::after(66).records);
    folder
}

fn client(bench: &Path, arguments: &[&str]) -> CommandBuilder {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_patchtui"));
    command.args(arguments);
    command.cwd(bench);
    command.env("XDG_STATE_HOME", bench.join("state"));
    command.env_remove("PATCHTUI_RUNS_DIR");
    command
}

fn on_a_terminal(bench: &Path, arguments: &[&str]) -> Session {
    Session::of(client(bench, arguments))
}

fn with_term(bench: &Path, arguments: &[&str], term: &str) -> Session {
    Session::sized(client(bench, arguments), (24, 80), term)
}

fn output(bench: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
    command
        .args(arguments)
        .current_dir(bench)
        .stdin(Stdio::null())
        .env("XDG_STATE_HOME", bench.join("state"))
        .env_remove("PATCHTUI_RUNS_DIR");
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn runs_are_listed_viewed_and_left_again() {
    let bench = bench();
    let mut screen = on_a_terminal(bench.path(), &[]);
    screen.wait_for_text("2 runs, 0 running");
    screen.wait_for_text("crashed");
    screen.press(b"\r");
    screen.wait_for_text("read from files");
    screen.press(b"q");
    screen.wait_for_text("2 runs, 0 running");
    // A start that fails is reported on the screen, which stays.
    screen.press_until(b"n", "Enter start");
    screen.press(b"absent.toml\r");
    screen.wait_for_text("no built-in configuration");
    screen.wait_for_text("Enter view");
    screen.press(b"\x1b[200~q\n\x1b[201~");
    screen.press(b"q");
    assert_eq!(screen.ended().exit_code(), 0);
}

#[test]
fn a_finished_and_a_killed_run_are_viewed_from_their_files_with_exit_code_0() {
    let bench = bench();
    for (name, state) in
        [("whole", "completed"), ("killed", "crashed"), ("runs/killed", "patchtui resume")]
    {
        let mut screen = on_a_terminal(bench.path(), &["view", name]);
        screen.wait_for_text(state);
        screen.press(b" cS");
        screen.press(b"q");
        assert_eq!(screen.ended().exit_code(), 0, "{name}");
    }
}

/// Bug report 19.
#[test]
fn a_terminal_without_a_cursor_is_told_what_a_screen_needs() {
    let bench = bench();
    for (term, problem) in [("dumb", "TERM=dumb"), ("", "TERM is not set")] {
        for (arguments, instead) in [
            (&["view", "whole"][..], "patchtui ctl whole status"),
            (&["attach", "whole"], "patchtui ctl whole status"),
            (&[], "patchtui runs"),
        ] {
            let mut screen = with_term(bench.path(), arguments, term);
            screen.wait_for_text(problem);
            screen.wait_for_text("TERM=xterm-256color");
            screen.wait_for_text(instead);
            let status = screen.ended();
            assert_eq!(status.exit_code(), 2, "{term:?} {arguments:?}");
            assert!(!screen.has_escapes(), "{arguments:?}");
        }
    }
    let (code, _, errors) = output(bench.path(), &["attach", "whole"]);
    assert!(code == Some(2) && errors.contains("not a terminal"), "{errors}");
}

/// Bug report 19: what needs a screen says so, what does not prints lines.
#[cfg(feature = "engine")]
#[test]
fn a_run_on_a_terminal_without_a_cursor_prints_lines() {
    let folder = tempfile::tempdir().unwrap();
    let sets = crate::resume::TINY.iter().flat_map(|set| ["--set", set]);
    let mut screen = with_term(
        folder.path(),
        &["run", "demo"].into_iter().chain(sets).collect::<Vec<_>>(),
        "dumb",
    );
    screen.wait_for_text("step   9/9");
    assert_eq!(screen.ended().exit_code(), 0);
    assert!(!screen.has_escapes());
}

#[test]
fn a_terminal_that_reports_no_size_gets_the_usual_one() {
    let bench = bench();
    let mut screen =
        Session::sized(client(bench.path(), &["view", "whole"]), (0, 0), "xterm-256color");
    screen.wait_for_text("token loss (K = 1)");
    screen.wait_for_text("q quit");
    screen.press(b"q");
    assert_eq!(screen.ended().exit_code(), 0);
}

#[test]
fn a_terminal_that_answers_with_white_gets_colors_for_white() {
    let bench = bench();
    let mut screen = on_a_terminal(bench.path(), &["view", "whole"]);
    screen.wait_for_text("token loss (K = 1)");
    assert!(screen.has_sent(b"\x1b]11;?\x1b\\") && screen.has_color(74) && !screen.has_color(25));
    screen.press(b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\");
    screen.wait_for_color(25);
    screen.press(b"q");
    assert_eq!(screen.ended().exit_code(), 0);
}

#[test]
fn without_a_terminal_the_list_and_a_run_are_text() {
    let bench = bench();
    let (code, list, errors) = output(bench.path(), &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(list, output(bench.path(), &["runs"]).1);
    assert!(list.contains("whole") && list.contains("crashed"), "{list}");
    let (code, text, _) = output(bench.path(), &["view", "whole"]);
    assert!(code == Some(0) && text.contains("completed") && text.contains("180 of 180"), "{text}");
    let (code, _, errors) = output(bench.path(), &["whole"]);
    assert!(code == Some(2) && errors.contains("is not a subcommand"), "{errors}");
}
