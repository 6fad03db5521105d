//! Clients and an engine over a real socket, with a simulated trainer.

use std::collections::HashSet;
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use patchtui::advice::{Advice, Audience};
use patchtui::control::{
    ClientMessage, ControlError, EngineLink, Feed, FrameError, Hello, HelloError, PROTOCOL,
    Patience, Request, Server, ServerMessage, ServerSetup, check_reachable, connect, connect_with,
    frame, request, request_without_waiting, status,
};
use patchtui::record::{
    EngineInfo, EventSender, FindError, History, Outcome, RunCommand, RunDirectory, RunEvent,
    RunLock, Store, StoreHandle, Subscription,
};
use patchtui::steer::{CommandSender, Inbox, StopLevel, command_channel};

use crate::fake_run::{end, header, record, step};

/// Longer than anything here takes; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_mins(1);

/// An engine in this process: store, server, and a trainer that answers commands.
struct FakeEngine {
    events: EventSender,
    store: Option<StoreHandle>,
    server: Option<Server>,
    trainer: Option<JoinHandle<()>>,
    lock: Option<RunLock>,
}

impl FakeEngine {
    fn start(run: &RunDirectory) -> Self {
        Self::start_with(run, RunLock::acquire(run).unwrap())
    }

    fn start_with(run: &RunDirectory, lock: RunLock) -> Self {
        let mut store = Store::open(run).unwrap();
        let subscription = store.subscribe();
        let (events, handle) = store.start().unwrap();
        let (commands, inbox) = command_channel();
        let server = Server::start(ServerSetup {
            subscription,
            commands,
            events: events.clone(),
            signals: None,
        })
        .unwrap();
        EngineInfo::of_this_process(server.socket().unwrap().to_path_buf(), PROTOCOL)
            .write(run)
            .unwrap();
        events.send(header(run.path(), None));
        let talk = events.clone();
        let trainer = thread::spawn(move || obey_until_the_end(inbox, &talk));
        Self {
            events,
            store: Some(handle),
            server: Some(server),
            trainer: Some(trainer),
            lock: Some(lock),
        }
    }

    fn take_steps(&self, steps: impl IntoIterator<Item = u64>) {
        steps.into_iter().for_each(|n| self.events.send(step(n)));
    }

    /// Ends like an engine process; the lock is released last.
    fn end(&mut self) {
        if let Some(store) = self.store.take() {
            self.events.send(RunEvent::RunFinished(end(Outcome::Completed, 6)));
            store.join().unwrap();
        }
        drop(self.server.take());
        if let Some(trainer) = self.trainer.take() {
            trainer.join().unwrap();
        }
        drop(self.lock.take());
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.end();
    }
}

/// Accepts every command, executes all but one, and ends when nobody can send commands any more.
fn obey_until_the_end(mut inbox: Inbox, events: &EventSender) {
    while !inbox.is_abandoned() {
        let Some(batch) = inbox.wait(Duration::from_millis(5)) else { continue };
        events.send(RunEvent::CommandAccepted(batch.note(3, "")));
        events.send(match batch.command {
            RunCommand::Sample => RunEvent::CommandFailed(batch.note(3, "there are no prompts")),
            command => RunEvent::CommandDone(batch.note(3, format!("{command} of step 3"))),
        });
    }
}

/// An engine whose trainer is busy with a step: commands wait in the returned inbox.
struct BusyEngine {
    _lock: RunLock,
    _store: StoreHandle,
    _server: Server,
    commands: CommandSender,
    inbox: Inbox,
}

impl BusyEngine {
    fn start(run: &RunDirectory) -> Self {
        let lock = RunLock::acquire(run).unwrap();
        let mut store = Store::open(run).unwrap();
        let subscription = store.subscribe();
        let (events, store) = store.start().unwrap();
        let (commands, inbox) = command_channel();
        let server = Server::start(ServerSetup {
            subscription,
            commands: commands.clone(),
            events,
            signals: None,
        })
        .unwrap();
        EngineInfo::of_this_process(server.socket().unwrap().to_path_buf(), PROTOCOL)
            .write(run)
            .unwrap();
        Self { _lock: lock, _store: store, _server: server, commands, inbox }
    }
}

fn ask(run: &RunDirectory, command: RunCommand) -> Result<String, ControlError> {
    request(run, Request { command, sender: "ctl", limit: LIMIT }).map(|note| note.message)
}

fn new_run(folder: &tempfile::TempDir) -> RunDirectory {
    RunDirectory::create(folder.path().join("books")).unwrap()
}

/// Runs `test` on its own runtime, for at most [`LIMIT`].
fn in_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") })
}

/// A client that folds the received records.
struct Client {
    link: EngineLink,
    history: History,
}

impl Client {
    fn attach(run: &RunDirectory, name: &str) -> Self {
        Self { link: connect(run.clone(), name.into()), history: History::default() }
    }

    /// The next message; heartbeats may come at any time.
    async fn hear(&mut self) -> Feed {
        let feed = loop {
            let feed = self.link.feed.recv().await.expect("the feed ended");
            if !matches!(feed, Feed::Heartbeat) {
                break feed;
            }
        };
        match &feed {
            Feed::Snapshot(history) | Feed::Ended { history } => self.history = (**history).clone(),
            Feed::Record(record) => {
                assert_eq!(record.seq, self.history.last_seq + 1, "a record is missing");
                self.history.apply(record);
            }
            Feed::Heartbeat | Feed::Lost { .. } => {}
        }
        feed
    }

    async fn hear_until(&mut self, is_enough: impl Fn(&History) -> bool) {
        while !is_enough(&self.history) {
            let feed = self.hear().await;
            assert!(!matches!(feed, Feed::Lost { .. } | Feed::Ended { .. }), "{feed:?}");
        }
    }

    async fn hear_answer(&mut self, text: &str) {
        self.hear_until(|history| history.log.iter().any(|line| line.text.contains(text))).await;
    }
}

#[test]
fn a_client_gets_everything_so_far_and_then_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    engine.take_steps(1..=3);
    in_time(async {
        let mut client = Client::attach(&run, "screen of alice");
        assert!(matches!(client.hear().await, Feed::Snapshot(_)));
        engine.take_steps(4..=6);
        client.hear_until(|history| history.step() == 6).await;
        let finished = tokio::task::spawn_blocking(move || engine.end());
        let ending = loop {
            match client.hear().await {
                Feed::Ended { history } => break history,
                feed => assert!(matches!(feed, Feed::Record(_) | Feed::Heartbeat), "{feed:?}"),
            }
        };
        finished.await.unwrap();
        assert_eq!(*ending, History::read(&run).unwrap().0);
        assert_eq!(
            (ending.steps.len(), ending.end.map(|end| end.outcome)),
            (6, Some(Outcome::Completed))
        );
    });
}

#[test]
fn two_clients_command_and_both_see_every_answer() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _engine = FakeEngine::start(&run);
    in_time(async {
        let (mut alice, mut bob) = (Client::attach(&run, "alice"), Client::attach(&run, "bob"));
        alice.link.commands.send(("a-1".into(), RunCommand::Pause)).unwrap();
        bob.link.commands.send(("b-1".into(), RunCommand::Evaluate)).unwrap();
        for client in [&mut alice, &mut bob] {
            client.hear_answer("pause done: pause of step 3").await;
            client.hear_answer("evaluate done: evaluate of step 3").await;
            client
                .hear_answer(&format!("pause requested by alice (pid {})", std::process::id()))
                .await;
            client.hear_answer("evaluate requested by bob").await;
        }
    });
}

#[test]
fn a_request_waits_for_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    assert_eq!(ask(&run, RunCommand::Checkpoint).unwrap(), "checkpoint of step 3");
    let refused = ask(&run, RunCommand::Sample).unwrap_err();
    assert_eq!(refused.to_string(), "sample failed: there are no prompts");
    drop(engine);
    let late = ask(&run, RunCommand::Checkpoint).unwrap_err();
    assert_eq!(late.to_string(), "the run \"books\" is not running");
    assert_eq!(
        late.hint(Audience::Command),
        "view it with: patchtui view books; if it is unfinished, resume it with: patchtui resume \
         books"
    );
}

#[test]
fn a_request_that_is_not_answered_says_whether_it_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _engine = BusyEngine::start(&run);
    let evaluate =
        Request { command: RunCommand::Evaluate, sender: "ctl", limit: Duration::from_millis(200) };
    for silent in
        [request(&run, evaluate).unwrap_err(), request_without_waiting(&run, evaluate).unwrap_err()]
    {
        assert!(matches!(silent, ControlError::NoAnswer { accepted: false, .. }), "{silent}");
    }
}

#[test]
fn without_waiting_acceptance_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _engine = FakeEngine::start(&run);
    let sample = Request { command: RunCommand::Sample, sender: "ctl", limit: LIMIT };
    assert_eq!(request_without_waiting(&run, sample).unwrap().command, RunCommand::Sample);
}

/// Sends commands until the engine accepts no more for a while. Returns the number of bytes it
/// accepted.
fn flood(client: &mut RawClient, command: RunCommand) -> usize {
    client.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    for n in 0..100_000 {
        let bytes = frame(&ClientMessage::Command { id: format!("f{n}"), command }).unwrap();
        match client.0.write(&bytes) {
            Ok(written) => taken += written,
            Err(_) => return taken,
        }
    }
    taken
}

#[test]
fn a_flood_waits_in_its_own_socket_and_a_stop_passes_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = BusyEngine::start(&run);
    let mut flooder = RawClient::attach(&run);
    let taken = flood(&mut flooder, RunCommand::Resume);
    assert!(taken < 2_000_000, "{taken} bytes were taken");
    let mut other = RawClient::attach(&run);
    other.say(
        &frame(&ClientMessage::Command { id: "s".into(), command: RunCommand::Stop }).unwrap(),
    );
    let (flag, limit) = (engine.commands.stop_flag(), Instant::now() + LIMIT);
    while flag.level() != StopLevel::AfterCheckpoint {
        assert!(Instant::now() < limit, "the stop waits behind the flood");
        thread::yield_now();
    }
    // The stop is answered, too, once the flood has made room for it.
    let limit = Instant::now() + LIMIT;
    while engine.inbox.wait(LIMIT).is_none_or(|batch| batch.command != RunCommand::Stop) {
        assert!(Instant::now() < limit, "the stop is not heard");
    }
}

#[test]
fn a_flood_of_stops_raises_the_flag_although_its_places_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = BusyEngine::start(&run);
    let mut flooder = RawClient::attach(&run);
    flood(&mut flooder, RunCommand::Stop);
    let mut other = RawClient::attach(&run);
    other.say(
        &frame(&ClientMessage::Command { id: "k".into(), command: RunCommand::Kill }).unwrap(),
    );
    let (flag, limit) = (engine.commands.stop_flag(), Instant::now() + LIMIT);
    while flag.level() != StopLevel::Now {
        assert!(Instant::now() < limit, "the kill waits behind the stops");
        thread::yield_now();
    }
}

#[test]
fn every_command_of_a_flood_is_answered_in_few_lines() {
    const COMMANDS: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    let mut client = RawClient::attach(&run);
    let mut writer = RawClient(client.0.try_clone().unwrap());
    let flood = thread::spawn(move || {
        for n in 0..COMMANDS {
            writer.say(
                &frame(&ClientMessage::Command {
                    id: format!("f{n}"),
                    command: RunCommand::Resume,
                })
                .unwrap(),
            );
        }
    });
    let mut open: HashSet<String> = (0..COMMANDS).map(|n| format!("f{n}")).collect();
    while !open.is_empty() {
        if let ServerMessage::Record(record) = client.hear().expect("the flooder was sent away")
            && let RunEvent::CommandDone(note) = record.event
        {
            for id in std::iter::once(&note.id).chain(&note.also) {
                assert!(open.remove(id), "{id} was answered twice");
            }
        }
    }
    flood.join().unwrap();
    // Another client is not blocked by what the first one sends.
    assert_eq!(ask(&run, RunCommand::Pause).unwrap(), "pause of step 3");
    engine.end();
    let events = std::fs::read_to_string(run.events()).unwrap();
    assert!(events.lines().count() < COMMANDS / 5, "{} lines", events.lines().count());
}

#[test]
fn a_command_that_is_sent_twice_acts_once_and_is_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = BusyEngine::start(&run);
    let mut client = RawClient::attach(&run);
    let command =
        frame(&ClientMessage::Command { id: "once".into(), command: RunCommand::Evaluate })
            .unwrap();
    let last =
        frame(&ClientMessage::Command { id: "last".into(), command: RunCommand::Sample }).unwrap();
    client.say(&[command.clone(), command.clone(), last].concat());
    let limit = Instant::now() + LIMIT;
    let mut batches = Vec::new();
    while batches.len() < 2 {
        assert!(Instant::now() < limit, "only {batches:?}");
        batches.extend(engine.inbox.wait(Duration::from_millis(5)));
    }
    let counts: Vec<_> =
        batches.iter().map(|batch| (batch.command, batch.envelopes.len())).collect();
    assert_eq!(counts, [(RunCommand::Evaluate, 1), (RunCommand::Sample, 1)]);
    assert_eq!(engine.inbox.next_repeat(), None);
    let note = batches[0].note(7, "token loss 3.2");
    engine.inbox.remember(&batches[0], &note, true);
    client.say(&command);
    let again = loop {
        assert!(Instant::now() < limit, "no second answer");
        if let Some(again) = engine.inbox.next_repeat() {
            break again;
        }
        thread::yield_now();
    };
    assert_eq!(again, RunEvent::CommandDone(note));
    assert!(engine.inbox.next_batch(true).is_none());
}

#[test]
fn a_client_that_leaves_at_once_has_been_heard() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = BusyEngine::start(&run);
    let mut client = RawClient::connect(&run);
    let pause = ClientMessage::Command { id: "p".into(), command: RunCommand::Pause };
    client.say(
        &[frame(&ClientMessage::Hello(Hello::from_here("raw"))).unwrap(), frame(&pause).unwrap()]
            .concat(),
    );
    drop(client);
    assert_eq!(engine.inbox.wait(LIMIT).map(|batch| batch.command), Some(RunCommand::Pause));
}

#[test]
fn a_wait_without_senders_takes_its_time() {
    let (commands, mut inbox) = command_channel();
    drop(commands);
    let began = Instant::now();
    assert!(inbox.wait(Duration::from_millis(50)).is_none());
    assert!(began.elapsed() >= Duration::from_millis(50) && inbox.is_abandoned());
}

/// A listener in place of an engine, with its lock.
fn pretend_to_listen(folder: &tempfile::TempDir, run: &RunDirectory) -> (RunLock, UnixListener) {
    let lock = RunLock::acquire(run).unwrap();
    let socket = folder.path().join("fake.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    EngineInfo::of_this_process(socket, PROTOCOL).write(run).unwrap();
    (lock, listener)
}

#[test]
fn a_command_whose_sending_failed_is_sent_over_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let (_lock, listener) = pretend_to_listen(&folder, &run);
    let engine = thread::spawn(move || {
        let accept = || {
            let mut client = RawClient(listener.accept().unwrap().0);
            client.0.set_read_timeout(Some(LIMIT)).unwrap();
            client.say(&frame(&ServerMessage::Hello(Hello::from_here("engine"))).unwrap());
            client
        };
        let mut first = accept();
        while !matches!(first.hear_client(), ClientMessage::Ping) {}
        // From here on, sending to this end fails, while receiving from it still works.
        first.0.shutdown(std::net::Shutdown::Read).unwrap();
        first.say(&frame(&ServerMessage::Snapshot(Box::default())).unwrap());
        let mut second = accept();
        loop {
            if let ClientMessage::Command { command, .. } = second.hear_client() {
                break command;
            }
        }
    });
    in_time(async {
        let patience = Patience { first_retry: Duration::from_millis(10), ..Patience::default() };
        let mut link = connect_with(run.clone(), "test".into(), patience);
        assert!(matches!(link.feed.recv().await, Some(Feed::Snapshot(_))));
        link.commands.send(("test-1".into(), RunCommand::Checkpoint)).unwrap();
        let got = tokio::task::spawn_blocking(move || engine.join().unwrap());
        assert_eq!(got.await.unwrap(), RunCommand::Checkpoint);
    });
}

#[test]
fn an_engine_that_does_not_answer_is_said_to_be_just_that() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let (_lock, _listener) = pretend_to_listen(&folder, &run);
    let status = status(&run, "ctl").unwrap();
    let problem = status.problem.unwrap();
    assert!(matches!(problem, ControlError::Unresponsive { .. }), "{problem}");
    let pause = ask(&run, RunCommand::Pause).unwrap_err();
    assert!(pause.to_string().contains("does not answer"), "{pause}");
}

#[test]
fn a_run_without_a_socket_says_which_signals_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _lock = RunLock::acquire(&run).unwrap();
    EngineInfo::of_this_process(None, PROTOCOL).write(&run).unwrap();
    let pid = std::process::id();
    let error = ask(&run, RunCommand::Pause).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the run \"books\" (pid {pid}) has no socket and accepts signals only")
    );
    assert_eq!(
        error.hint(Audience::Command),
        format!("stop it with a checkpoint: kill -TERM {pid}; save a checkpoint: kill -USR1 {pid}")
    );
    assert!(matches!(check_reachable(&run), Err(ControlError::SignalsOnly { .. })));
    assert!(matches!(status(&run, "ctl").unwrap().problem, Some(ControlError::SignalsOnly { .. })));
}

#[test]
fn every_error_says_what_is_wrong_and_what_to_type() {
    let io = || std::io::Error::other("disk on fire");
    let (name, socket, command) =
        (|| "books".to_owned(), || std::path::PathBuf::from("/run/books.sock"), RunCommand::Stop);
    let second = Duration::from_secs(1);
    let folder = |path: &str| {
        Box::new(ControlError::SocketFolder {
            path: path.into(),
            problem: "it is not a folder".into(),
        })
    };
    let frames = [
        FrameError::TooLarge { length: 9, limit: 8 },
        FrameError::Torn,
        FrameError::NotAMessage(serde_json::from_str::<u8>("x").unwrap_err()),
        FrameError::Io(io()),
        FrameError::Stuck,
    ];
    let mut errors: Vec<ControlError> = frames.into_iter().map(ControlError::Frame).collect();
    errors.extend([
        ControlError::NotAlive { name: name() },
        ControlError::NoLocks { name: name() },
        ControlError::OtherMachine { name: name(), host: "node7".into() },
        ControlError::NotListening { name: name() },
        ControlError::SignalsOnly { name: name(), pid: 12 },
        ControlError::Unresponsive { name: name(), pid: 12, waited: second },
        ControlError::Connect { name: name(), socket: socket(), pid: 12, source: io() },
        ControlError::ForeignPeer { socket: socket(), uid: 7 },
        ControlError::Hello(HelloError::NotPatchtui),
        ControlError::Hello(HelloError::Protocol { theirs: 9, version: "9.0.0".into() }),
        ControlError::Refused { message: "the first message must be a greeting".into() },
        ControlError::Closed,
        ControlError::Silent(second),
        ControlError::NoAnswer { name: name(), command, limit: second, accepted: false },
        ControlError::NoAnswer { name: name(), command, limit: second, accepted: true },
        ControlError::CommandFailed { name: name(), command, message: "no space left".into() },
        ControlError::EndedFirst { name: name(), command, reason: None },
        ControlError::EndedFirst {
            name: name(),
            command,
            reason: Some("it was interrupted at step 3".into()),
        },
        ControlError::PathTooLong { path: socket(), limit: 107 },
        ControlError::Listen { path: socket(), source: io() },
        ControlError::NoSocket { first: folder("/tmp/patchtui-7"), second: folder("runs/books") },
        ControlError::Start(io()),
        ControlError::Client(io()),
        ControlError::Files { name: name(), source: io() },
        *folder("/tmp/patchtui-7"),
    ]);
    let find = [
        FindError::NotARun { path: "runs/books".into() },
        FindError::Unknown { name: "boks".into(), nearest: Some(name()) },
        FindError::Unknown { name: "boks".into(), nearest: None },
        FindError::Ambiguous { name: name(), paths: vec!["a/books".into(), "b/books".into()] },
        FindError::NoRuns,
    ];
    let mut words: Vec<_> = errors
        .iter()
        .map(|error| format!("{error}\n    {}", error.hint(Audience::Command)))
        .collect();
    words
        .extend(find.iter().map(|error| format!("{error}\n    {}", error.hint(Audience::Command))));
    for text in &words {
        let (message, hint) = text.split_once("\n    ").unwrap();
        assert!(
            !message.is_empty()
                && !message.ends_with('.')
                && message.starts_with(char::is_lowercase),
            "{message}"
        );
        assert!(!hint.is_empty() && !hint.contains("RUN") && !hint.contains("PID"), "{hint}");
    }
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn status_is_the_same_from_a_living_engine_and_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    engine.take_steps(1..=4);
    in_time(async { Client::attach(&run, "test").hear_until(|history| history.step() == 4).await });
    let alive = status(&run, "ctl").unwrap();
    assert!(alive.problem.is_none());
    assert_eq!(alive.history, History::read(&run).unwrap().0);
    drop(engine);
    let ended = status(&run, "ctl").unwrap();
    assert!(ended.problem.is_none());
    assert_eq!(ended.history.end.unwrap().outcome, Outcome::Completed);
}

/// A client that sends raw bytes.
struct RawClient(UnixStream);

impl RawClient {
    fn connect(run: &RunDirectory) -> Self {
        let stream = UnixStream::connect(EngineInfo::read(run).unwrap().socket.unwrap()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    fn attach(run: &RunDirectory) -> Self {
        let mut client = Self::connect(run);
        client.say(&frame(&ClientMessage::Hello(Hello::from_here("raw"))).unwrap());
        client.say(&frame(&ClientMessage::Attach).unwrap());
        client
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn hear(&mut self) -> Option<ServerMessage> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    /// Messages of a client, as received by a simulated engine.
    fn hear_client(&mut self) -> ClientMessage {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Why the engine closed this connection.
    fn refusal(&mut self) -> String {
        let mut refusal = String::new();
        while let Some(message) = self.hear() {
            if let ServerMessage::Refused { message } = message {
                refusal = message;
            }
        }
        refusal
    }
}

#[test]
fn a_client_that_falls_behind_gets_everything_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    let mut sleeper = RawClient::attach(&run);
    while !matches!(sleeper.hear(), Some(ServerMessage::Snapshot(_))) {}
    // More than socket buffers and the backlog can hold.
    engine.take_steps(1..=5000);
    in_time(async {
        Client::attach(&run, "test").hear_until(|history| history.step() == 5000).await;
    });
    let ending = thread::spawn(move || engine.end());
    let mut snapshots = 0;
    let mut history = History::default();
    // Some earlier records are still in flight; the snapshot that follows replaces them.
    while let Some(message) = sleeper.hear() {
        match message {
            ServerMessage::Snapshot(snapshot) => {
                snapshots += 1;
                history = *snapshot;
            }
            ServerMessage::Record(record) => {
                assert!(
                    snapshots == 0 || record.seq == history.last_seq + 1,
                    "a record is missing"
                );
                history.apply(&record);
            }
            _ => {}
        }
    }
    ending.join().unwrap();
    assert_eq!(snapshots, 1);
    assert_eq!(
        (history.step(), history.end.map(|end| end.outcome)),
        (5000, Some(Outcome::Completed))
    );
}

#[test]
fn a_server_that_missed_records_reads_them_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _lock = RunLock::acquire(&run).unwrap();
    let (events, store) = Store::open(&run).unwrap().start().unwrap();
    (1..=5).for_each(|n| events.send(step(n)));
    drop(events);
    store.join().unwrap();
    // A mailbox that was full from the first record to the fifth.
    let (mailbox, records) = tokio::sync::mpsc::channel(8);
    let subscription =
        Subscription { directory: run.clone(), history: History::default(), records };
    let (sink, _unread) = std::sync::mpsc::channel();
    let commands = command_channel().0;
    let server = Server::start(ServerSetup {
        subscription,
        commands,
        events: EventSender::new(sink),
        signals: None,
    })
    .unwrap();
    EngineInfo::of_this_process(server.socket().unwrap().to_path_buf(), PROTOCOL)
        .write(&run)
        .unwrap();
    in_time(async {
        let mut client = Client::attach(&run, "test");
        assert!(matches!(client.hear().await, Feed::Snapshot(history) if history.last_seq == 0));
        mailbox.send(Arc::new(record(6, step(6)))).await.unwrap();
        client.hear_until(|history| history.step() == 6).await;
        assert_eq!(client.history.steps.len(), 6);
    });
}

#[test]
fn a_client_that_breaks_the_rules_is_sent_away_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    let mut good = RawClient::attach(&run);
    let hello = Hello::from_here("raw");
    let long = ClientMessage::Command { id: "x".repeat(129), command: RunCommand::Pause };
    let with_long_id =
        [frame(&ClientMessage::Hello(hello.clone())).unwrap(), frame(&long).unwrap()].concat();
    let with = |hello: Hello| frame(&ClientMessage::Hello(hello)).unwrap();
    let table: [(Vec<u8>, &str); 7] = [
        (with(Hello { magic: "other".into(), ..hello.clone() }), "the other side is not patchtui"),
        (with(Hello { protocol: 7, oldest: 5, ..hello }), "the other side speaks protocol 7"),
        (frame(&ClientMessage::Attach).unwrap(), "the first message must be a greeting"),
        (u32::MAX.to_le_bytes().to_vec(), "larger than the limit"),
        (b"\x02\0\0\0{]".to_vec(), "not a valid message"),
        (
            frame(&serde_json::json!({"type": "format_disk"})).unwrap(),
            "the first message must be a greeting",
        ),
        (with_long_id, "at most 128 bytes"),
    ];
    for (bytes, reason) in table {
        let mut bad = RawClient::connect(&run);
        bad.say(&bytes);
        let refusal = bad.refusal();
        assert!(refusal.contains(reason), "{refusal:?} should say {reason:?}");
    }
    engine.take_steps([1]);
    while !matches!(good.hear().expect("the good client was sent away"), ServerMessage::Record(record) if matches!(record.event, RunEvent::StepCompleted(_)))
    {
    }
}

/// A stranger needs a place, and one that says nothing loses it to the next.
#[test]
fn hundreds_of_silent_connections_keep_no_client_out_and_stop_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    let mut good = RawClient::attach(&run);
    // Its greeting was heard, so it is no stranger.
    good.hear().expect("no greeting");
    let mut silent: Vec<RawClient> = (0..300).map(|_| RawClient::connect(&run)).collect();
    engine.take_steps([1]);
    while !matches!(good.hear().expect("the good client was sent away"), ServerMessage::Record(record) if matches!(record.event, RunEvent::StepCompleted(_)))
    {
    }
    assert_eq!(ask(&run, RunCommand::Checkpoint).unwrap(), "checkpoint of step 3");
    // The oldest were disconnected to make room: their streams have ended.
    for (number, stranger) in silent.iter_mut().take(200).enumerate() {
        assert!(
            stranger.0.read_to_end(&mut Vec::new()).is_ok(),
            "stranger {number} still has a place"
        );
    }
}

#[test]
fn a_run_that_is_not_alive_is_what_its_files_say() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    engine.take_steps(1..=2);
    drop(engine);
    in_time(async {
        let mut client = Client::attach(&run, "late");
        let Feed::Ended { history } = client.hear().await else { panic!("not ended") };
        assert_eq!(history.steps.len(), 2);
        assert!(client.link.feed.try_recv().is_err());
    });
}

#[test]
fn a_client_of_a_run_that_was_killed_follows_it_where_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    engine.take_steps(1..=2);
    let patience = Patience {
        first_retry: Duration::from_millis(10),
        resumed_yet: Duration::from_millis(10),
        ..Patience::default()
    };
    in_time(async {
        let mut client = Client {
            link: connect_with(run.clone(), "test".into(), patience),
            history: History::default(),
        };
        client.hear_until(|history| history.step() == 2).await;
        // A killed engine sends nothing at the end.
        drop(engine.store.take());
        tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
        while !matches!(client.hear().await, Feed::Ended { .. }) {}
        assert_eq!(client.history.end, None);
        let again = FakeEngine::start(&run);
        while !matches!(client.hear().await, Feed::Snapshot(_)) {}
        client.link.commands.send(("test-1".into(), RunCommand::Checkpoint)).unwrap();
        client.hear_answer("checkpoint of step 3").await;
        assert_eq!(client.history.attempt, 2);
        tokio::task::spawn_blocking(move || drop(again)).await.unwrap();
        while !matches!(client.hear().await, Feed::Ended { .. }) {}
        // On a machine that shares the files but not the lock.
        let mut log = std::fs::File::options().append(true).open(run.events()).unwrap();
        let mut later = record(1000, header(run.path(), None));
        later.attempt = 3;
        log.write_all(patchtui::record::encode(&later).unwrap().as_bytes()).unwrap();
        while !matches!(client.hear().await, Feed::Lost { reason, .. } if reason.contains("another machine"))
        {
        }
        assert_eq!(client.history.attempt, 3);
    });
}

#[test]
fn a_request_waits_for_an_engine_that_is_starting() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    // The run is resumed: the file of the previous engine still exists, but its process has ended.
    let mut gone = EngineInfo::of_this_process(folder.path().join("gone.sock"), PROTOCOL);
    gone.start_time = gone.start_time.map(|ticks| ticks + 1);
    for is_resumed in [false, true] {
        let lock = RunLock::acquire(&run).unwrap();
        if is_resumed {
            gone.write(&run).unwrap();
        }
        let asked = run.clone();
        let (sender, answer) = std::sync::mpsc::channel();
        let asking =
            thread::spawn(move || sender.send(ask(&asked, RunCommand::Checkpoint)).unwrap());
        // It keeps trying while nobody listens.
        assert!(answer.recv_timeout(Duration::from_millis(100)).is_err());
        let _engine = FakeEngine::start_with(&run, lock);
        assert_eq!(answer.recv_timeout(LIMIT).unwrap().unwrap(), "checkpoint of step 3");
        asking.join().unwrap();
    }
}

#[test]
fn a_lost_engine_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    let patience = Patience {
        first_retry: Duration::from_millis(10),
        last_retry: Duration::from_millis(20),
        ..Patience::default()
    };
    in_time(async {
        let mut client = Client {
            link: connect_with(run.clone(), "test".into(), patience),
            history: History::default(),
        };
        client.hear_until(|history| history.header.is_some()).await;
        // The server fails while the engine continues.
        drop(engine.server.take());
        while !matches!(client.hear().await, Feed::Lost { .. }) {}
        drop(engine);
        let _again = FakeEngine::start(&run);
        while !matches!(client.hear().await, Feed::Snapshot(_)) {}
        assert_eq!((client.history.attempt, client.history.end), (2, None));
    });
}

#[test]
fn an_engine_that_says_nothing_counts_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _lock = RunLock::acquire(&run).unwrap();
    let socket = folder.path().join("mute.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    EngineInfo::of_this_process(socket, PROTOCOL).write(&run).unwrap();
    let patience = Patience { silence: Duration::from_millis(50), ..Patience::default() };
    in_time(async {
        let mut link = connect_with(run.clone(), "test".into(), patience);
        let mute = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(&frame(&ServerMessage::Hello(Hello::from_here("mute"))).unwrap())
                .unwrap();
            stream
        });
        let Some(Feed::Lost { reason, retry_seconds }) = link.feed.recv().await else {
            panic!("not lost")
        };
        assert_eq!((reason.as_str(), retry_seconds), ("the engine sent nothing for 0.1 s", 0.25));
        drop(mute.await.unwrap());
    });
}
