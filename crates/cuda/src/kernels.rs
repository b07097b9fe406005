//! The kernels of `kernels/*.cu`: which file has which, and how each is launched.
//!
//! Formulas, shapes and arguments stand above each kernel in its source. Here are grid, block and shared memory as
//! functions of the shapes, for whoever launches them: the CUDA backend, and the test that runs the very same sources
//! on the host. All shared memory is dynamic, so that its size is known here.
//!
//! Widths are multiples of 8 (16 bytes of bf16), heads have [64 or 128 values](HEAD_DIMS), and a row that
//! [`rms_norm_backward`] takes has at most [`MAX_WIDTH`].

/// Sizes of a head that attention is compiled for.
pub const HEAD_DIMS: [usize; 2] = [64, 128];

/// Values of the longest row of [`rms_norm_backward`]: eight a thread of the largest block.
pub const MAX_WIDTH: usize = 8192;

/// Values of the partial sums that [`sum_of_squares`] writes at most.
pub const MAX_NORM_PARTIALS: usize = 1024;

/// Rows of the partial sums of weight gradients, at most. A constant, not the number of multiprocessors, so that a
/// sum has the same order on every device; four blocks for each of an H100's 132 would be 528.
const MAX_PARTS: usize = 512;

const WARP: usize = 32;

/// Shared memory that a block may have without asking the driver for more.
pub const DEFAULT_SHARED_BYTES: u32 = 48 * 1024;

/// A source file and its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its name in `kernels/`.
    pub file: &'static str,
    /// Names of its `extern "C"` kernels.
    pub kernels: &'static [&'static str],
}

/// Every source file.
pub const SOURCES: &[Source] = &[
    Source { file: "embedding.cu", kernels: &["embedding_forward", "embedding_backward"] },
    Source {
        file: "rms_norm.cu",
        kernels: &["add_rms_norm_forward", "rms_norm_backward", "reduce_partials"],
    },
    Source { file: "qk_norm_rope.cu", kernels: &["qk_norm_rope_forward", "qk_norm_rope_backward"] },
    Source { file: "attention_forward.cu", kernels: &["attention_forward_64", "attention_forward_128"] },
    Source {
        file: "attention_backward.cu",
        kernels: &[
            "attention_delta",
            "attention_backward_keys_64",
            "attention_backward_keys_128",
            "attention_backward_queries_64",
            "attention_backward_queries_128",
        ],
    },
    Source { file: "swiglu.cu", kernels: &["swiglu_forward", "swiglu_backward"] },
    Source { file: "cross_entropy.cu", kernels: &["cross_entropy", "reduce_losses"] },
    Source {
        file: "optimizer.cu",
        kernels: &["sum_of_squares", "finish_norm", "adamw", "adamw_bf16_moments", "round_to_bf16"],
    },
];

/// How a kernel is launched, but for its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, in x.
    pub block: u32,
    /// Dynamic shared memory of a block. Above [`DEFAULT_SHARED_BYTES`] the kernel's attribute
    /// `MAX_DYNAMIC_SHARED_SIZE_BYTES` must be set first.
    pub shared: u32,
}

impl Geometry {
    fn new(kernel: &'static str, grid: [usize; 2], threads: usize, shared_bytes: usize) -> Self {
        assert!(grid[0] > 0 && grid[1] > 0 && threads > 0, "{kernel} has nothing to do");
        let narrow = |n: usize| u32::try_from(n).expect("a launch's sizes fit 32 bits");
        Self {
            kernel,
            grid: [narrow(grid[0]), narrow(grid[1]), 1],
            block: narrow(threads),
            shared: narrow(shared_bytes),
        }
    }

    /// A thread for each of `n` pieces of work, in blocks of 256.
    fn flat(kernel: &'static str, n: usize) -> Self {
        Self::new(kernel, [n.div_ceil(256), 1], 256, 0)
    }
}

/// `out, ids, w, tokens, width`.
pub fn embedding_forward(tokens: usize, width: usize) -> Geometry {
    Geometry::flat("embedding_forward", tokens * width / 8)
}

/// `dw, dy, order, starts, segment_ids, width`; `segments` is the number of different ids.
pub fn embedding_backward(segments: usize, width: usize) -> Geometry {
    let threads = (width / 8).next_multiple_of(WARP).min(128);
    Geometry::new("embedding_backward", [segments, (width / 8).div_ceil(threads)], threads, 0)
}

/// `sum, y, rstd, x, delta|null, w, rows, width, eps`.
pub fn add_rms_norm_forward(rows: usize, width: usize) -> Geometry {
    let warps = (DEFAULT_SHARED_BYTES as usize / (2 * width)).clamp(1, 8);
    Geometry::new("add_rms_norm_forward", [rows.div_ceil(warps), 1], warps * WARP, warps * 2 * width)
}

/// `dx, dw_partial, dy, x, rstd, w, dresidual|null, rows, width`; `dw_partial` has a row for each block, the grid's x.
pub fn rms_norm_backward(rows: usize, width: usize) -> Geometry {
    assert!(width <= MAX_WIDTH);
    let threads = (width / 8).next_multiple_of(WARP);
    Geometry::new("rms_norm_backward", [rows.min(MAX_PARTS), 1], threads, 64 * 4)
}

/// `dw, partial, parts, stride, width`.
pub fn reduce_partials(width: usize) -> Geometry {
    Geometry::new("reduce_partials", [width.div_ceil(WARP), 1], 256, 256 * 4)
}

/// `qk, qkv, wq|null, wk|null, cos, sin, tokens, length, heads, key_value_heads, head_dim, eps`.
pub fn qk_norm_rope_forward(tokens: usize) -> Geometry {
    Geometry::new("qk_norm_rope_forward", [tokens.div_ceil(8), 1], 256, 0)
}

/// `dqkv, dw_partial, qkv, wq|null, wk|null, cos, sin, tokens, length, heads, key_value_heads, head_dim, eps`;
/// `dw_partial` has a row of 2 · `head_dim` for each block, the grid's x.
pub fn qk_norm_rope_backward(tokens: usize, head_dim: usize) -> Geometry {
    let blocks = tokens.div_ceil(8).min(MAX_PARTS);
    Geometry::new("qk_norm_rope_backward", [blocks, 1], 256, 8 * 2 * head_dim * 4)
}

/// `h, gate_up, tokens, inner`.
pub fn swiglu_forward(tokens: usize, inner: usize) -> Geometry {
    Geometry::flat("swiglu_forward", tokens * inner / 8)
}

/// `dgate_up, h|null, dh, gate_up, tokens, inner`.
pub fn swiglu_backward(tokens: usize, inner: usize) -> Geometry {
    Geometry::flat("swiglu_backward", tokens * inner / 8)
}

/// `logits, targets, losses, scale, z_loss, vocabulary, stride`.
pub fn cross_entropy(tokens: usize) -> Geometry {
    Geometry::new("cross_entropy", [tokens, 1], 512, (2 * WARP + 1) * 4)
}

/// `total, losses, tokens`.
pub fn reduce_losses() -> Geometry {
    Geometry::new("reduce_losses", [1, 1], 1024, WARP * 8)
}

/// `partials, g, n`; `partials` has a value for each block, the grid's x.
pub fn sum_of_squares(n: usize) -> Geometry {
    Geometry::new("sum_of_squares", [n.div_ceil(512 * 4).min(MAX_NORM_PARTIALS), 1], 512, WARP * 4)
}

/// `scalars, partials, loss|null, limit, count`.
pub fn finish_norm() -> Geometry {
    Geometry::new("finish_norm", [1, 1], 1024, WARP * 8)
}

/// `master, weights, m, v, g, scalars, lr, keep, beta1, beta2, correct1, correct2, eps, stochastic, seed, step, first,
/// n`.
pub fn adamw(n: usize, bf16_moments: bool) -> Geometry {
    Geometry::flat(if bf16_moments { "adamw_bf16_moments" } else { "adamw" }, n / 8)
}

/// `out, x, n`.
pub fn round_to_bf16(n: usize) -> Geometry {
    Geometry::flat("round_to_bf16", n / 8)
}

/// The tiles that a kernel of attention is compiled with.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    kernel: &'static str,
    /// Rows of the tile that a block keeps, 16 or 32 for each of its four warps.
    rows: usize,
    /// Rows of the tiles that it goes over.
    columns: usize,
}

const ATTENTION_THREADS: usize = 128;

fn pick(head_dim: usize, tiles: [Tiles; 2]) -> Tiles {
    match head_dim {
        64 => tiles[0],
        128 => tiles[1],
        _ => panic!("attention is compiled for heads of {HEAD_DIMS:?} values, not {head_dim}"),
    }
}

/// `out, lse, qk, qkv, length, heads, key_value_heads, scale`.
///
/// # Panics
/// When `head_dim` is not one of [`HEAD_DIMS`]; so do the other launches of attention.
pub fn attention_forward(batch: usize, length: usize, heads: usize, head_dim: usize) -> Geometry {
    let tiles = pick(
        head_dim,
        [
            Tiles { kernel: "attention_forward_64", rows: 128, columns: 64 },
            Tiles { kernel: "attention_forward_128", rows: 128, columns: 48 },
        ],
    );
    let bytes = (tiles.rows + 2 * tiles.columns) * head_dim * 2;
    Geometry::new(tiles.kernel, [batch * heads, length.div_ceil(tiles.rows)], ATTENTION_THREADS, bytes)
}

/// `delta, dout, out, tokens, length, heads, head_dim`.
pub fn attention_delta(tokens: usize, heads: usize, head_dim: usize) -> Geometry {
    Geometry::flat("attention_delta", tokens * heads * head_dim / 8)
}

/// `dqkv, qk, qkv, dout, lse, delta, length, heads, key_value_heads, scale`: writes the keys' and values' parts.
pub fn attention_backward_keys(
    batch: usize,
    length: usize,
    key_value_heads: usize,
    head_dim: usize,
) -> Geometry {
    let tiles = pick(
        head_dim,
        [
            Tiles { kernel: "attention_backward_keys_64", rows: 64, columns: 64 },
            Tiles { kernel: "attention_backward_keys_128", rows: 64, columns: 64 },
        ],
    );
    let bytes = (2 * tiles.rows + 4 * tiles.columns) * head_dim * 2 + 4 * tiles.columns * 4;
    let grid = [batch * key_value_heads, length.div_ceil(tiles.rows)];
    Geometry::new(tiles.kernel, grid, ATTENTION_THREADS, bytes)
}

/// `dqkv, qk, qkv, dout, lse, delta, length, heads, key_value_heads, scale`: writes the queries' part.
pub fn attention_backward_queries(batch: usize, length: usize, heads: usize, head_dim: usize) -> Geometry {
    let tiles = pick(
        head_dim,
        [
            Tiles { kernel: "attention_backward_queries_64", rows: 128, columns: 64 },
            Tiles { kernel: "attention_backward_queries_128", rows: 64, columns: 64 },
        ],
    );
    let bytes = (2 * tiles.rows + 4 * tiles.columns) * head_dim * 2;
    Geometry::new(tiles.kernel, [batch * heads, length.div_ceil(tiles.rows)], ATTENTION_THREADS, bytes)
}
