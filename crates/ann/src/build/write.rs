//! Writing a built graph: metapage, entry pages, tid pages, node pages, in this order.

use super::executor::{Executor, map};
use super::graph::Graph;
use super::{BuildError, Builder};
use crate::layout::node::{self, Header, NodeMut, State};
use crate::layout::tids::{CELL_TIDS, CELLS, Cell, CellId};
use crate::layout::{BlockNumber, HeapTid, MAX_DEGREE, NodeId, PAGE_BYTES, Page, entry, tids};
use crate::quantize::residual;
use crate::store::PageSink;
use std::collections::HashMap;

/// Node pages encoded at once: 8 MB.
const BATCH: usize = 1024;

/// Writes all pages; answers how many.
pub(super) fn write<P: PageSink>(
    builder: &Builder,
    graph: Graph,
    executor: &dyn Executor,
    sink: &mut P,
) -> Result<u64, BuildError<P::Error>> {
    let g = builder.space.geometry;
    let n = graph.order.len();
    let entry_pages = graph.entries.len().div_ceil(g.entries_per_page());
    let cells: usize = builder.more_tids.values().map(|more| more.len().div_ceil(CELL_TIDS)).sum();
    let tid_pages = cells.div_ceil(CELLS);
    let first_node_page = 1 + entry_pages + tid_pages;
    let too_many = |_| BuildError::TooManyRows;
    let block = |i: usize| u32::try_from(i).map(BlockNumber);
    let last_block = block(first_node_page + n.div_ceil(g.slots())).map_err(too_many)?;
    if g.node_id(last_block, g.slots() - 1).is_none() || CellId::at(last_block, CELLS).is_none() {
        return Err(BuildError::TooManyRows);
    }
    let mut id_of = vec![NodeId::NONE; n];
    for (place, &row) in graph.order.iter().enumerate() {
        let block = block(first_node_page + place / g.slots()).map_err(too_many)?;
        id_of[row as usize] = g.node_id(block, place % g.slots()).expect("the last one exists");
    }

    let mut meta = builder.meta.clone();
    let number = |i: usize| u32::try_from(i).expect("smaller than the last block");
    if entry_pages > 0 {
        (meta.entry_first, meta.entry_last) = (1, number(entry_pages));
    }
    meta.entry_count = number(graph.entries.len());
    meta.built_rows = number(n);
    let full = cells.is_multiple_of(CELLS);
    meta.tids_free = if full { 0 } else { number(entry_pages + tid_pages) };
    let mut page: Page = [0; PAGE_BYTES];
    meta.encode(&mut page);
    sink.append(&page).map_err(BuildError::Store)?;

    write_entries(builder, &graph, &id_of, entry_pages, sink)?;
    let chains = write_tids(builder, &id_of, 1 + entry_pages, tid_pages, sink)?;

    let page_count = n.div_ceil(g.slots());
    for batch in (0..page_count).step_by(BATCH) {
        let count = BATCH.min(page_count - batch);
        let scratch = || vec![0u8; g.code_dim() / 8];
        let pages = map(executor, count, scratch, |bits, i| {
            let rows = graph.order.iter().copied().skip((batch + i) * g.slots()).take(g.slots());
            let mut page = Box::new(node::empty_page(&g));
            for (slot, row) in rows.enumerate() {
                let mut node = NodeMut::open(&mut page, &g, slot).expect("an empty page of this geometry");
                let first_cell = chains.get(&row).map_or(0, |cell| cell.0);
                encode_node(builder, &graph, row, &id_of, first_cell, &mut node, bits);
            }
            page
        })?;
        for page in pages {
            sink.append(&page).map_err(BuildError::Store)?;
        }
    }
    Ok((first_node_page + page_count) as u64)
}

fn encode_node(
    builder: &Builder,
    graph: &Graph,
    row: u32,
    id_of: &[NodeId],
    first_cell: u32,
    node: &mut NodeMut,
    bits: &mut [u8],
) {
    let (space, links, i) = (&builder.space, &graph.links[row as usize], row as usize);
    debug_assert!(links.rows.len() <= MAX_DEGREE);
    node.set_header(&Header {
        tid: builder.tids[i],
        degree: links.rows.len(),
        state: State::Live,
        scale: builder.rows.scales[i],
        bias: builder.biases[i],
        error: builder.errors[i],
        version: 0,
        protected: u32::try_from((1u64 << links.protected) - 1).expect("at most 32 edges"),
        tids: first_cell,
        generation: 0,
    });
    node.set_vector(builder.rows.codes(row));
    for (place, &other) in links.rows.iter().enumerate() {
        let edge = residual::edge(
            space.kernels,
            space.metric,
            builder.rows.scaled(row),
            builder.rows.scaled(other),
            id_of[other as usize],
            &space.center,
            bits,
        );
        node.set_edge(place, &edge, bits);
    }
}

fn write_entries<P: PageSink>(
    builder: &Builder,
    graph: &Graph,
    id_of: &[NodeId],
    entry_pages: usize,
    sink: &mut P,
) -> Result<(), BuildError<P::Error>> {
    let (space, g) = (&builder.space, builder.space.geometry);
    let mut bits = vec![0u8; g.code_dim() / 8];
    for (i, rows) in graph.entries.chunks(g.entries_per_page()).enumerate() {
        let mut page: Page = [0; PAGE_BYTES];
        entry::init(&mut page, &g);
        if i + 1 < entry_pages {
            entry::set_next(&mut page, u32::try_from(i + 2).expect("few pages"));
        }
        for (place, &row) in rows.iter().enumerate() {
            let vector = builder.rows.scaled(row);
            let id = id_of[row as usize];
            let e = residual::entry(space.kernels, space.metric, vector, id, &space.center, &mut bits);
            entry::set(&mut page, &g, place, &e, &bits);
        }
        sink.append(&page).map_err(BuildError::Store)?;
    }
    Ok(())
}

/// Writes the further rows of all nodes; answers each such row's first cell.
fn write_tids<P: PageSink>(
    builder: &Builder,
    id_of: &[NodeId],
    first_page: usize,
    tid_pages: usize,
    sink: &mut P,
) -> Result<HashMap<u32, CellId>, BuildError<P::Error>> {
    let mut rows: Vec<u32> = builder.more_tids.keys().copied().collect();
    rows.sort_unstable();
    let cell_id = |i: usize| {
        let block = BlockNumber(u32::try_from(first_page + i / CELLS).expect("smaller than the last block"));
        CellId::at(block, i % CELLS).expect("smaller than the last cell")
    };
    let (mut cells, mut first) = (Vec::new(), HashMap::new());
    for row in rows {
        let more = &builder.more_tids[&row];
        first.insert(row, cell_id(cells.len()));
        let count = more.len().div_ceil(CELL_TIDS);
        for (i, part) in more.chunks(CELL_TIDS).enumerate() {
            let next = if i + 1 < count { cell_id(cells.len() + 1).0 } else { 0 };
            let mut tids = [HeapTid::INVALID; CELL_TIDS];
            tids[..part.len()].copy_from_slice(part);
            cells.push(Cell { owner: id_of[row as usize], next, generation: 0, tids });
        }
    }
    for (i, part) in cells.chunks(CELLS).enumerate() {
        let mut page: Page = [0; PAGE_BYTES];
        tids::init(&mut page);
        for (place, cell) in part.iter().enumerate() {
            tids::set(&mut page, place, cell);
        }
        tids::set_free_link(&mut page, 0, part.len() < CELLS);
        sink.append(&page).map_err(BuildError::Store)?;
        debug_assert!(i < tid_pages);
    }
    Ok(first)
}
