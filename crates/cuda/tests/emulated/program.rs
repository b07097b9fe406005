//! Launches of kernels in the compiled programs.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use candlewick_cuda::kernels::Geometry;
use half::bf16;

use crate::{
    toolchain::{self, Watch},
    values::SEED,
};

/// In which order the threads of a block run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Forward,
    Reverse,
    Shuffled,
    /// Shuffled, and interrupted between accesses; only the record of accesses knows them.
    Fine,
}

/// An argument of a kernel, by its C++ type.
#[derive(Debug, Clone)]
pub(crate) enum Argument<'a> {
    Int(i32),
    Long(i64),
    Unsigned(u64),
    Float(f32),
    /// Rounded to bf16.
    Bf16(&'a [f32]),
    F32(&'a [f32]),
    U32(&'a [u32]),
    F64(&'a [f64]),
    /// So many values that hold nothing.
    NewBf16(usize),
    NewF32(usize),
    Null,
    /// The same memory as an argument before, of bf16.
    Same(usize),
}

use Argument::{Bf16, F32, F64, Float, Int, Long, NewBf16, NewF32, Null, Same, U32, Unsigned};

impl Argument<'_> {
    fn write(&self, to: &mut Vec<u8>) {
        let (how, kind, bits, contents): (u8, u8, u64, Vec<u8>) = match *self {
            Int(value) => (0, b'i', u64::from(value.cast_unsigned()), vec![]),
            Long(value) => (0, b'l', value.cast_unsigned(), vec![]),
            Unsigned(value) => (0, b'q', value, vec![]),
            Float(value) => (0, b'f', u64::from(value.to_bits()), vec![]),
            Bf16(values) => {
                let bytes: Vec<_> = values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
                (1, b'b', bytes.len() as u64, bytes)
            }
            F32(values) => {
                (1, b'f', values.len() as u64 * 4, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            U32(values) => {
                (1, b'u', values.len() as u64 * 4, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            F64(values) => {
                (1, b'd', values.len() as u64 * 8, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            NewBf16(count) => (2, b'b', count as u64 * 2, vec![]),
            NewF32(count) => (2, b'f', count as u64 * 4, vec![]),
            Null => (3, 0, 0, vec![]),
            Same(argument) => (4, b'b', argument as u64, vec![]),
        };
        to.extend([how, kind]);
        to.extend(bits.to_le_bytes());
        to.extend(contents);
    }

    /// Bytes and type of a buffer; none of what is not one.
    fn buffer(&self) -> Option<(usize, Kind)> {
        match *self {
            Bf16(values) => Some((values.len() * 2, Kind::Bf16)),
            F32(values) => Some((values.len() * 4, Kind::F32)),
            U32(values) => Some((values.len() * 4, Kind::U32)),
            F64(values) => Some((values.len() * 8, Kind::F64)),
            NewBf16(count) => Some((count * 2, Kind::Bf16)),
            NewF32(count) => Some((count * 4, Kind::F32)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bf16,
    F32,
    U32,
    F64,
}

/// A buffer after a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buffer {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Buffer {
    /// Its values, of either type of float.
    pub(crate) fn floats(&self) -> Vec<f32> {
        match self.kind {
            Kind::Bf16 => self.bytes.as_chunks().0.iter().map(|&x| bf16::from_le_bytes(x).to_f32()).collect(),
            Kind::F32 => self.bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            Kind::U32 | Kind::F64 => panic!("the buffer is one of {:?}", self.kind),
        }
    }

    /// Its values of f64.
    pub(crate) fn doubles(&self) -> Vec<f64> {
        assert_eq!(self.kind, Kind::F64);
        self.bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect()
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<JoinHandle<String>>,
}

impl Program {
    pub(crate) fn start(path: &Path) -> Self {
        let mut child = Command::new(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Locals of a fiber that has ended are of no use to anybody: no copies of them.
            .env("ASAN_OPTIONS", "detect_stack_use_after_return=0")
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout is a pipe"));
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What came before an error is still worth showing.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, stdin, stdout, stderr: Some(stderr) }
    }

    /// The buffers among the arguments as the kernel left them, or what the program said as it ended.
    pub(crate) fn launch(
        &mut self,
        geometry: Geometry,
        order: Order,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Buffer>, String> {
        let mut request = Vec::new();
        let word = |request: &mut Vec<u8>, value: u32| request.extend(value.to_le_bytes());
        word(&mut request, u32::try_from(geometry.kernel.len()).expect("a name is short"));
        request.extend(geometry.kernel.as_bytes());
        for value in geometry.grid.into_iter().chain([geometry.block, geometry.shared, order as u32]) {
            word(&mut request, value);
        }
        request.extend(SEED.to_le_bytes());
        word(&mut request, u32::try_from(arguments.len()).expect("arguments are few"));
        for argument in arguments {
            argument.write(&mut request);
        }
        self.exchange(&request, arguments).map_err(|error| {
            self.stdin = None;
            let text = self.stderr.take().and_then(|stderr| stderr.join().ok()).unwrap_or_default();
            let status =
                self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            format!("{} in {order:?} order: {error} ({status})\n{text}", geometry.kernel)
        })
    }

    fn exchange(&mut self, request: &[u8], arguments: &[Argument<'_>]) -> io::Result<Vec<Buffer>> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(request)?;
        stdin.flush()?;
        let mut buffers = Vec::new();
        for (bytes, kind) in arguments.iter().filter_map(Argument::buffer) {
            let mut buffer = Buffer { kind, bytes: vec![0; bytes] };
            self.stdout.read_exact(&mut buffer.bytes)?;
            buffers.push(buffer);
        }
        Ok(buffers)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program ends with its stdin.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Both programs, and every order.
#[derive(Debug)]
pub(crate) struct Machine {
    sanitized: Program,
    shadowed: Program,
}

impl Machine {
    pub(crate) fn start() -> Self {
        let start = |watch| Program::start(&toolchain::program(watch));
        Self { sanitized: start(Watch::Sanitizers), shadowed: start(Watch::Shadow) }
    }

    /// The buffers among the arguments as the kernel left them, the same in every order and program.
    pub(crate) fn launch(&mut self, geometry: Geometry, arguments: &[Argument<'_>]) -> Vec<Buffer> {
        let runs = [
            (Watch::Sanitizers, Order::Forward),
            (Watch::Sanitizers, Order::Reverse),
            (Watch::Sanitizers, Order::Shuffled),
            (Watch::Shadow, Order::Forward),
            (Watch::Shadow, Order::Fine),
        ];
        let mut first: Option<Vec<Buffer>> = None;
        for (watch, order) in runs {
            let program = match watch {
                Watch::Sanitizers => &mut self.sanitized,
                Watch::Shadow => &mut self.shadowed,
            };
            let buffers =
                program.launch(geometry, order, arguments).unwrap_or_else(|error| panic!("{error}"));
            match &first {
                None => first = Some(buffers),
                Some(first) => assert!(
                    *first == buffers,
                    "{} gives other results with {watch:?} in {order:?} order than forward (seed {SEED})",
                    geometry.kernel
                ),
            }
        }
        first.expect("the kernel was launched")
    }
}
