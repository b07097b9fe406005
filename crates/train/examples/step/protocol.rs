//! What the sides of `npm run bench:step` have in common: a line on stdin asks for so many steps, a line of JSON on
//! stdout answers with their seconds. `bench/step/peer.py` speaks the same.

use candlewick_model::ModelConfig;
use serde::Deserialize;
use serde_json::json;
use std::{error::Error, io};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What to train: a model, sequences a step, tokens a sequence.
#[derive(Deserialize)]
pub(crate) struct Spec {
    pub(crate) model: ModelConfig,
    pub(crate) rows: usize,
    pub(crate) length: usize,
}

/// THREADS SPEC, SPEC as JSON.
pub(crate) fn arguments() -> Outcome<(usize, Spec)> {
    let mut arguments = std::env::args().skip(1);
    let (threads, spec) = (arguments.next().ok_or("THREADS")?, arguments.next().ok_or("SPEC")?);
    Ok((threads.parse()?, serde_json::from_str(&spec)?))
}

/// Warms up, then answers until stdin ends.
pub(crate) fn answer(version: &str, parameters: u64, mut step: impl FnMut() -> Outcome<f64>) -> Outcome<()> {
    for _ in 0..2 {
        step()?;
    }
    println!("{}", json!({ "version": version, "parameters": parameters }));
    for line in io::stdin().lines() {
        let count = line?.trim().parse::<usize>()?;
        let seconds = (0..count).map(|_| step()).collect::<Outcome<Vec<f64>>>()?;
        println!("{}", json!({ "seconds": seconds, "peak_bytes": peak_bytes() }));
    }
    Ok(())
}

/// The most memory that this process has had resident; `None` where nobody says (not on Linux).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}
