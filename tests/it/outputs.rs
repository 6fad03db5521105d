//! Outputs that cannot be written, and closed pipes: exit codes, messages, and what is kept.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::formats::Fixture;
use crate::program::{Bench, metrics, output};
use crate::resume::{TINY, final_bytes};

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Exit code and standard error of `command` with its standard output on a full device.
fn on_a_full_device(mut command: Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).stdout(full()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Bug report 17.
#[test]
fn a_result_on_a_full_disk_is_a_failure_and_a_reader_that_left_is_none() {
    let bench = Bench::new();
    let (fixture, text) = (Fixture::copy("format-2"), bench.path().join("text.txt"));
    let run = fixture.run().path().to_str().unwrap().to_owned();
    fs::write(&text, "Once upon a time there was a model that read bytes.").unwrap();
    let text = text.to_str().unwrap().to_owned();
    let task = format!("text:{text}");
    let table: [&[&str]; 12] = [
        &["config", "template"],
        &["config", "show", "demo", "--json"],
        &["plan", "demo", "--device", "cpu", "--json"],
        &["runs"],
        &["runs", "--json"],
        &["doctor", "--json"],
        &["view", &run],
        &["eval", &run, "--tasks", &task, "--device", "cpu"],
        &["eval", &run, "--tasks", &task, "--device", "cpu", "--json"],
        &["generate", &run, "--prompt", "Once", "--max-new-tokens", "4", "--device", "cpu"],
        &["--help"],
        &["--version"],
    ];
    for arguments in table {
        let (code, stderr) = on_a_full_device(bench.patchtui(arguments));
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("cannot write to standard output: No space left on device"),
            "{arguments:?}: {stderr}"
        );
        let mut command = bench.patchtui(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdin(Stdio::null()).stdout(writer).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("error"), "{arguments:?}: {stderr}");
        // Lost messages change no result.
        let answer =
            bench.patchtui(arguments).stdin(Stdio::null()).stderr(full()).output().unwrap();
        assert!(
            !answer.stdout.is_empty() && output.status.code() == answer.status.code(),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_run_whose_lines_are_lost_trains_to_the_end_and_warns_once() {
    let bench = Bench::new();
    for (name, json) in [("lines", &[][..]), ("records", &["--json"])] {
        let mut command =
            bench.patchtui(&[&["run", "demo", "--name", name, "--no-tui"], json].concat());
        for set in TINY {
            command.args(["--set", set]);
        }
        let (code, stderr) = on_a_full_device(command);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(
            stderr.matches("cannot write to standard output: No space left on device").count(),
            1,
            "{stderr}"
        );
    }
}

/// Bug report 14.
#[test]
fn finished_tasks_are_printed_and_written_although_another_one_is_impossible() {
    let fixture = Fixture::copy("format-2");
    let folder = tempfile::tempdir().unwrap();
    let long = "cd ".repeat(40);
    fs::write(
        folder.path().join("piqa.jsonl"),
        json!({ "goal": "g", "sol1": "a b", "sol2": long, "label": 0 }).to_string(),
    )
    .unwrap();
    fs::write(folder.path().join("own.txt"), "some text of mine").unwrap();
    let eval = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command
            .arg("eval")
            .arg(fixture.run().path())
            .args(["--device", "cpu", "--max-length", "16", "--task-data", "."])
            .args(arguments);
        command.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path().join("state"));
        output(command)
    };
    let (code, stdout, stderr) = eval(&["--tasks", "piqa,text:own.txt", "-o", "samples.jsonl"]);
    assert_eq!(code, 1, "{stderr}");
    let place = |text: &str| stderr.find(text).unwrap_or_else(|| panic!("{text}: {stderr}"));
    assert!(
        place("piqa, document 0: the continuation has") < place("text:own.txt: 1 document"),
        "known before computing: {stderr}"
    );
    assert!(stderr.contains("1 of 2 tasks failed: piqa"), "{stderr}");
    assert!(stdout.contains("text:own.txt") && !stdout.contains("piqa"), "{stdout}");
    assert_eq!(fs::read_to_string(folder.path().join("samples.jsonl")).unwrap().lines().count(), 1);
    // A device or a pipe at --output is written through, a link followed, and a lost file does not
    // lose the table.
    symlink("/dev/full", folder.path().join("full")).unwrap();
    let (code, stdout, stderr) = eval(&["--tasks", "text:own.txt", "-o", "full"]);
    assert!(
        code == 1 && stderr.contains("No space left on device") && stdout.contains("token_loss"),
        "{code} {stdout} {stderr}"
    );
    assert!(folder.path().join("full").is_symlink());
    let (code, stdout, _) = eval(&["--tasks", "text:own.txt", "-o", "/dev/stdout"]);
    assert!(
        code == 0 && stdout.contains("token_loss") && stdout.contains("\"log_likelihood\""),
        "{stdout}"
    );
    // Chance level, shots and BOS are part of the results.
    fs::write(
        folder.path().join("piqa.jsonl"),
        json!({ "goal": "g", "sol1": "a", "sol2": "b", "label": 0 }).to_string(),
    )
    .unwrap();
    let (_, stdout, _) = eval(&["--tasks", "piqa"]);
    assert!(
        stdout.contains("K = 1")
            && stdout.contains("without BOS")
            && stdout.contains("SHOTS")
            && stdout.contains("0.5000\n"),
        "{stdout}"
    );
}

/// Bug report 18.
#[test]
fn generating_ends_when_nobody_reads_and_shows_each_text_when_it_is_finished() {
    let bench = Bench::new();
    let run = Fixture::copy("format-2");
    let run = run.run().path().to_str().unwrap().to_owned();
    // So many tokens that the test times out unless the command notices the closed pipe.
    let mut endless = bench.patchtui(&[
        "generate",
        &run,
        "--prompt",
        "Once",
        "--max-new-tokens",
        "100000000",
        "--device",
        "cpu",
    ]);
    let mut child =
        endless.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let prompts = (0..200).map(|idx| format!("Once {idx}")).collect::<Vec<_>>().join("\n");
    fs::write(bench.path().join("prompts.txt"), prompts).unwrap();
    let many = [
        "generate",
        &run,
        "--prompt-file",
        "prompts.txt",
        "--max-new-tokens",
        "6",
        "--device",
        "cpu",
        "--json",
    ];
    let mut child = bench
        .patchtui(&many)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"Once 0\""));
    assert_eq!(lines.count(), 199);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn bench_hints_at_the_precision_that_was_typed() {
    let bench = Bench::new();
    let (code, _, stderr) = output(bench.patchtui(&[
        "bench",
        "demo",
        "--device",
        "cpu",
        "--set",
        "training.precision=bf16",
    ]));
    assert!(code == 2 && stderr.contains("training.precision = \"f32\""), "{code} {stderr}");
}

#[test]
fn closed_outputs_end_no_command_in_a_panic_and_change_no_run() {
    let bench = Bench::new();
    let closed = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        let program = bench.patchtui(arguments);
        // All three numbers are free for the first files that the program opens.
        shell
            .args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(bench.path());
        shell
            .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env_remove("PATCHTUI_RUNS_DIR");
        shell.status().unwrap().code()
    };
    let train = |name: &str, json: bool| {
        let sets = TINY.iter().flat_map(|set| ["--set", set]);
        closed(
            &["run", "demo", "--no-tui", "--name", name]
                .into_iter()
                .chain(sets)
                .chain(json.then_some("--json"))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(output(bench.tiny(&["--name", "open"])).0, 0);
    for (name, json) in [("lines", false), ("records", true)] {
        assert_eq!(train(name, json), Some(0), "{name}");
        assert!(final_bytes(&bench.run_dir(name)) == final_bytes(&bench.run_dir("open")), "{name}");
        assert_eq!(metrics(&bench.run_dir(name)), metrics(&bench.run_dir("open")), "{name}");
    }
    let commands: [&[&str]; 6] = [
        &["runs"],
        &["ctl", "open", "status"],
        &["config", "template"],
        &["plan", "demo"],
        &["view", "open"],
        &["--nonsense"],
    ];
    for arguments in commands {
        let code = closed(arguments);
        assert!(matches!(code, Some(0..=2)), "{arguments:?}: {code:?}");
    }
}
