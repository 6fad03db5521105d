//! Clients and an engine over a real socket, with a trainer that only pretends.

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use patchtui::control::{
    ClientMessage, ControlError, EngineLink, Feed, Hello, PROTOCOL, Patience, Server, ServerMessage, ServerSetup, connect, connect_with, frame, request, status,
};
use patchtui::run::{
    CommandNote, EngineInfo, EventSender, History, Inbox, Outcome, RunCommand, RunDirectory, RunEvent, RunLock, Store, StoreHandle, Subscription,
    command_channel,
};

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
        let lock = RunLock::acquire(run).unwrap();
        let mut store = Store::open(run).unwrap();
        let subscription = store.subscribe();
        let (events, handle) = store.start().unwrap();
        let (commands, inbox) = command_channel();
        let server = Server::start(ServerSetup { subscription, commands, events: events.clone(), signals: None }).unwrap();
        EngineInfo::of_this_process(server.socket().to_path_buf(), PROTOCOL).write(run).unwrap();
        events.send(header(run.path(), None));
        let talk = events.clone();
        let trainer = thread::spawn(move || obey_until_the_end(&inbox, &talk));
        Self { events, store: Some(handle), server: Some(server), trainer: Some(trainer), lock: Some(lock) }
    }

    fn take_steps(&self, steps: impl IntoIterator<Item = u64>) {
        steps.into_iter().for_each(|n| self.events.send(step(n)));
    }

    /// Ends as an engine's process does; the lock goes last.
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

/// Accepts every command, does all but one, and ends when nobody can command any more.
fn obey_until_the_end(inbox: &Inbox, events: &EventSender) {
    while let Some(asked) = inbox.wait(LIMIT) {
        let note = |message: &str| CommandNote { id: asked.id.clone(), command: asked.command, from: asked.from.clone(), step: 3, message: message.into() };
        events.send(RunEvent::CommandAccepted(note("")));
        events.send(match asked.command {
            RunCommand::Sample => RunEvent::CommandFailed(note("there are no prompts")),
            command => RunEvent::CommandDone(note(&format!("{command} of step 3"))),
        });
    }
}

fn new_run(folder: &tempfile::TempDir) -> RunDirectory {
    RunDirectory::create(folder.path().join("books")).unwrap()
}

/// Runs `test` on a runtime of its own, at most for [`LIMIT`].
fn in_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") })
}

/// A client that folds what it hears.
struct Client {
    link: EngineLink,
    history: History,
}

impl Client {
    fn attach(run: &RunDirectory, name: &str) -> Self {
        Self { link: connect(run.clone(), name.into()), history: History::default() }
    }

    async fn hear(&mut self) -> Feed {
        let feed = self.link.feed.recv().await.expect("the feed ended");
        match &feed {
            Feed::Snapshot(history) | Feed::Ended { history } => self.history = (**history).clone(),
            Feed::Record(record) => {
                assert_eq!(record.seq, self.history.last_seq + 1, "a record was left out");
                self.history.apply(record);
            }
            Feed::Heard | Feed::Lost { .. } => {}
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
                feed => assert!(matches!(feed, Feed::Record(_) | Feed::Heard), "{feed:?}"),
            }
        };
        finished.await.unwrap();
        assert_eq!(*ending, History::read(&run).unwrap().0);
        assert_eq!((ending.steps.len(), ending.end.map(|end| end.outcome)), (6, Some(Outcome::Completed)));
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
            client.hear_answer(&format!("pause asked by alice (pid {})", std::process::id())).await;
            client.hear_answer("evaluate asked by bob").await;
        }
    });
}

#[test]
fn a_request_waits_for_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    assert_eq!(request(&run, RunCommand::Checkpoint, "ctl", LIMIT).unwrap(), "checkpoint of step 3");
    let refused = request(&run, RunCommand::Sample, "ctl", LIMIT).unwrap_err();
    assert_eq!(refused.to_string(), "sample failed: there are no prompts");
    drop(engine);
    let late = request(&run, RunCommand::Checkpoint, "ctl", LIMIT).unwrap_err();
    assert_eq!(late.to_string(), "the run \"books\" is not alive");
    assert!(late.hint().contains("--resume"));
}

#[test]
fn a_request_that_is_not_answered_says_whether_it_was_heard() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let _lock = RunLock::acquire(&run).unwrap();
    let mut store = Store::open(&run).unwrap();
    let subscription = store.subscribe();
    let (events, _store) = store.start().unwrap();
    // Nobody reads the inbox: the trainer is deep in a step.
    let (commands, _inbox) = command_channel();
    let server = Server::start(ServerSetup { subscription, commands, events, signals: None }).unwrap();
    EngineInfo::of_this_process(server.socket().to_path_buf(), PROTOCOL).write(&run).unwrap();
    let silent = request(&run, RunCommand::Evaluate, "ctl", Duration::from_millis(200)).unwrap_err();
    assert!(matches!(silent, ControlError::NoAnswer { accepted: false, .. }), "{silent}");
}

#[test]
fn status_is_the_same_from_a_living_engine_and_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let engine = FakeEngine::start(&run);
    engine.take_steps(1..=4);
    in_time(async { Client::attach(&run, "test").hear_until(|history| history.step() == 4).await });
    let alive = status(&run, "ctl").unwrap();
    assert_eq!(alive, History::read(&run).unwrap().0);
    drop(engine);
    assert_eq!(status(&run, "ctl").unwrap().end.unwrap().outcome, Outcome::Completed);
}

/// A client that speaks bytes.
struct RawClient(UnixStream);

impl RawClient {
    fn connect(run: &RunDirectory) -> Self {
        let stream = UnixStream::connect(EngineInfo::read(run).unwrap().socket).unwrap();
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

    /// Why the engine sent this client away.
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
    // More than socket buffers and the backlog hold together.
    engine.take_steps(1..=5000);
    in_time(async { Client::attach(&run, "test").hear_until(|history| history.step() == 5000).await });
    let ending = thread::spawn(move || engine.end());
    let mut snapshots = 0;
    let mut history = History::default();
    // Some records of before are still under way; the snapshot that follows them replaces them.
    while let Some(message) = sleeper.hear() {
        match message {
            ServerMessage::Snapshot(snapshot) => {
                snapshots += 1;
                history = *snapshot;
            }
            ServerMessage::Record(record) => {
                assert!(snapshots == 0 || record.seq == history.last_seq + 1, "a record was left out");
                history.apply(&record);
            }
            _ => {}
        }
    }
    ending.join().unwrap();
    assert_eq!(snapshots, 1);
    assert_eq!((history.step(), history.end.map(|end| end.outcome)), (5000, Some(Outcome::Completed)));
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
    let subscription = Subscription { directory: run.clone(), history: History::default(), records };
    let (sink, _unread) = std::sync::mpsc::channel();
    let commands = command_channel().0;
    let server = Server::start(ServerSetup { subscription, commands, events: EventSender::new(sink), signals: None }).unwrap();
    EngineInfo::of_this_process(server.socket().to_path_buf(), PROTOCOL).write(&run).unwrap();
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
    let with = |hello: Hello| frame(&ClientMessage::Hello(hello)).unwrap();
    let table: [(Vec<u8>, &str); 6] = [
        (with(Hello { magic: "other".into(), ..hello.clone() }), "the other side is not patchtui"),
        (with(Hello { protocol: 7, ..hello }), "the other side speaks protocol 7"),
        (frame(&ClientMessage::Attach).unwrap(), "the first message must be a greeting"),
        (u32::MAX.to_le_bytes().to_vec(), "larger than the limit"),
        (b"\x02\0\0\0{]".to_vec(), "not a message"),
        (frame(&serde_json::json!({"type": "format_disk"})).unwrap(), "not a message"),
    ];
    for (bytes, reason) in table {
        let mut bad = RawClient::connect(&run);
        bad.say(&bytes);
        let refusal = bad.refusal();
        assert!(refusal.contains(reason), "{refusal:?} should say {reason:?}");
    }
    engine.take_steps([1]);
    while !matches!(good.hear().expect("the good client was sent away"), ServerMessage::Record(record) if matches!(record.event, RunEvent::StepCompleted(_))) {}
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
        assert!(client.link.feed.recv().await.is_none());
    });
}

#[test]
fn a_lost_engine_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = new_run(&folder);
    let mut engine = FakeEngine::start(&run);
    let patience = Patience { first_retry: Duration::from_millis(10), last_retry: Duration::from_millis(20), ..Patience::default() };
    in_time(async {
        let mut client = Client { link: connect_with(run.clone(), "test".into(), patience), history: History::default() };
        client.hear_until(|history| history.header.is_some()).await;
        // The door breaks while the engine lives on.
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
            stream.write_all(&frame(&ServerMessage::Hello(Hello::from_here("mute"))).unwrap()).unwrap();
            stream
        });
        let Some(Feed::Lost { reason, retry_seconds }) = link.feed.recv().await else { panic!("not lost") };
        assert_eq!((reason.as_str(), retry_seconds), ("the engine has been silent for 0.1 s", 0.25));
        drop(mute.await.unwrap());
    });
}
