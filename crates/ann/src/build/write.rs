//! Writing a built graph: metapage, basis, leaders, bounds of keys, entry pages, tid pages, node pages, in this order.
//!
//! Nodes have *places*: 0 is the first node of the first node page. All sizes are known before the first page
//! is written ([`Plan`]), so that entries and cells can name nodes that come later.

use super::BuildError;
use super::executor::{Executor, map};
use super::graph::Graph;
use super::rows::{Folded, Row};
use crate::arch::prefetch;
use crate::layout::meta::Meta;
use crate::layout::node::{self, Header, NodeMut, State};
use crate::layout::tids::{CELL_TIDS, CELLS, Cell, CellId, FIRST_NUMBER};
use crate::layout::{
    BlockNumber, Geometry, HeapTid, MAX_DEGREE, NodeId, PAGE_BYTES, Page, bounds, entry, tids, vectors,
};
use crate::quantize::Stored;
use crate::quantize::residual::{self, Encoder};
use crate::space::Space;
use crate::store::PageSink;
use std::ops::Range;

/// Node pages encoded at once: 8 MB.
const BATCH: usize = 1024;

/// Where everything goes.
pub(super) struct Plan {
    geometry: Geometry,
    /// The page after the metapage.
    first_page: usize,
    nodes: usize,
    entries: usize,
    reflection_pages: usize,
    leader_pages: usize,
    bounds_pages: usize,
    entry_pages: usize,
    cells: usize,
    tid_pages: usize,
}

impl Plan {
    /// Answers `None` if there are not as many ids.
    pub fn new(space: &Space, first_page: u32, nodes: usize, entries: usize, cells: usize) -> Option<Self> {
        let geometry = space.geometry;
        let pages = |count: usize| count.div_ceil(vectors::per_page(&geometry));
        let plan = Self {
            geometry,
            first_page: first_page as usize,
            nodes,
            entries,
            reflection_pages: pages(space.basis().count()),
            leader_pages: pages(geometry.leaders().into()),
            bounds_pages: if space.columns.has_bounds() { space.columns.len() } else { 0 },
            entry_pages: entries.div_ceil(geometry.entries_per_page()),
            cells,
            tid_pages: cells.div_ceil(CELLS),
        };
        let last = BlockNumber(u32::try_from(plan.end()).ok()?);
        geometry.node_id(last, geometry.slots() - 1)?;
        CellId::at(last, CELLS)?;
        Some(plan)
    }

    fn first_leader_page(&self) -> usize {
        self.first_page + self.reflection_pages
    }

    fn first_bounds_page(&self) -> usize {
        self.first_leader_page() + self.leader_pages
    }

    fn first_entry_page(&self) -> usize {
        self.first_bounds_page() + self.bounds_pages
    }

    fn first_tid_page(&self) -> usize {
        self.first_entry_page() + self.entry_pages
    }

    fn first_node_page(&self) -> usize {
        self.first_tid_page() + self.tid_pages
    }

    /// The page after the last one.
    pub fn end(&self) -> usize {
        self.first_node_page() + self.nodes.div_ceil(self.geometry.slots())
    }

    /// How many pages there are, the metapage among them.
    pub fn pages(&self) -> u64 {
        (1 + self.end() - self.first_page) as u64
    }

    /// The id of the node at a place.
    pub fn id(&self, place: u32) -> NodeId {
        let slots = self.geometry.slots();
        let block = BlockNumber(block(self.first_node_page() + place as usize / slots));
        self.geometry.node_id(block, place as usize % slots).expect("the last one exists")
    }

    fn cell_id(&self, cell: usize) -> CellId {
        CellId::at(BlockNumber(block(self.first_tid_page() + cell / CELLS)), cell % CELLS)
            .expect("smaller than the last cell")
    }
}

fn block(i: usize) -> u32 {
    u32::try_from(i).expect("smaller than the last block")
}

/// Cells that so many further tids of one node take.
pub(super) fn cells(tids: usize) -> usize {
    tids.div_ceil(CELL_TIDS)
}

/// Writes all pages of a graph in memory; answers how many. Rows are in the order of places; `shared` has the further
/// tids of some, in that order, too.
#[allow(clippy::too_many_arguments, reason = "all that an index is made of")]
pub(super) fn write<P: PageSink>(
    space: &Space,
    meta: &Meta,
    first_page: u32,
    rows: &Folded,
    shared: &[(u32, Vec<HeapTid>)],
    graph: &Graph,
    executor: &dyn Executor,
    sink: &mut P,
) -> Result<u64, BuildError<P::Error>> {
    let cells = shared.iter().map(|(_, more)| cells(more.len())).sum();
    let plan = Plan::new(space, first_page, rows.len(), graph.entries.len(), cells)
        .ok_or(BuildError::TooManyRows)?;
    write_head(&plan, space, meta, sink).map_err(BuildError::Store)?;
    let entries = graph.entries.iter().map(|&row| (row, rows.set.stored(row)));
    write_entries(&plan, space, entries, sink).map_err(BuildError::Store)?;

    let mut cells = CellWriter::new(&plan);
    for (place, more) in shared {
        for &tid in more {
            cells.push(*place, tid, sink).map_err(BuildError::Store)?;
        }
    }
    let chains = cells.finish(sink).map_err(BuildError::Store)?;

    let describe = |place: u32| {
        let links = &graph.links[place as usize];
        let neighbors = links.rows.iter().map(|&other| (other, rows.set.stored(other))).collect();
        Described { row: rows.row(place), protected: links.protected, neighbors }
    };
    let all = 0..plan.nodes;
    write_nodes(&plan, space, &chains, all, executor, sink, &describe)?;
    Ok(plan.pages())
}

/// Writes the metapage, the basis, the leaders and the bounds of keys.
pub(super) fn write_head<P: PageSink>(
    plan: &Plan,
    space: &Space,
    empty: &Meta,
    sink: &mut P,
) -> Result<(), P::Error> {
    let mut meta = empty.clone();
    if plan.reflection_pages > 0 {
        meta.reflections_first = block(plan.first_page);
        meta.reflections = u16::try_from(space.basis().count()).expect("no more than dimensions");
    }
    if plan.leader_pages > 0 {
        meta.leaders_first = block(plan.first_leader_page());
    }
    if plan.bounds_pages > 0 {
        meta.bounds_first = block(plan.first_bounds_page());
    }
    if plan.entry_pages > 0 {
        meta.entry_first = block(plan.first_entry_page());
        meta.entry_last = block(plan.first_tid_page() - 1);
    }
    meta.entry_count = block(plan.entries);
    meta.built_rows = block(plan.nodes);
    let full = plan.cells.is_multiple_of(CELLS);
    meta.tids_free = if full { 0 } else { block(plan.first_node_page() - 1) };
    let mut page: Page = [0; PAGE_BYTES];
    meta.encode(&mut page);
    sink.append(&page)?;
    write_vectors(plan, space.basis().reflectors(), plan.first_page, sink)?;
    write_vectors(plan, space.leaders.stored(), plan.first_leader_page(), sink)?;
    for (_, column) in space.columns.iter().take(plan.bounds_pages) {
        let mut page: Page = [0; PAGE_BYTES];
        bounds::init(&mut page, &plan.geometry, column);
        sink.append(&page)?;
    }
    Ok(())
}

/// Writes a chain of vectors on consecutive pages.
fn write_vectors<P: PageSink>(
    plan: &Plan,
    all: &[f32],
    first_page: usize,
    sink: &mut P,
) -> Result<(), P::Error> {
    let g = &plan.geometry;
    let mut pages = all.chunks(vectors::per_page(g) * g.padded_dim()).zip(first_page + 1..).peekable();
    while let Some((part, next)) = pages.next() {
        let mut page: Page = [0; PAGE_BYTES];
        vectors::init(&mut page, g);
        for (i, vector) in part.chunks_exact(g.padded_dim()).enumerate() {
            vectors::set(&mut page, g, i, vector);
        }
        vectors::set_next(&mut page, if pages.peek().is_some() { block(next) } else { 0 });
        sink.append(&page)?;
    }
    Ok(())
}

/// Writes the entry pages.
pub(super) fn write_entries<'a, P: PageSink>(
    plan: &Plan,
    space: &Space,
    entries: impl Iterator<Item = (u32, Stored<'a>)>,
    sink: &mut P,
) -> Result<(), P::Error> {
    let g = &plan.geometry;
    let mut bits = vec![0u8; g.code_bytes()];
    let mut entries = entries.peekable();
    let mut next = block(plan.first_entry_page() + 1);
    while entries.peek().is_some() {
        let mut page: Page = [0; PAGE_BYTES];
        entry::init(&mut page, g);
        for (slot, (place, vector)) in entries.by_ref().take(g.entries_per_page()).enumerate() {
            let e = residual::entry(space, vector, plan.id(place), &mut bits);
            entry::set(&mut page, g, slot, &e, &bits);
        }
        if entries.peek().is_some() {
            entry::set_next(&mut page, next);
            next += 1;
        }
        sink.append(&page)?;
    }
    Ok(())
}

/// First cells of the nodes that have any, by place.
pub(super) struct Chains(Vec<(u32, CellId)>);

impl Chains {
    fn first(&self, place: u32) -> u32 {
        self.0.binary_search_by_key(&place, |&(p, _)| p).map_or(0, |i| self.0[i].1.0)
    }
}

/// Writes the tid pages, one tid after another.
pub(super) struct CellWriter<'a> {
    plan: &'a Plan,
    first: Vec<(u32, CellId)>,
    page: Page,
    /// Cells that are on pages.
    done: usize,
    /// The cell that is being filled, its node's place, and how many tids it has.
    open: Option<(Cell, u32, usize)>,
}

impl<'a> CellWriter<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Self { plan, first: Vec::new(), page: [0; PAGE_BYTES], done: 0, open: None }
    }

    /// Takes a further tid of the node at `place`. Places ascend.
    pub fn push<P: PageSink>(&mut self, place: u32, tid: HeapTid, sink: &mut P) -> Result<(), P::Error> {
        let mut number = FIRST_NUMBER;
        match self.open.take() {
            Some((mut cell, owner, len)) if owner == place && len < CELL_TIDS => {
                cell.tids[len] = tid;
                self.open = Some((cell, owner, len + 1));
                return Ok(());
            }
            Some((cell, owner, _)) => {
                let next = if owner == place { self.plan.cell_id(self.done + 1).0 } else { 0 };
                self.put(&Cell { next, ..cell }, sink)?;
                if owner == place {
                    number = cell.number - 1;
                } else {
                    self.first.push((place, self.plan.cell_id(self.done)));
                }
            }
            None => self.first.push((place, self.plan.cell_id(self.done))),
        }
        let mut tids = [HeapTid::INVALID; CELL_TIDS];
        tids[0] = tid;
        self.open =
            Some((Cell { owner: self.plan.id(place), next: 0, generation: 0, number, tids }, place, 1));
        Ok(())
    }

    fn put<P: PageSink>(&mut self, cell: &Cell, sink: &mut P) -> Result<(), P::Error> {
        let slot = self.done % CELLS;
        if slot == 0 {
            self.page = [0; PAGE_BYTES];
            tids::init(&mut self.page, self.plan.geometry.epoch());
        }
        tids::set(&mut self.page, slot, cell);
        self.done += 1;
        if slot + 1 == CELLS || self.done == self.plan.cells {
            tids::set_free_link(&mut self.page, 0, slot + 1 < CELLS);
            sink.append(&self.page)?;
        }
        Ok(())
    }

    /// Writes the last page.
    pub fn finish<P: PageSink>(mut self, sink: &mut P) -> Result<Chains, P::Error> {
        if let Some((cell, _, _)) = self.open.take() {
            self.put(&cell, sink)?;
        }
        assert_eq!(self.done, self.plan.cells, "cells were counted before");
        Ok(Chains(self.first))
    }
}

/// What a node is made of: protected neighbors come first.
pub(super) struct Described<'a> {
    pub row: Row<'a>,
    pub protected: usize,
    /// Place and vector of each.
    pub neighbors: Vec<(u32, Stored<'a>)>,
}

/// Writes the pages of consecutive nodes; the first one is the first of a page.
pub(super) fn write_nodes<'a, P: PageSink>(
    plan: &Plan,
    space: &Space,
    chains: &Chains,
    places: Range<usize>,
    executor: &dyn Executor,
    sink: &mut P,
    describe: &(impl Fn(u32) -> Described<'a> + Sync),
) -> Result<(), BuildError<P::Error>> {
    let g = &plan.geometry;
    debug_assert!(places.start.is_multiple_of(g.slots()));
    let pages = places.len().div_ceil(g.slots());
    for batch in (0..pages).step_by(BATCH) {
        let bits = || vec![0u8; g.code_bytes()];
        let encoded = map(executor, BATCH.min(pages - batch), bits, |bits, i| {
            let start = places.start + (batch + i) * g.slots();
            let mut page = Box::new(node::empty_page(g));
            for (slot, place) in (start..places.end.min(start + g.slots())).enumerate() {
                let place = u32::try_from(place).expect("ids are checked before");
                let mut node = NodeMut::open(&mut page, g, slot).expect("an empty page of this geometry");
                encode_node(plan, space, &describe(place), chains.first(place), &mut node, bits);
            }
            page
        })?;
        for page in encoded {
            sink.append(&page).map_err(BuildError::Store)?;
        }
    }
    Ok(())
}

fn encode_node(
    plan: &Plan,
    space: &Space,
    described: &Described,
    first_cell: u32,
    node: &mut NodeMut,
    bits: &mut [u8],
) {
    let Described { row, protected, neighbors } = described;
    debug_assert!(neighbors.len() <= MAX_DEGREE);
    let Stored { codes: own_codes, lead, trail, reference, bias, keys } = row.stored;
    node.set_header(&Header {
        tid: row.tid,
        degree: neighbors.len(),
        state: State::Live,
        lead,
        trail,
        bias,
        error: row.error,
        version: 0,
        protected: u32::try_from((1u64 << protected) - 1).expect("at most 32 edges"),
        tids: first_cell,
        generation: 0,
        reference,
    });
    node.set_vector(own_codes);
    node.set_keys(keys);
    let mut encoder = Encoder::new(space, row.stored);
    neighbors.iter().for_each(|(_, other)| prefetch(other.codes));
    for (i, &(place, other)) in neighbors.iter().enumerate() {
        let edge = encoder.edge(other, plan.id(place), bits);
        node.set_edge(i, &edge, bits);
    }
}
