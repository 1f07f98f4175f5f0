//! The steps after the pooling, with their weights in memory: dense layers and normalizations of sentence-transformers.

use super::EncodeError;
use crate::interrupt::InterruptCheck;
use crate::memory;
use crate::package::{Activation, Module, Weights};

/// What torch adds to a variance, so that it can be divided by.
const VARIANCE_EPSILON: f64 = 1e-5;
/// The least norm that torch divides by.
const LEAST_NORM: f64 = 1e-12;
/// Sums that are kept side by side, which the compiler makes vectors of.
const LANES: usize = 16;

/// A step that is ready to run.
pub(super) enum TextLayer {
    Dense { inputs: usize, weight: Vec<f32>, bias: Option<Vec<f32>>, activation: Activation },
    Norm { weight: Vec<f32>, bias: Vec<f32> },
    Normalize,
}

impl TextLayer {
    /// Reads the weights of all modules.
    pub fn load(modules: &[Module], interrupt: InterruptCheck) -> Result<Vec<TextLayer>, EncodeError> {
        let read = |weights: &Weights| {
            memory::reserve(weights.count * size_of::<f32>(), "hold the weights of a layer")?;
            weights.read(interrupt)?.ok_or(EncodeError::Interrupted)
        };
        let load = |module: &Module| {
            Ok(match module {
                Module::Dense(dense) => TextLayer::Dense {
                    inputs: dense.inputs,
                    weight: read(&dense.weight)?,
                    bias: dense.bias.as_ref().map(read).transpose()?,
                    activation: dense.activation,
                },
                Module::LayerNorm(norm) => {
                    TextLayer::Norm { weight: read(&norm.weight)?, bias: read(&norm.bias)? }
                }
                Module::Normalize => TextLayer::Normalize,
            })
        };
        modules.iter().map(load).collect()
    }

    /// The step's result for a vector.
    ///
    /// # Errors
    /// How many numbers the step takes, if the vector has not as many.
    pub fn apply(&self, vector: &[f32]) -> Result<Vec<f32>, usize> {
        match self {
            TextLayer::Dense { inputs, weight, bias, activation } => {
                if vector.len() != *inputs {
                    return Err(*inputs);
                }
                let mut result: Vec<f32> = weight.chunks_exact(*inputs).map(|row| dot(row, vector)).collect();
                if let Some(bias) = bias {
                    result.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
                result.iter_mut().for_each(|value| *value = activate(*activation, *value));
                Ok(result)
            }
            TextLayer::Norm { weight, bias } => {
                if vector.len() != weight.len() {
                    return Err(weight.len());
                }
                let count = vector.len() as f64;
                let mean = vector.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
                let square = |value: &f32| (f64::from(*value) - mean).powi(2);
                let variance = vector.iter().map(square).sum::<f64>() / count;
                let scale = 1.0 / (variance + VARIANCE_EPSILON).sqrt();
                let each = |((value, weight), bias): ((&f32, &f32), &f32)| {
                    ((f64::from(*value) - mean) * scale) as f32 * weight + bias
                };
                Ok(vector.iter().zip(weight).zip(bias).map(each).collect())
            }
            TextLayer::Normalize => {
                let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                Ok(vector.iter().map(|value| (f64::from(*value) / norm.max(LEAST_NORM)) as f32).collect())
            }
        }
    }
}

fn activate(activation: Activation, value: f32) -> f32 {
    match activation {
        Activation::Identity => value,
        Activation::Tanh => value.tanh(),
        // A comparison keeps what is no number, which is found and told later.
        Activation::Relu => {
            if value < 0.0 {
                0.0
            } else {
                value
            }
        }
        Activation::Sigmoid => 1.0 / (1.0 + (-value).exp()),
    }
}

/// The inner product of two slices of one length.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (left, right) in left.iter().zip(right) {
        sums.iter_mut().zip(left.iter().zip(right)).for_each(|(sum, (left, right))| *sum += left * right);
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(weight: &[f32], inputs: usize, bias: Option<&[f32]>, activation: Activation) -> TextLayer {
        TextLayer::Dense { inputs, weight: weight.to_vec(), bias: bias.map(<[f32]>::to_vec), activation }
    }

    fn assert_near(found: Result<Vec<f32>, usize>, expected: &[f32]) {
        let found = found.unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn each_step_computes_what_its_name_says() {
        let vector = [1.0, -2.0, 3.0];
        let weight = [1.0, 0.0, 0.0, 0.5, 0.5, 0.5];
        assert_near(dense(&weight, 3, None, Activation::Identity).apply(&vector), &[1.0, 1.0]);
        let bias = [-2.0, 1.0];
        assert_near(dense(&weight, 3, Some(&bias), Activation::Identity).apply(&vector), &[-1.0, 2.0]);
        assert_near(dense(&weight, 3, Some(&bias), Activation::Relu).apply(&vector), &[0.0, 2.0]);
        assert_near(
            dense(&weight, 3, Some(&bias), Activation::Tanh).apply(&vector),
            &[-0.761_594_2, 0.964_027_6],
        );
        assert_near(
            dense(&weight, 3, Some(&bias), Activation::Sigmoid).apply(&vector),
            &[0.268_941_4, 0.880_797_1],
        );
        let norm = TextLayer::Norm { weight: vec![1.0, 2.0], bias: vec![0.5, 0.0] };
        // Deviation 2 around 3.
        assert_near(norm.apply(&[1.0, 5.0]), &[-0.499_998_75, 1.999_997_5]);
        assert_near(TextLayer::Normalize.apply(&[3.0, -4.0]), &[0.6, -0.8]);
        assert_near(TextLayer::Normalize.apply(&[0.0, 0.0]), &[0.0, 0.0]);
    }

    #[test]
    fn a_vector_of_another_length_is_no_input() {
        assert_eq!(dense(&[1.0; 6], 3, None, Activation::Identity).apply(&[1.0; 2]), Err(3));
        assert_eq!(TextLayer::Norm { weight: vec![1.0; 3], bias: vec![0.0; 3] }.apply(&[1.0; 4]), Err(3));
    }

    #[test]
    fn rows_of_any_length_are_multiplied_whole() {
        for count in [1, 15, 16, 17, 50] {
            let left: Vec<f32> = (0..count).map(|index| (index % 5) as f32).collect();
            let right: Vec<f32> = (0..count).map(|index| (index % 3) as f32 - 1.0).collect();
            // Small whole numbers are exact in any order.
            let expected: f32 = left.iter().zip(&right).map(|(left, right)| left * right).sum();
            assert_eq!(dot(&left, &right), expected);
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for activation in [Activation::Identity, Activation::Tanh, Activation::Relu, Activation::Sigmoid] {
            let result = dense(&[1.0], 1, None, activation).apply(&[f32::NAN]).unwrap();
            assert!(result[0].is_nan(), "{activation:?}");
        }
    }
}
