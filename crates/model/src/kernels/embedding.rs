/// y[t] = W[id(t)]. `weight` `[V, C]`, `output` `[tokens, C]`.
///
/// # Panics
/// When an id is not below V.
pub fn embedding_forward(output: &mut [f32], weight: &[f32], ids: &[u32], width: usize) {
    assert_eq!(output.len(), ids.len() * width);
    for (row, &id) in output.chunks_exact_mut(width).zip(ids) {
        row.copy_from_slice(&weight[id as usize * width..][..width]);
    }
}

/// dW[v] = Σ dy[t] over the tokens t with id v, in the order of t. `weight_grad` `[V, C]` is added to.
///
/// # Panics
/// When an id is not below V.
pub fn embedding_backward(weight_grad: &mut [f32], output_grad: &[f32], ids: &[u32], width: usize) {
    assert_eq!(output_grad.len(), ids.len() * width);
    for (row, &id) in output_grad.chunks_exact(width).zip(ids) {
        for (sum, value) in weight_grad[id as usize * width..][..width].iter_mut().zip(row) {
            *sum += value;
        }
    }
}
