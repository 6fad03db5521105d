//! The tensors of a `LLaMA` network: names and shapes in Hugging Face's layout, in the order of the
//! network.

use crate::plan::ModelShape;

/// Name and shape of every weight of a network of this `shape`.
///
/// Linear layers are `[out, in]`; a tied head is not listed.
pub fn weight_dims(shape: &ModelShape) -> Vec<(String, Vec<usize>)> {
    let (rows, hidden, intermediate) =
        (shape.vocab_size, shape.hidden_size, shape.intermediate_size);
    let key_value = shape.num_key_value_heads * shape.head_dim();
    let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![rows, hidden])];
    for idx in 0..shape.num_hidden_layers {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![key_value, hidden]),
            ("self_attn.v_proj", vec![key_value, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![intermediate, hidden]),
            ("mlp.up_proj", vec![intermediate, hidden]),
            ("mlp.down_proj", vec![hidden, intermediate]),
        ];
        list.extend(
            parts
                .into_iter()
                .map(|(part, dims)| (format!("model.layers.{idx}.{part}.weight"), dims)),
        );
    }
    list.push(("model.norm.weight".into(), vec![hidden]));
    if !shape.tie_word_embeddings {
        list.push(("lm_head.weight".into(), vec![rows, hidden]));
    }
    list
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::engine::compute::Compute;
    use crate::engine::model::LlamaForCausalLM;

    #[test]
    fn the_list_is_what_the_network_asks_for() {
        for tie_word_embeddings in [false, true] {
            let shape = ModelShape {
                vocab_size: 5,
                hidden_size: 8,
                intermediate_size: 12,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                num_key_value_heads: 2,
                max_position_embeddings: 16,
                rope_theta: 1e4,
                rms_norm_eps: 1e-6,
                initializer_range: 0.02,
                tie_word_embeddings,
            };
            let mut asked = Vec::new();
            let mut source = |name: &str, dims: &[usize]| {
                asked.push((name.to_owned(), dims.to_vec()));
                Ok::<_, Infallible>(vec![0.0; dims.iter().product()])
            };
            let Ok(_) = LlamaForCausalLM::new(&shape, &mut source, &Compute::cpu());
            let mut list = weight_dims(&shape);
            asked.sort();
            list.sort();
            assert_eq!(list, asked);
        }
    }
}
