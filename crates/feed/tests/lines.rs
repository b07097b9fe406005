//! A program that writes JSON lines, against the same documents from a streamer.

mod support;

use std::{
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
};

use candlewick_feed::{
    Batch, Documents, Feed, FeedError, FeedOptions, HeldOutEnd, LineLink, OrderKind,
    lines::{Line, LineParser},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Dataset, File, Random, batches, bytes_tokenizer, options, run, source, stream};

/// What a program writes, and how it behaves.
#[derive(Debug, Clone)]
struct Program {
    texts: Vec<Option<String>>,
    /// Texts of a line.
    batch: usize,
    /// Names the place after every batch whose number this divides; 0: never.
    positions: usize,
    /// Bytes of a read from its pipe, at most.
    chunk: usize,
    /// Runs that are cut off, each after so many bytes of its output.
    crashes: Vec<usize>,
}

impl Program {
    fn new(texts: &[&str]) -> Self {
        let texts = texts.iter().map(|text| Some((*text).to_string())).collect();
        Self { texts, batch: 2, positions: 1, chunk: 7, crashes: Vec::new() }
    }

    fn output(&self, position: Option<&str>) -> Vec<u8> {
        let position: Option<Value> = position.map(|p| serde_json::from_str(p).unwrap());
        let mut next = position.map_or(0, |p| p["next"].as_u64().unwrap() as usize);
        let mut output = b"{\"status\":\"loading\"}\n\n{\"status\":\"ready\"}\r\n".to_vec();
        let mut total = 0;
        while next < self.texts.len() {
            let texts = &self.texts[next..(next + self.batch).min(self.texts.len())];
            next += texts.len();
            total += texts.iter().flatten().filter(|text| !text.is_empty()).count();
            let mut line = json!({"batch": texts});
            if self.positions > 0 && (next / self.batch).is_multiple_of(self.positions) {
                line["position"] = json!({"next": next});
            }
            output.extend_from_slice(format!("{line}\n").as_bytes());
        }
        // No newline after the last line: it counts all the same.
        output.extend_from_slice(format!("{{\"done\":true,\"total\":{total}}}").as_bytes());
        output
    }

    /// The documents that count, as one file of a streamer.
    fn dataset(&self) -> Dataset {
        let rows =
            self.texts.iter().filter(|t| t.as_deref().is_some_and(|t| !t.is_empty())).cloned().collect();
        Dataset { files: vec![File { path: "stdout".into(), groups: vec![rows] }], row_groups: false }
    }
}

/// Plays the part of the processes on a thread of its own.
struct Runner {
    link: LineLink,
    wake: Arc<(Mutex<(bool, bool)>, Condvar)>,
    /// Every `start` command.
    starts: Arc<Mutex<Vec<Value>>>,
    thread: Option<JoinHandle<()>>,
}

struct Process {
    reading: u32,
    run: u32,
    output: Vec<u8>,
    at: usize,
    crash: Option<usize>,
    read: bool,
}

impl Runner {
    fn start(program: &Program) -> Self {
        let link = LineLink::new();
        let wake = Arc::new((Mutex::new((false, false)), Condvar::new()));
        let notify = wake.clone();
        link.on_command(move || {
            notify.0.lock().unwrap().0 = true;
            notify.1.notify_one();
        });
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (thread_link, thread_wake, log, program) =
            (link.clone(), wake.clone(), starts.clone(), program.clone());
        let thread = std::thread::spawn(move || serve(&thread_link, &thread_wake, &log, program));
        Self { link, wake, starts, thread: Some(thread) }
    }
}

fn serve(
    link: &LineLink,
    wake: &(Mutex<(bool, bool)>, Condvar),
    starts: &Mutex<Vec<Value>>,
    mut program: Program,
) {
    let mut processes: Vec<Process> = Vec::new();
    program.crashes.reverse();
    loop {
        for line in link.take_commands().lines() {
            let command: Value = serde_json::from_str(line).unwrap();
            let reading = command["reading"].as_u64().unwrap() as u32;
            match command["op"].as_str().unwrap() {
                "start" => {
                    processes.retain(|process| process.reading != reading);
                    processes.push(Process {
                        reading,
                        run: command["run"].as_u64().unwrap() as u32,
                        output: program.output(command["position"].as_str()),
                        at: 0,
                        crash: program.crashes.pop(),
                        read: command["read"].as_bool().unwrap(),
                    });
                    starts.lock().unwrap().push(command);
                }
                "read" => processes.iter_mut().filter(|p| p.reading == reading).for_each(|p| p.read = true),
                "end" => processes.retain(|process| process.reading != reading),
                _ => {}
            }
        }
        let Some(process) = processes.iter_mut().find(|process| process.read) else {
            let mut state = wake.0.lock().unwrap();
            while !state.0 && !state.1 {
                state = wake.1.wait(state).unwrap();
            }
            state.0 = false;
            if state.1 {
                return;
            }
            continue;
        };
        let end = (process.at + program.chunk).min(process.output.len());
        let (reading, run) = (process.reading, process.run);
        if process.crash.is_some_and(|crash| crash <= end) {
            process.read = false;
            assert!(!link.finish(reading, run, false).unwrap());
            link.restart(reading);
            continue;
        }
        let ended = process.at == end;
        let outcome = if ended {
            process.read = false;
            link.finish(reading, run, true).map(|done| assert!(done))
        } else {
            let chunk = &process.output[process.at..end];
            process.at = end;
            link.push(reading, run, chunk).map(|more| process.read = more || end == process.output.len())
        };
        if let Err(error) = outcome {
            process.read = false;
            link.fail_reading(reading, error);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.wake.0.lock().unwrap().1 = true;
        self.wake.1.notify_one();
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

fn lines_options(program: &Program, window: usize) -> FeedOptions {
    options(vec![source(&program.dataset())], window, 2, 16)
}

fn read_batches(
    program: &Program,
    options: &FeedOptions,
    limit: usize,
) -> (Vec<(Batch, String)>, Vec<Value>) {
    let runner = Runner::start(program);
    let (feed, mut reader) =
        Feed::batches(options, std::slice::from_ref(&runner.link), &bytes_tokenizer()).unwrap();
    let all = batches(&mut reader, limit);
    drop((reader, feed));
    let starts = runner.starts.lock().unwrap().clone();
    (all, starts)
}

fn read_documents(program: &Program) -> Result<Vec<String>, FeedError> {
    let runner = Runner::start(program);
    let mut options = lines_options(program, 10);
    (options.order, options.batches) = (OrderKind::File, None);
    let (_feed, mut documents): (Feed, Documents) =
        Feed::documents(&options, std::slice::from_ref(&runner.link)).unwrap();
    let mut all = Vec::new();
    while let Some(document) = documents.next_document()? {
        all.push(String::from_utf8(document.bytes().to_vec()).unwrap());
    }
    Ok(all)
}

fn random_program(random: &mut Random) -> Program {
    let texts = (0..random.below(2600))
        .map(|i| match random.below(12) {
            0 => None,
            1 => Some(String::new()),
            n => Some(format!("{i} ") + &"é\"\n x".repeat(random.below(n))),
        })
        .chain([Some("there is at least one document".into())])
        .collect();
    Program {
        texts,
        batch: [1, 2, 7, 100, 1500][random.below(5)],
        positions: random.below(4),
        chunk: [1, 100, 10_000][random.below(3)].max(1),
        crashes: (0..random.below(4)).map(|_| random.below(60_000)).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_program_gives_what_a_streamer_gives_through_crashes_and_from_every_state(seed: u64) {
        let mut random = Random(seed);
        let program = random_program(&mut random);
        let mut options = lines_options(&program, 1 + random.below(1500));
        options.epochs = Some(1 + random.below(3) as u64);
        let dataset = program.dataset();
        let documents = dataset.in_file_order();
        if let Some(held_out) = (documents.len() / 25).checked_sub(1) {
            let (file, group, row) = documents[held_out].0;
            let documents = held_out as u64 + 1;
            options.sources[0].held_out = Some(HeldOutEnd { file, group, row, documents });
        }
        let expected = run(&[&dataset], &options, &bytes_tokenizer(), usize::MAX);
        let (whole, _) = read_batches(&program, &options, usize::MAX);
        prop_assert_eq!(stream(&whole), stream(&expected));
        let at = random.below(whole.len());
        options.state = Some(whole[at].1.clone());
        let (rest, starts) = read_batches(&program, &options, usize::MAX);
        prop_assert!(rest.iter().map(|(b, _)| b).eq(whole[at + 1..].iter().map(|(b, _)| b)), "from batch {}", at);
        if program.positions == 1 && program.crashes.is_empty() {
            // The first start repeats less than a line.
            prop_assert!(starts[0]["repeated"].as_u64().unwrap() < program.batch as u64, "{}", starts[0]);
        }
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_divided(seed: u64, cuts in prop::collection::vec(1..200_usize, 0..50)) {
        let mut program = random_program(&mut Random(seed));
        program.texts.truncate(300);
        let mut output = program.output(None);
        // Sometimes something is damaged: the same error then has to come after the same lines.
        if seed.is_multiple_of(2) {
            let at = (seed / 2) as usize % output.len();
            output[at] = b'}';
        }
        prop_assert_eq!(parse(&output, &cuts), parse(&output, &[]));
    }

    #[test]
    fn garbage_never_panics(garbage: Vec<u8>, cuts in prop::collection::vec(1..9_usize, 0..20)) {
        let lines = [&b"{\"batch\":["[..], &garbage, b"]}\n", &garbage, b"\n{\"batch\":[\"", &garbage, b"\"]}"].concat();
        prop_assert_eq!(parse(&lines, &cuts), parse(&lines, &[]));
    }
}

/// The lines of `bytes`, pushed in pieces of the given lengths and then the rest.
fn parse(bytes: &[u8], cuts: &[usize]) -> (Vec<Line>, Option<FeedError>) {
    let (mut lines, mut parser, mut rest) = (Vec::new(), LineParser::default(), bytes);
    let mut outcome = Ok(());
    for &cut in cuts.iter().chain([&usize::MAX]) {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        rest = after;
        outcome = outcome.and_then(|()| {
            parser.push(piece, |line| {
                lines.push(line);
                Ok(())
            })
        });
    }
    outcome = outcome.and_then(|()| {
        parser.finish(|line| {
            lines.push(line);
            Ok(())
        })
    });
    (lines, outcome.err())
}

fn texts_of(line: &[u8]) -> (Vec<String>, u64) {
    match parse(line, &[]) {
        (lines, None) => match &lines[..] {
            [Line::Batch(batch)] => (
                (0..batch.rows()).map(|i| String::from_utf8(batch.document(i).to_vec()).unwrap()).collect(),
                batch.replaced,
            ),
            other => panic!("{other:?}"),
        },
        (_, Some(error)) => panic!("{error}"),
    }
}

#[test]
fn texts_may_be_spelled_in_any_way_that_json_has() {
    let line = br#" {"n":{"a":[1]},"batch":["\u00e9\n\t\/\"\\","\ud83d\udd6f","",null,"raw \u0000 NUL"]} "#;
    assert_eq!(texts_of(line), (vec!["é\n\t/\"\\".into(), "🕯".into(), "raw \0 NUL".into()], 0));
    let bad = [&br#"{"batch":["\ud800 lone","\udd6f\ud83d","ok","bad "#[..], b"\xff\xe2\x82", br#" byte"]}"#]
        .concat();
    let expected = ["\u{FFFD} lone", "\u{FFFD}\u{FFFD}", "ok", "bad \u{FFFD}\u{FFFD} byte"].map(String::from);
    assert_eq!(texts_of(&bad), (expected.to_vec(), 3));
}

#[test]
fn what_is_no_line_is_named_with_its_number_and_an_excerpt() {
    for (line, what) in [
        ("hello", "line 3 of the program's output cannot be read (expected value, column 1): hello"),
        ("[1]", "cannot be read"),
        (
            "{\"batch\":[1]}",
            "invalid type: integer `1`, expected a text or null, column 11): {\"batch\":[1]}",
        ),
        ("{\"batch\":[[1]]}", "expected a text or null"),
        ("{\"batch\":\"x\"}", "expected an array of texts"),
        ("{\"batch\":[\"x\"]", "EOF while parsing"),
        ("{\"batch\":[\"\\ud8zz\"]}", "invalid escape"),
        ("{\"batch\":[],\"batch\":[]}", "duplicate field"),
        ("{}", "has none of status, batch and done"),
        ("{\"progress\":7}", "has none of status, batch and done"),
        ("{\"batch\":[],\"status\":\"ready\"}", "has more than one"),
        ("{\"status\":\"running\"}", "status \"running\""),
        ("{\"status\":\"ready\",\"position\":1}", "has a position and no batch"),
        ("{\"done\":true}", "without a total"),
        ("{\"done\":false,\"total\":0}", "done is false"),
        ("{\"done\":true,\"total\":-1}", "expected u64"),
        ("{\"done\":true,\"total\":1.5}", "expected u64"),
    ] {
        let (_, error) = parse(format!("{{\"status\":\"ready\"}}\n\n{line}\n").as_bytes(), &[]);
        let error = error.unwrap_or_else(|| panic!("{line} is taken"));
        assert_eq!(error.code, "PROTOCOL_VIOLATION");
        assert!(error.message.starts_with("line 3 of") && error.message.contains(what), "{line}: {error}");
        assert!(error.hint.contains("\"done\":true"), "{}", error.hint);
    }
    let long = format!("{{\"batch\":[\"\"],\"position\":\"{}\"}}\n", "x".repeat(65 << 10));
    let (_, error) = parse(long.as_bytes(), &[]);
    assert!(
        error
            .unwrap()
            .message
            .contains("has a position of more than 64 KiB: {\"batch\":[\"\"],\"position\":\"xxx")
    );
}

#[test]
fn a_line_without_an_end_is_given_up_before_it_fills_memory() {
    let mut parser = LineParser::default();
    let chunk = vec![b'x'; 1 << 20];
    let outcome = (0..300).find_map(|i| parser.push(&chunk, |_| Ok(())).err().map(|error| (i, error)));
    let (pushed, error) = outcome.expect("it must not be taken");
    assert_eq!(pushed, 256);
    assert!(error.message.contains("longer than 256 MiB"), "{error}");
}

#[test]
fn a_program_that_contradicts_itself_is_not_believed() {
    let outputs: [(&str, &str); 4] = [
        ("{\"batch\":[\"a\",null,\"\"]}\n{\"done\":true,\"total\":3}\n", "the total is 3, but 1 texts came"),
        (
            "{\"done\":true,\"total\":0}\n{\"batch\":[\"a\"]}\n",
            "line 2 of the program's output comes after done",
        ),
        ("{\"batch\":[\"a\"]}\n{\"done\":true,\"total\":1}\n{\"status\":\"ready\"}\n", "line 3 of"),
        ("{\"batch\":[\"a\"]}\n{\"done\":true,\"total\":1}\nbye\n", "line 3 of"),
    ];
    for (output, what) in outputs {
        let link = LineLink::new();
        let options =
            FeedOptions { order: OrderKind::File, batches: None, ..lines_options(&Program::new(&[]), 1) };
        let wake = Arc::new((Mutex::new(false), Condvar::new()));
        let notify = wake.clone();
        link.on_command(move || {
            *notify.0.lock().unwrap() = true;
            notify.1.notify_one();
        });
        let (_feed, _documents) = Feed::documents(&options, std::slice::from_ref(&link)).unwrap();
        // The first command starts the program of reading 0.
        drop(wake.1.wait_while(wake.0.lock().unwrap(), |asked| !*asked).unwrap());
        let error = link.push(0, 1, output.as_bytes()).expect_err(output);
        assert!(error.message.contains(what), "{error}");
    }
}

#[test]
fn a_pass_that_differs_from_the_one_before_is_an_error() {
    // Started anew, this one has forgotten what came before the crash.
    let mut forgetful = Program::new(&["a", "b", "c", "d", "e"]);
    forgetful.positions = 0;
    let whole = read_documents(&forgetful).unwrap();
    assert_eq!(whole, ["a", "b", "c", "d", "e"]);

    let link = LineLink::new();
    let wake = Arc::new((Mutex::new(false), Condvar::new()));
    let notify = wake.clone();
    link.on_command(move || {
        *notify.0.lock().unwrap() = true;
        notify.1.notify_one();
    });
    let options = FeedOptions { order: OrderKind::File, batches: None, ..lines_options(&forgetful, 10) };
    let (_feed, mut documents) = Feed::documents(&options, std::slice::from_ref(&link)).unwrap();
    drop(wake.1.wait_while(wake.0.lock().unwrap(), |asked| !*asked).unwrap());
    link.push(0, 1, b"{\"batch\":[\"a\",\"b\",\"c\"]}\n").unwrap();
    assert_eq!(documents.next_document().unwrap().unwrap().bytes(), b"a");
    link.restart(0);
    let error = link.push(0, 2, b"{\"batch\":[\"a\"]}\n{\"done\":true,\"total\":1}\n").unwrap_err();
    assert!(error.message.contains("ends after 1 documents, but 3 had come before"), "{error}");
}

#[test]
fn crashes_repeat_nothing_and_start_at_the_last_position() {
    let texts: Vec<String> = (0..50).map(|i| format!("document {i}")).collect();
    let mut program = Program::new(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    program.crashes = vec![300, 200, 500];
    assert_eq!(read_documents(&program).unwrap(), texts);
    let runner = Runner::start(&program);
    let (feed, mut reader) =
        Feed::batches(&lines_options(&program, 8), std::slice::from_ref(&runner.link), &bytes_tokenizer())
            .unwrap();
    batches(&mut reader, usize::MAX);
    drop((reader, feed));
    let starts = runner.starts.lock().unwrap().clone();
    assert_eq!(starts.len(), 4);
    assert_eq!(starts[0]["position"], Value::Null);
    for start in &starts[1..] {
        // The position is handed back as the text that it was.
        let position: Value = serde_json::from_str(start["position"].as_str().unwrap()).unwrap();
        assert_eq!((&position["next"], &start["repeated"]), (&start["received"], &json!(0)));
    }
}
