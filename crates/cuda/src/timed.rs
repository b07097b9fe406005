//! A GPU that is asked how long each piece of work took: it waits after each, so that the whole is slower.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{Gpu, Launch, Product, Queue, Span, Trouble};

/// Calls and their time, by the name of a kernel or `product`, `zero`, `copy`.
pub type Times = Arc<Mutex<BTreeMap<&'static str, (u64, Duration)>>>;

/// A GPU and the times of its work.
#[derive(Debug)]
pub struct Timed {
    gpu: Gpu,
    times: Times,
}

impl Timed {
    /// Adds the times of what `gpu` does from now on to `times`.
    pub fn new(gpu: Gpu, times: Times) -> Self {
        Self { gpu, times }
    }

    fn time(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Gpu) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let began = Instant::now();
        work(&mut self.gpu)?;
        self.gpu.wait()?;
        let mut times = self.times.lock().expect("nobody panics with it");
        let (calls, sum) = times.entry(name).or_default();
        *calls += 1;
        *sum += began.elapsed();
        Ok(())
    }
}

impl Queue for Timed {
    fn launch(&mut self, launch: &Launch) -> Result<(), Trouble> {
        self.time(launch.geometry.kernel, |gpu| gpu.launch(launch))
    }

    fn product(&mut self, product: &Product) -> Result<(), Trouble> {
        self.time("product", |gpu| gpu.product(product))
    }

    fn zero(&mut self, span: Span) -> Result<(), Trouble> {
        self.time("zero", |gpu| gpu.zero(span))
    }

    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), Trouble> {
        self.time("copy", |gpu| gpu.upload(to, bytes))
    }

    fn ask(&mut self, from: Span) -> Result<(), Trouble> {
        self.time("copy", |gpu| gpu.ask(from))
    }

    fn answer(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        self.gpu.answer(into)
    }

    fn download(&self, from: Span, into: &mut [u8]) -> Result<(), Trouble> {
        self.gpu.download(from, into)
    }
}
