//! What the stream refuses, and that it says why.

mod support;

use candlewick_feed::{
    Batch, Feed, FeedError, FeedOptions, HeldOutEnd, Link, OrderKind,
    frame::{HEADER, Kind, Parser, write_frame},
};
use proptest::prelude::*;
use support::*;

/// Runs until the error that has to come.
fn failure(dataset: &Dataset, options: &FeedOptions) -> FeedError {
    let streamer = Streamer::start(dataset, 10);
    let links = [streamer.link.clone()];
    let (_feed, mut reader) = match Feed::batches(options, &links, &bytes_tokenizer()) {
        Ok(started) => started,
        Err(error) => return error,
    };
    let mut batch = Batch::default();
    loop {
        match reader.next(&mut batch, &mut |_| ()) {
            Ok(candlewick_feed::Next::Filled) => {}
            Ok(other) => panic!("ended with {other:?} instead of an error"),
            Err(error) => return error,
        }
    }
}

fn one_file(rows: &[Option<&str>]) -> Dataset {
    let rows = rows.iter().map(|r| r.map(String::from)).collect();
    Dataset { files: vec![File { path: "a".into(), groups: vec![rows] }], row_groups: true }
}

#[test]
fn a_dataset_without_text_is_an_error_not_an_endless_wait() {
    let dataset = one_file(&[None, Some(""), None]);
    let mut options = options(vec![source(&dataset)], 10, 1, 4);
    options.epochs = None;
    assert_eq!(failure(&dataset, &options).code, "DATASET_EMPTY");
    let nothing = Dataset { files: vec![], row_groups: true };
    let options = FeedOptions { sources: vec![source(&nothing)], ..options };
    assert_eq!(failure(&nothing, &options).code, "DATASET_EMPTY");
}

#[test]
fn holding_out_more_than_a_twentieth_of_a_finite_source_is_an_error() {
    let rows: Vec<_> = (0..30).map(|_| Some("text")).collect();
    let dataset = one_file(&rows);
    let mut source = source(&dataset);
    source.held_out = Some(HeldOutEnd { file: 0, group: 0, row: 1, documents: 2 });
    let error = failure(&dataset, &options(vec![source], 10, 1, 4));
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.message.contains("2 of the 30 documents"), "{}", error.message);
}

#[test]
fn a_state_of_another_stream_is_refused_naming_the_key() {
    let dataset = one_file(&[Some("one"), Some("two"), Some("three")]);
    let mut options = options(vec![source(&dataset)], 10, 1, 2);
    options.sources[0].identity.insert("data.dataset".into(), "a/b".into());
    let state = run(&[&dataset], &options, &bytes_tokenizer(), 1)[0].1.clone();
    options.state = Some(state.clone());
    type Change = fn(&mut FeedOptions);
    let changed: [(&str, Change); 4] = [
        ("data.seed", |o| o.seed = 8),
        ("data.shuffle_buffer_size", |o| o.shuffle_buffer_size = 11),
        ("data.dataset", |o| drop(o.sources[0].identity.insert("data.dataset".into(), "a/c".into()))),
        ("digest of the file list", |o| o.sources[0].files.push("b".into())),
    ];
    for (key, change) in changed {
        let mut other = options.clone();
        change(&mut other);
        let error = failure(&dataset, &other);
        assert_eq!(error.code, "RESUME_MISMATCH");
        assert!(error.message.starts_with(key), "{}", error.message);
    }
    let other = state.replace("\"version\":2", "\"version\":9");
    assert_ne!(other, state);
    options.state = Some(other);
    assert_eq!(failure(&dataset, &options).code, "CHECKPOINT_CORRUPT");
    options.state = Some(state[..state.len() / 2].into());
    assert_eq!(failure(&dataset, &options).code, "CHECKPOINT_CORRUPT");
}

#[test]
fn a_failure_of_the_source_reaches_the_reader_as_it_is() {
    let dataset = one_file(&[Some("one")]);
    let link = Link::new();
    let options = options(vec![source(&dataset)], 10, 1, 4);
    let (_feed, mut reader) =
        Feed::batches(&options, std::slice::from_ref(&link), &bytes_tokenizer()).unwrap();
    let gone = FeedError::new("SOURCE_UNAVAILABLE", "the hub is gone", "wait");
    link.fail(gone.clone());
    assert_eq!(reader.next(&mut Batch::default(), &mut |_| ()).unwrap_err(), gone);
}

#[test]
fn an_interrupt_ends_a_wait_for_tokens_and_nothing_is_lost() {
    let dataset = one_file(&[Some("one"), Some("two")]);
    let link = Link::new();
    let options = options(vec![source(&dataset)], 10, 1, 4);
    let (_feed, mut reader) =
        Feed::batches(&options, std::slice::from_ref(&link), &bytes_tokenizer()).unwrap();
    let interrupt = reader.interrupt();
    let raised = std::thread::spawn({
        let interrupt = interrupt.clone();
        move || interrupt.raise()
    });
    assert_eq!(reader.next(&mut Batch::default(), &mut |_| ()).unwrap(), candlewick_feed::Next::Interrupted);
    raised.join().unwrap();
    link.fail(FeedError::new("ABORTED", "over", "nothing"));
}

#[test]
fn a_feed_closes_while_its_source_is_silent() {
    let dataset = one_file(&[Some("one")]);
    let link = Link::new();
    let options =
        FeedOptions { order: OrderKind::File, batches: None, ..options(vec![source(&dataset)], 1, 1, 1) };
    let (mut feed, mut documents) = Feed::documents(&options, std::slice::from_ref(&link)).unwrap();
    feed.close();
    assert_eq!(documents.next_document().err().map(|e| e.code).as_deref(), Some("ABORTED"));
}

#[test]
fn a_respawned_streamer_is_asked_for_what_its_predecessor_owed() {
    let dataset = one_file(&[Some("one"), Some("two"), Some("three"), Some("four")]);
    let link = Link::new();
    let options =
        FeedOptions { order: OrderKind::File, batches: None, ..options(vec![source(&dataset)], 1, 1, 1) };
    let (requested, asked) = std::sync::mpsc::channel();
    link.on_request(move || requested.send(()).unwrap());
    let (_feed, mut documents) = Feed::documents(&options, std::slice::from_ref(&link)).unwrap();
    asked.recv().unwrap();
    assert_eq!(link.take_requests(), "{\"file\":0,\"id\":0,\"op\":\"file\"}\n");
    link.push(&write_frame(Kind::File, 0, br#"{"id":0,"file":0,"row_groups":[4]}"#, &[])).unwrap();
    asked.recv().unwrap();
    assert!(link.take_requests().contains("\"row\":0,\"rows\":4"));
    let json = br#"{"id":1,"file":0,"group":0,"row":0,"rows":1,"end":false,"eof":false}"#;
    link.push(&write_frame(Kind::Batch, 1, json, b"\0\0\0\0\x03\0\0\0one")).unwrap();
    // Half a frame, then the process dies.
    link.push(&write_frame(Kind::Heartbeat, 2, b"{}", &[])[..10]).unwrap();
    link.restart();
    assert!(link.take_requests().contains("\"row\":1,\"rows\":3"));
    let json = br#"{"id":1,"file":0,"group":0,"row":1,"rows":3,"end":true,"eof":true}"#;
    link.push(&write_frame(Kind::Batch, 0, json, b"\0\0\0\0\x03\0\0\0\x08\0\0\0\x0c\0\0\0twothreefour"))
        .unwrap();
    let mut texts = Vec::new();
    while let Some(document) = documents.next_document().unwrap() {
        texts.push(String::from_utf8(document.bytes().to_vec()).unwrap());
    }
    assert_eq!(texts, ["one", "two", "three", "four"]);
}

proptest! {
    #[test]
    fn frames_survive_any_cutting_into_chunks(
        frames in proptest::collection::vec((0_u8..8, proptest::collection::vec(any::<u8>(), 0..300)), 0..6),
        cut in 1_usize..70,
    ) {
        let kinds = [Kind::Loading, Kind::Ready, Kind::File, Kind::Batch, Kind::Progress, Kind::Heartbeat, Kind::Error, Kind::Done];
        let bytes: Vec<u8> = frames.iter().enumerate()
            .flat_map(|(i, (kind, binary))| write_frame(kinds[*kind as usize], i as u32, b"{}", binary)).collect();
        let (mut parser, mut seen) = (Parser::default(), Vec::new());
        for chunk in bytes.chunks(cut) {
            parser.push(chunk, |frame| seen.push((frame.kind as u8 - 1, frame.binary().to_vec()))).unwrap();
        }
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn no_single_flipped_bit_passes(binary in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = write_frame(Kind::Batch, 0, b"{}", &binary);
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        // A flipped length may ask for more bytes: then the frame never completes, and what follows cannot pass either.
        bytes.extend(write_frame(Kind::Done, 1, b"{}", &[]));
        let mut passed = Vec::new();
        let outcome = Parser::default().push(&bytes, |frame| passed.push(frame.kind));
        prop_assert!(outcome.is_err() || passed.is_empty());
        // The two reserved bytes are under the checksum as well.
        prop_assert!(bytes.len() >= HEADER);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Parser::default().push(&bytes, |_| ());
        let mut framed = b"CWK1\x01\x04".to_vec();
        framed.extend(bytes);
        let _ = Link::new().push(&framed);
    }

    #[test]
    fn no_batch_makes_the_link_panic(binary in proptest::collection::vec(any::<u8>(), 0..60), rows in 0_usize..12) {
        let dataset = one_file(&[Some("one")]);
        let link = Link::new();
        let options = FeedOptions { order: OrderKind::File, batches: None, ..options(vec![source(&dataset)], 1, 1, 1) };
        let (requested, asked) = std::sync::mpsc::channel();
        link.on_request(move || requested.send(()).unwrap_or(()));
        let (_feed, documents) = Feed::documents(&options, std::slice::from_ref(&link)).unwrap();
        asked.recv().unwrap();
        link.push(&write_frame(Kind::File, 0, br#"{"id":0,"file":0,"row_groups":[12]}"#, &[])).unwrap();
        asked.recv().unwrap();
        let json = format!(r#"{{"id":1,"file":0,"group":0,"row":0,"rows":{rows},"end":true,"eof":true}}"#);
        let _ = link.push(&write_frame(Kind::Batch, 1, json.as_bytes(), &binary));
        drop(documents);
    }
}
