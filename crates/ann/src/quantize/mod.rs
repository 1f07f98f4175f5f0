//! From vectors to what pages hold: a basis, 8-bit vectors near references, codes of neighbors.

pub mod basis;
pub mod fastscan;
pub mod int8;
pub mod leaders;
pub mod local;
pub mod principal;
pub mod residual;
pub mod rotation;
pub mod screen;

pub use basis::Basis;
pub use leaders::Leaders;
pub use local::Local;
pub use rotation::Rotation;
pub use screen::Screen;

/// A vector as a node holds it: 8-bit integers relative to a reference, with a scale for its leading elements and one for
/// those after.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// `[padded_dim]`.
    pub codes: &'a [i8],
    /// What the first `lead_dim` codes are multiplied by.
    pub lead: f32,
    /// What the others are multiplied by.
    pub trail: f32,
    /// Number of the leader that the vector is relative to; 0 is the center.
    pub reference: u16,
    /// The field of the node header: squared norm of what the codes stand for, or the row's norm where they stand for its direction.
    pub bias: f32,
    /// Keys of the row, eight bytes for each column.
    pub keys: &'a [u8],
}
