//! Products of matrices by cuBLASLt: a plan for each shape, whose algorithm is chosen once.
use std::ffi::c_void;

use cudarc::{
    cublaslt::{result as lt, sys as ltsys},
    driver::CudaStream,
};

use crate::{Address, Form, Product, ProductShape, Trouble, WORKSPACE_BYTES};

/// A handle of cuBLASLt.
pub(crate) struct Blas(ltsys::cublasLtHandle_t);

// SAFETY: cuBLASLt's handles may be used from any thread.
unsafe impl Send for Blas {}

impl Blas {
    pub(crate) fn new() -> Result<Self, Trouble> {
        lt::create_handle().map(Self).map_err(|error| failed_product("its start", error))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed here alone. That it fails changes nothing any more.
        let _ = unsafe { lt::destroy_handle(self.0) };
    }
}

/// How a product of one shape is carried out: descriptions of its matrices, and the algorithm that was chosen once.
pub(crate) struct Plan {
    description: ltsys::cublasLtMatmulDesc_t,
    layouts: [ltsys::cublasLtMatrixLayout_t; 3],
    algorithm: ltsys::cublasLtMatmulAlgo_t,
}

// SAFETY: its descriptions are memory of its own that no thread changes.
unsafe impl Send for Plan {}

impl Plan {
    /// cuBLAS's matrices are column-major: it is told the transposed product, Cᵀ = Bᵀ·Aᵀ, with the operands as they lie.
    pub(crate) fn new(blas: &Blas, shape: &ProductShape, alignments: [u32; 3]) -> Result<Self, Trouble> {
        let told = |error| failed_product("a plan", error);
        let ProductShape { form, tokens, outputs, inputs, .. } = *shape;
        // `cublasOperation_t`.
        let (none, transposed) = (0i32, 1i32);
        // Of cuBLAS's A and B: rows and columns as they lie, column-major, and whether they are transposed; then of C.
        let (a, b, c) = match form {
            // yᵀ = W·xᵀ
            Form::Forward => ((inputs, outputs, transposed), (inputs, tokens, none), (outputs, tokens)),
            // dxᵀ = Wᵀ·dyᵀ
            Form::BackwardInput => ((inputs, outputs, none), (outputs, tokens, none), (inputs, tokens)),
            // dWᵀ = xᵀ·dy
            Form::BackwardWeight => {
                ((inputs, tokens, none), (outputs, tokens, transposed), (inputs, outputs))
            }
        };
        let bf16 = ltsys::cudaDataType_t::CUDA_R_16BF;
        let result = match form {
            Form::Forward | Form::BackwardInput => bf16,
            Form::BackwardWeight => ltsys::cudaDataType_t::CUDA_R_32F,
        };
        let layout = |kind, rows: usize, columns: usize| {
            lt::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64).map_err(told)
        };
        let compute = ltsys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let mut plan = Self {
            description: lt::create_matmul_desc(compute, ltsys::cudaDataType_t::CUDA_R_32F).map_err(told)?,
            layouts: [layout(bf16, a.0, a.1)?, layout(bf16, b.0, b.1)?, layout(result, c.0, c.1)?],
            // Chosen below, for what stands above.
            algorithm: ltsys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        let described = |attribute, operation: i32| {
            let (value, size) = (std::ptr::from_ref(&operation).cast(), size_of_val(&operation));
            // SAFETY: the description is this plan's, and the attribute is of the value's type.
            unsafe { lt::set_matmul_desc_attribute(plan.description, attribute, value, size) }.map_err(told)
        };
        described(ltsys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, a.2)?;
        described(ltsys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, b.2)?;
        plan.algorithm = plan.choose(blas, alignments).map_err(|error| {
            failed_product(&format!("a product of {tokens} × {inputs} × {outputs} ({form:?})"), error)
        })?;
        Ok(plan)
    }

    /// Asks cuBLAS for the algorithm that it takes for the fastest.
    fn choose(
        &self,
        blas: &Blas,
        [left, right, result]: [u32; 3],
    ) -> Result<ltsys::cublasLtMatmulAlgo_t, lt::CublasError> {
        use ltsys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let wish = Wish(lt::create_matmul_pref()?);
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES as u64)?;
        // Partial sums in the workspace, added in one order: in place they would be added as they come.
        let scheme = ltsys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme as u32)?;
        // Its A is the right operand, its B the left one.
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right)?;
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left)?;
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result)?;
        wish.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result)?;
        let [a, b, c] = self.layouts;
        // SAFETY: all of them are alive.
        let found = unsafe { lt::get_matmul_algo_heuristic(blas.0, self.description, a, b, c, c, wish.0) }?;
        Ok(found.algo)
    }

    pub(crate) fn run(
        &self,
        blas: &Blas,
        product: &Product,
        workspace: Address,
        stream: &CudaStream,
    ) -> Result<(), Trouble> {
        let (one, beta) = (1.0f32, if product.shape.add { 1.0f32 } else { 0.0 });
        let pointer = |at: Address| at.0 as *mut c_void;
        // In the transposed product the operands change places.
        let (a, b) = (product.right, product.left);
        let [a_layout, b_layout, c_layout] = self.layouts;
        // SAFETY: the descriptions are this plan's, the operands lie in the GPU's memory with the sizes they state, the
        // workspace is as large as the algorithm was chosen for and nothing else uses it, in the order of this stream.
        unsafe {
            lt::matmul(
                blas.0,
                self.description,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&beta).cast(),
                pointer(a.at),
                a_layout,
                pointer(b.at),
                b_layout,
                pointer(product.result.at),
                c_layout,
                pointer(product.result.at),
                c_layout,
                &self.algorithm,
                pointer(workspace),
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            )
        }
        .map_err(|error| failed_product(&format!("{:?}", product.shape), error))
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed here alone; an algorithm is a plain value. That it fails changes nothing.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// What an algorithm may do.
struct Wish(ltsys::cublasLtMatmulPreference_t);

impl Wish {
    fn set<T: Copy>(
        &self,
        attribute: ltsys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), lt::CublasError> {
        // SAFETY: the wish is alive; its callers pass each attribute's own type, whose size cuBLAS checks.
        unsafe {
            lt::set_matmul_pref_attribute(
                self.0,
                attribute,
                std::ptr::from_ref(&value).cast(),
                size_of::<T>(),
            )
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        // SAFETY: destroyed here alone.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}

fn failed_product(what: &str, error: lt::CublasError) -> Trouble {
    Trouble {
        code: "CUDA_UNAVAILABLE",
        message: format!("cuBLAS fails at {what}: {error}"),
        hint: "candlewick doctor says which cuBLAS was found; it has to be of CUDA 13 and as new as the GPU"
            .into(),
    }
}
