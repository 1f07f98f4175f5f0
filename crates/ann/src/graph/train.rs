//! Learning center, basis, leaders and widths of codes when an index that was created empty has rows to learn from.
//!
//! Frameworks create an index first and load later. So an index that was built over few rows, or none, is trained from the
//! rows that it holds: when it has [`FIRST`], and once more when it has [`LAST`]. From then on it is what a build over
//! such a sample would have made, and rows that come later find their places as well.
//!
//! A training writes a new index after the pages of the old one, and then the metapage, in one change. Pages carry an
//! *epoch*: a search that began before goes on in the pages of its own, which nobody changes any more; whoever reads all
//! pages passes over those of another. They stay until the index is rebuilt: at most about three hundred. If the training
//! does not end, the metapage still names the old epoch, and the next one takes another number.
//!
//! Two things are the caller's. Nobody else may change the index meanwhile: see [`is_trainable`]. And vectors are known to
//! eight bits only, so what the first rows lost of their precision stays lost; error bounds say so, and equal rows that come later
//! do not share their nodes.

use super::rows::Rows;
use crate::build::executor::Executor;
use crate::build::{AddError, BuildError, Builder, Parameters};
use crate::filter::key;
use crate::index::{AccessError, Decoded, Index, read_meta};
use crate::layout::meta::Meta;
use crate::layout::node::{Header, Node, State};
use crate::layout::{BlockNumber, Geometry, Kind, NodeId, Page, kind_in};
use crate::random::SplitMix64;
use crate::store::{Change, PageSink, PageStore};
use std::convert::Infallible;

/// Rows of the first training: enough for a center and some leaders.
pub const FIRST: u32 = 128;
/// Rows of the last: enough for a basis. All nodes are entries until then, which tells their number.
pub const LAST: u32 = 1000;
/// An index of more pages is not trained: it would take too long in the middle of an insert.
const MOST_PAGES: u32 = 2048;

/// Whether an index may be trained one day. Whoever changes or checks such an index keeps others from training
/// it meanwhile.
#[must_use]
pub fn is_trainable(meta: &Meta) -> bool {
    meta.geometry.format() > 1 && meta.built_rows < LAST / 2
}

/// Whether an index has the rows for a training that it did not have.
#[must_use]
pub fn is_due(meta: &Meta) -> bool {
    let learned = meta.built_rows;
    let wanted = if learned < FIRST { FIRST } else { LAST };
    is_trainable(meta) && meta.entry_count >= wanted.max(2 * learned)
}

/// What a training did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trained {
    /// The index has a new epoch.
    Done,
    /// There was no need, or too much to do.
    No,
    /// The executor said stop.
    Cancelled,
}

/// Trains an index if that is due. Nobody else changes it meanwhile.
///
/// # Errors
/// [`AccessError`].
pub fn train<S: PageStore>(
    store: &S,
    executor: &dyn Executor,
    random: &mut SplitMix64,
) -> Result<Trained, AccessError<S::Error>> {
    let index = Index::open(store)?;
    let start = store.block_count()?;
    if !is_due(index.meta()) || start > MOST_PAGES {
        return Ok(Trained::No);
    }
    let epoch = begin_epoch(store)?;
    let rows = rows(store, &index)?;
    let sample: Vec<f32> = rows.iter().flat_map(|row| row.rotated.iter().copied()).collect();
    let (old, metric) = (index.meta(), index.space().metric());
    let geometry = Geometry::new(old.geometry.dim()).expect("the index has them");
    let geometry = geometry.with_columns(&old.geometry.columns()).in_epoch(epoch);
    let columns = old.geometry.columns().len();
    let keys: Vec<u64> =
        rows.iter().flat_map(|row| (0..columns).map(|column| key(&row.keys, column))).collect();
    let parameters = Parameters { seed: random.next_u64(), ..Parameters::default() };
    let mut builder = Builder::of_rotated(metric, geometry, old.seed, sample, usize::MAX, parameters)
        .with_sample_of_keys(&keys);
    builder.begin_at(start);
    for Row { rotated, length, error, keys, tids } in rows {
        let mut q = builder.space.quantize_rotated(rotated, length);
        // What was lost before stays lost.
        q.error += error;
        q.keys = keys;
        for tid in tids {
            match builder.take(&q, tid) {
                Ok(()) => {}
                Err(AddError::TooManyRows | AddError::Vector(_) | AddError::Spill(_)) => {
                    return Ok(Trained::No);
                }
            }
        }
    }
    let mut pages = Collected(Vec::new());
    match builder.finish(executor, &mut pages, &mut |_| ()) {
        Ok(_) => {}
        Err(BuildError::Cancelled) => return Ok(Trained::Cancelled),
        Err(BuildError::Store(never)) => match never {},
        Err(BuildError::Spill(_) | BuildError::TooManyRows) => return Ok(Trained::No),
    }
    let Some((meta, others)) = pages.0.split_first() else { return Ok(Trained::No) };
    for (block, content) in (start..).zip(others) {
        store.check_interrupts()?;
        let mut change = store.change()?;
        let added = change.extend()?;
        if added != BlockNumber(block) {
            // Somebody else added a page all the same.
            return Ok(Trained::No);
        }
        *change.page(added)? = **content;
        change.commit()?;
    }
    let mut change = store.change()?;
    *change.page(BlockNumber(0))? = **meta;
    change.commit()?;
    Ok(Trained::Done)
}

/// Takes a new number, and says so on the metapage: pages of a training that does not end have it for good.
fn begin_epoch<S: PageStore>(store: &S) -> Result<u16, AccessError<S::Error>> {
    let zero = BlockNumber(0);
    let mut meta = read_meta(store)?;
    meta.epoch_begun = meta.epoch_begun.wrapping_add(1);
    let mut change = store.change()?;
    meta.encode(change.page(zero)?);
    change.commit()?;
    Ok(meta.epoch_begun)
}

/// A node to learn from.
struct Row {
    /// Scaled and rotated, `[padded_dim]`.
    rotated: Vec<f32>,
    /// The norm, where it is known beside the direction; else 1.
    length: f64,
    /// Its error bound.
    error: f32,
    keys: Vec<u8>,
    tids: Vec<crate::layout::HeapTid>,
}

/// All live nodes.
fn rows<S: PageStore>(store: &S, index: &Index) -> Result<Vec<Row>, AccessError<S::Error>> {
    let (space, g) = (&index.space, &index.space.geometry);
    let mut found: Vec<(NodeId, Header, Row)> = Vec::new();
    for block in (1..store.block_count()?).map(BlockNumber) {
        store.check_interrupts()?;
        let page = store.read(block)?;
        if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
            continue;
        }
        for slot in 0..g.slots() {
            let node = Node::read(&page, g, slot).at(block)?;
            if node.header().state == State::Live
                && let Some(id) = g.node_id(block, slot)
            {
                let (rotated, error) = (space.rotated(node.stored()), node.header().error);
                let length = f64::from(space.weight(node.stored()));
                let row = Row { rotated, length, error, keys: node.keys().to_vec(), tids: Vec::new() };
                found.push((id, *node.header(), row));
            }
        }
    }
    let mut rows = Vec::with_capacity(found.len());
    for (id, header, mut row) in found {
        let mut all = Rows::new(id, &header);
        while let Some(tid) = all.next(store, g)? {
            row.tids.push(tid);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Pages as they are built.
struct Collected(Vec<Box<Page>>);

impl PageSink for Collected {
    type Error = Infallible;

    fn append(&mut self, page: &Page) -> Result<(), Infallible> {
        self.0.push(Box::new(*page));
        Ok(())
    }
}
