//! Clusters of the vectors in a file, for `benches/clusters.py`: `hdbscan FILE DIMENSIONS MIN_SIZE [NEIGHBORS]`. The file has
//! 32-bit floats, row after row; the output has a label a line, -1 for noise. With NEIGHBORS it is the graph form, over so many exact
//! neighbors.

use imgvec_library::hdbscan::{exact, of_graph};
use imgvec_library::linkage::Pair;
use imgvec_library::vectors::Vectors;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<usize>().expect("a number"));
    let bytes = std::fs::read(&arguments[0]).expect("a file");
    let (dim, min_size) = (number(1).expect("dimensions"), number(2).expect("a size"));
    let elements: Vec<f32> =
        bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))).collect();
    let mut vectors = Vectors::new(dim);
    elements.chunks_exact(dim).for_each(|row| vectors.push(row));
    let distance = |a: usize, b: usize| vectors.distance(a, b);
    let found = match number(3) {
        None => exact(vectors.len(), min_size, distance, &mut || ()),
        Some(k) => {
            let (mut core, mut edges) = (Vec::new(), Vec::new());
            for row in 0..vectors.len() {
                let others = (0..vectors.len()).filter(|&other| other != row);
                let mut near: Vec<(f64, usize)> = others.map(|other| (distance(row, other), other)).collect();
                near.select_nth_unstable_by(k - 1, |x, y| x.0.total_cmp(&y.0));
                near.truncate(k);
                near.sort_by(|x, y| x.0.total_cmp(&y.0));
                core.push(near[min_size - 2].0);
                let pair =
                    |&(distance, other): &(f64, usize)| Pair { a: row as u32, b: other as u32, distance };
                edges.extend(near.iter().map(pair));
            }
            of_graph(&core, min_size, edges, std::iter::empty(), |_, _| 0.0, &mut || ())
        }
    };
    found.labels.iter().for_each(|label| println!("{}", label.map_or(-1, i64::from)));
}
