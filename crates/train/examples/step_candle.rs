//! candle's autograd as a side of `npm run bench:step`: the model in its primitive operations, its AdamW, and clipping.
//! The protocol is that of `step_side`: THREADS SPEC; candle takes the threads from RAYON_NUM_THREADS.

#[path = "../../model/tests/plain/mod.rs"]
mod plain;
#[path = "step/protocol.rs"]
mod protocol;

use candle_core::{DType, Device, Result, Tensor, Var, backprop::GradStore};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use candlewick_model::{Random, Transformer};
use plain::Plain;
use protocol::Spec;
use std::{error::Error, time::Instant};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let (_, Spec { model, rows, length }) = protocol::arguments()?;
    let transformer = Transformer::new(model.clone(), 1, &Device::Cpu)?;
    let plain = Plain::new(&model, transformer.parameters(), DType::F32)?;
    let parameters = model.parameter_count().total;
    drop(transformer);
    let mut random = Random::stream(1, "ids");
    let mut ids = || -> Vec<u32> {
        (0..rows * length).map(|_| (random.bits() % model.vocab_size as u64) as u32).collect()
    };
    let inputs = Tensor::from_vec(ids(), (rows, length), &Device::Cpu)?;
    let targets = Tensor::from_vec(ids(), rows * length, &Device::Cpu)?;
    let mut step = Step::new(plain, inputs, targets)?;
    protocol::answer("candle's autograd 0.11.1", parameters, || {
        let began = Instant::now();
        step.run()?;
        Ok(began.elapsed().as_secs_f64())
    })
}

struct Step {
    plain: Plain,
    inputs: Tensor,
    targets: Tensor,
    vars: Vec<Var>,
    optimizers: [AdamW; 2],
}

impl Step {
    fn new(plain: Plain, inputs: Tensor, targets: Tensor) -> Result<Self> {
        let vars: Vec<Var> = plain.vars.values().cloned().collect();
        let optimizer = |matrices: bool, weight_decay: f64| {
            let vars = vars.iter().filter(|var| (var.dims().len() == 2) == matrices).cloned().collect();
            AdamW::new(vars, ParamsAdamW { lr: 1e-6, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay })
        };
        let optimizers = [optimizer(true, 0.1)?, optimizer(false, 0.0)?];
        Ok(Self { plain, inputs, targets, vars, optimizers })
    }

    fn run(&mut self) -> Result<()> {
        let logits = self.plain.forward(&self.inputs)?.flatten_to(1)?;
        let mut gradients = candle_nn::loss::cross_entropy(&logits, &self.targets)?.backward()?;
        self.clip(&mut gradients, 1.0)?;
        self.optimizers.iter_mut().try_for_each(|optimizer| optimizer.step(&gradients))
    }

    fn clip(&self, gradients: &mut GradStore, limit: f64) -> Result<()> {
        let mut squares = 0.0;
        for var in &self.vars {
            if let Some(gradient) = gradients.get(var) {
                squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let factor = (limit / (squares.sqrt() + 1e-6)).min(1.0);
        for var in &self.vars {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * factor)?);
            }
        }
        Ok(())
    }
}
