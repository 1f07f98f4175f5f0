//! An index that was opened: metapage and entry table in memory.

use crate::filter::{Columns, Filter, MAX_COLUMNS, Sketches};
use crate::graph::calibrate;
use crate::graph::key::Key;
use crate::layout::meta::{EntryChanges, Meta, Stamp};
use crate::layout::node::{Header, Node};
use crate::layout::{self, BlockNumber, Geometry, MAX_DEGREE, NodeId, PageError, bounds, entry, vectors};
use crate::quantize::fastscan;
use crate::space::{Query, Space};
use crate::store::PageStore;
use std::collections::HashSet;

/// What can go wrong while pages are read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError<E: std::error::Error + 'static> {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] E),
    /// A page is damaged.
    #[error("block {} of the index is damaged: {error}", block.0)]
    Damaged {
        /// The page.
        block: BlockNumber,
        /// What is wrong with it.
        error: PageError,
    },
    /// A chain of pages or cells returns to itself.
    #[error("chain of pages at block {} has no end", block.0)]
    EndlessChain {
        /// Where it was noticed.
        block: BlockNumber,
    },
    /// All 2^32 - 1 node ids, or all cells for further rows, are in use.
    #[error("the index is full")]
    Full,
}

/// What was decoded from a page, or an error that does not know yet of which.
pub(crate) trait Decoded<T> {
    /// Names the page.
    fn at<E: std::error::Error>(self, block: BlockNumber) -> Result<T, AccessError<E>>;
}

impl<T> Decoded<T> for Result<T, PageError> {
    fn at<E: std::error::Error>(self, block: BlockNumber) -> Result<T, AccessError<E>> {
        self.map_err(|error| AccessError::Damaged { block, error })
    }
}

/// One entry in so many may have changed before a search wants the table again.
const STALE_SHARE: u32 = 64;

/// The entry table in memory, grouped by leaders.
#[derive(Clone, Debug, Default)]
struct EntryTable {
    pages: Vec<BlockNumber>,
    /// All nodes in the order of their places; holes included.
    ids: Vec<NodeId>,
    /// By number of the leader.
    groups: Vec<Group>,
    /// The norm that a quarter of the entries reach, where directions are stored.
    heavy_from: Option<f32>,
}

/// The entries of one leader, by blocks of 32.
#[derive(Clone, Debug, Default)]
struct Group {
    blocks: Vec<EntryBlock>,
    codes: Vec<u8>,
    len: usize,
    /// The largest norm; 1 where directions are not what is stored.
    most_weight: f32,
}

#[derive(Clone, Debug)]
struct EntryBlock {
    ids: [NodeId; MAX_DEGREE],
    adds: [f32; MAX_DEGREE],
    scales: [f32; MAX_DEGREE],
    /// Norms, where directions are stored.
    weights: Option<Box<[f32; MAX_DEGREE]>>,
    /// By entry; a block of an index without key columns has none.
    sketches: Vec<Sketches>,
}

impl Group {
    fn push(&mut self, g: &Geometry, e: &entry::Entry, bits: &[u8]) {
        let row = self.len % MAX_DEGREE;
        if row == 0 {
            self.blocks.push(EntryBlock {
                ids: [NodeId::NONE; MAX_DEGREE],
                adds: [0.0; MAX_DEGREE],
                scales: [0.0; MAX_DEGREE],
                weights: g.is_weighted().then(|| Box::new([0.0; MAX_DEGREE])),
                sketches: if g.key_bytes() > 0 { vec![[0; MAX_COLUMNS]; MAX_DEGREE] } else { Vec::new() },
            });
            self.codes.resize(self.codes.len() + g.code_block_bytes(), 0);
        }
        let block = self.blocks.last_mut().expect("there is one");
        (block.ids[row], block.adds[row], block.scales[row]) = (e.id, e.add, e.scale);
        if let Some(weights) = &mut block.weights {
            weights[row] = e.weight;
        }
        self.most_weight = self.most_weight.max(e.weight);
        if let Some(sketches) = block.sketches.get_mut(row) {
            *sketches = e.sketches;
        }
        let start = self.codes.len() - g.code_block_bytes();
        fastscan::set_code(&mut self.codes[start..], row, bits);
        self.len += 1;
    }
}

/// Metapage and entry table of an index. Cheap to keep from scan to scan: see [`Index::refresh`].
#[derive(Clone, Debug)]
pub struct Index {
    pub(crate) meta: Meta,
    pub(crate) space: Space,
    entries: EntryTable,
    /// Entries that others took the place of before the metapage was last read, and that are not known here.
    unknown: u32,
}

/// The lookahead grows by this power of the number of rows: measured are .2 from 250,000 to 1,000,000.
const GROWTH: f64 = 0.2;
/// Rows that the usual lookahead is good for.
const USUAL_ROWS: u32 = 250_000;

impl Index {
    /// Reads the metapage, the basis, the leaders and the entry table: 2 to some hundred pages.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn open<S: PageStore>(store: &S) -> Result<Self, AccessError<S::Error>> {
        let meta = read_meta(store)?;
        let reflectors = read_vectors(store, &meta, meta.reflections_first, meta.reflections)?;
        let leaders = read_vectors(store, &meta, meta.leaders_first, meta.geometry.leaders())?;
        let mut space = Space::new(&meta, reflectors, &leaders);
        space.columns = read_bounds(store, &meta)?;
        let mut entries = EntryTable::default();
        entries.load_from(store, &meta, 0)?;
        Ok(Self { meta, space, entries, unknown: 0 })
    }

    /// Reads one page, and the entry table again if it has changed, or everything if the index was rebuilt.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn refresh<S: PageStore>(&mut self, store: &S) -> Result<(), AccessError<S::Error>> {
        match self.changes(store)? {
            Some(EntryChanges { appended: 0, replaced: 0 }) => {}
            Some(_) => {
                self.meta = read_meta(store)?;
                self.entries.load_from(store, &self.meta, 0)?;
                self.unknown = 0;
            }
            None => *self = Self::open(store)?,
        }
        Ok(())
    }

    /// As [`Index::refresh`], but bears with a few entries that others took the place of. New ones it reads at once:
    /// they may be the only ones of their region.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn refresh_if_stale<S: PageStore>(&mut self, store: &S) -> Result<(), AccessError<S::Error>> {
        match self.changes(store)? {
            Some(changes) if self.are_bearable(changes) => {
                if changes.appended > 0 {
                    self.meta = read_meta(store)?;
                    self.unknown = changes.replaced;
                    self.entries.load_from(store, &self.meta, self.entries.pages.len().saturating_sub(1))?;
                }
                Ok(())
            }
            _ => self.refresh(store),
        }
    }

    /// Reads one page, and says whether a search may start from the entries at hand: if none is new and few have
    /// changed since. Slots of some may hold other vectors by now; a search meets such links anyway.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn is_searchable<S: PageStore>(&self, store: &S) -> Result<bool, AccessError<S::Error>> {
        let changes = self.changes(store)?;
        Ok(changes.is_some_and(|changes| changes.appended == 0 && self.are_bearable(changes)))
    }

    fn are_bearable(&self, changes: EntryChanges) -> bool {
        changes.replaced <= self.meta.entry_count / STALE_SHARE
    }

    /// What of the entry table is not known here; `None` if the index was rebuilt.
    fn changes<S: PageStore>(&self, store: &S) -> Result<Option<EntryChanges>, AccessError<S::Error>> {
        let page = store.read(BlockNumber(0))?;
        let stamp = Meta::stamp(&page).at(BlockNumber(0))?;
        let since = stamp.changes_since(Stamp::of(&self.meta));
        Ok(since.map(|changes| EntryChanges {
            replaced: changes.replaced.saturating_add(self.unknown),
            ..changes
        }))
    }

    /// Whether every entry of the metapage as it was last read is known, and the metapage is still so.
    pub(crate) fn is_current(&self, meta: &Meta) -> bool {
        self.unknown == 0 && self.meta.entry_generation == meta.entry_generation
    }

    /// About the memory that it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let EntryTable { pages, ids, groups, heavy_from: _ } = &self.entries;
        let group = |group: &Group| {
            let sketches = if self.space.columns.is_empty() { 0 } else { MAX_DEGREE * size_of::<Sketches>() };
            let weights = if self.space.is_weighted() { size_of::<[f32; MAX_DEGREE]>() } else { 0 };
            let block = size_of::<EntryBlock>() + weights + sketches;
            size_of::<Group>() + group.codes.capacity() + group.blocks.capacity() * block
        };
        let tables = pages.capacity() * size_of::<BlockNumber>()
            + ids.capacity() * size_of::<NodeId>()
            + groups.iter().map(group).sum::<usize>();
        // Center and signs, the vectors of the basis, and the leaders, which are there with 8 bits as well.
        let vectors = 8 + self.space.basis().count() + self.space.leaders.count() * 5 / 4;
        tables + vectors * size_of::<f32>() * self.space.geometry.padded_dim() + size_of::<Self>()
    }

    /// Sizes of the pages of an index that need not be opened. Reads one page.
    ///
    /// # Errors
    /// [`AccessError`] if it is no metapage.
    pub fn geometry<S: PageStore>(store: &S) -> Result<Geometry, AccessError<S::Error>> {
        Ok(read_meta(store)?.geometry)
    }

    /// The space of its vectors.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The metapage as it was when last read.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Pages of the entry table.
    pub(crate) fn entry_pages(&self) -> usize {
        self.entries.pages.len()
    }

    /// How far a search should look ahead to find such a share of the nearest rows, by what was measured when the
    /// index was built; more rows since want a little more. Reads one page.
    ///
    /// # Errors
    /// [`AccessError`] if it is no metapage.
    pub fn lookahead<S: PageStore>(store: &S, target_recall: f64) -> Result<usize, AccessError<S::Error>> {
        let meta = read_meta(store)?;
        let measured = calibrate::lookahead(&meta.calibration, target_recall);
        let was_measured = !meta.calibration.contains(&0);
        let built = f64::from(if was_measured { meta.built_rows.max(1) } else { USUAL_ROWS });
        let pages = store.block_count()?;
        let now = f64::from(pages) * meta.geometry.slots() as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let grown = (measured as f64 * (now / built).max(1.0).powf(GROWTH)).min(1e6) as usize;
        Ok(grown)
    }

    /// The nodes that searches may start from.
    pub fn entry_points(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.entries.ids.iter().copied().filter(|&id| id != NodeId::NONE)
    }

    /// As [`Index::entry_points`], with each entry's number in the table.
    pub(crate) fn entry_points_with_place(&self) -> impl Iterator<Item = (usize, NodeId)> + '_ {
        self.entries.ids.iter().copied().enumerate().filter(|&(_, id)| id != NodeId::NONE)
    }

    /// Number of an entry that a node may take over, if there is a hole before the last entry.
    pub(crate) fn entry_hole(&self) -> Option<usize> {
        self.entries.ids.iter().position(|&id| id == NodeId::NONE)
    }

    /// Whether a row is longer than most entries, where norms are known: then the highest products are often with it.
    pub(crate) fn is_heavy(&self, norm: f32) -> bool {
        self.entries.heavy_from.is_some_and(|heavy| norm > heavy)
    }

    /// Page of an entry and its place there. All pages but the last are full.
    pub(crate) fn entry_place(&self, number: usize) -> Option<(BlockNumber, usize)> {
        let per_page = self.space.geometry.entries_per_page();
        Some((*self.entries.pages.get(number / per_page)?, number % per_page))
    }

    /// Calls `each` with the estimated scores of entries, a block at a time: those of the leaders nearest to the query, until
    /// there were `wanted` of them, and four leaders at least. Under a filter more leaders follow, with those of their entries that may
    /// pass, until there were `passing`. Holes have ids of none; the last argument decides which may pass. Returns the share of these leaders'
    /// entries that may pass; 1 without a filter.
    pub(crate) fn score_entries(
        &self,
        query: &Query,
        wanted: usize,
        filter: Option<&Filter>,
        passing: usize,
        mut each: impl FnMut(&[f32; MAX_DEGREE], &[NodeId; MAX_DEGREE], &[bool; MAX_DEGREE]),
    ) -> f64 {
        let (space, groups) = (&self.space, &self.entries.groups);
        let mut order: Vec<Key> = query
            .leader_scores(space)
            .zip(0u32..)
            .filter(|&(_, leader)| groups.get(leader as usize).is_some_and(|group| group.len > 0))
            .map(|(score, leader)| {
                let weight = if query.is_weighted() { groups[leader as usize].most_weight } else { 1.0 };
                Key::new(weight * score, NodeId(leader))
            })
            .collect();
        order.sort_unstable();
        let (mut seen, mut passed) = (0, 0);
        for (i, key) in order.into_iter().enumerate() {
            let has_all = i >= FEWEST_LEADERS && seen >= wanted;
            if has_all && (filter.is_none() || passed >= passing) {
                break;
            }
            let leader = u16::try_from(key.id().0).expect("numbers of leaders");
            let group = &groups[usize::from(leader)];
            let codes = group.codes.chunks_exact(space.geometry.code_block_bytes());
            for (block, codes) in group.blocks.iter().zip(codes) {
                let mut may_pass = [false; MAX_DEGREE];
                if let Some(filter) = filter {
                    for (may, sketches) in may_pass.iter_mut().zip(&block.sketches) {
                        *may = filter.may_admit_sketches(sketches);
                        passed += usize::from(*may);
                    }
                    if has_all && !may_pass.contains(&true) {
                        continue;
                    }
                }
                let weights = block.weights.as_deref();
                each(
                    &query.entry_estimates(space, leader, &block.adds, &block.scales, weights, codes),
                    &block.ids,
                    &may_pass,
                );
            }
            seen += group.len;
        }
        #[allow(clippy::cast_precision_loss, reason = "at most 131,072 entries")]
        let share = |passed: usize| (passed as f64 + 0.5) / (seen as f64 + 1.0);
        if filter.is_some() { share(passed).min(1.0) } else { 1.0 }
    }
}

/// Leaders whose entries are scored at least.
const FEWEST_LEADERS: usize = 4;

/// Reads a chain of vectors that the metapage names.
fn read_vectors<S: PageStore>(
    store: &S,
    meta: &Meta,
    first: u32,
    count: u16,
) -> Result<Vec<f32>, AccessError<S::Error>> {
    let (g, count) = (&meta.geometry, usize::from(count));
    let (mut all, mut next) = (Vec::new(), first);
    while all.len() < count * g.padded_dim() {
        let block = BlockNumber(next);
        store.check_interrupts()?;
        let page = store.read(block)?;
        let (following, used) = vectors::header(&page, g).at(block)?;
        if used == 0 {
            return Err(AccessError::EndlessChain { block });
        }
        for i in 0..used {
            vectors::get(&page, g, i, &mut all).at(block)?;
        }
        next = following;
    }
    all.truncate(count * g.padded_dim());
    Ok(all)
}

/// Reads what sketches of keys are made by.
fn read_bounds<S: PageStore>(store: &S, meta: &Meta) -> Result<Columns, AccessError<S::Error>> {
    let kinds = meta.geometry.columns();
    let mut columns = Columns::new(&kinds);
    if meta.bounds_first != 0 {
        for (i, block) in (0..kinds.len()).zip(meta.bounds_first..).map(|(i, block)| (i, BlockNumber(block)))
        {
            let page = store.read(block)?;
            columns = columns.with_bounds(i, bounds::get(&page).at(block)?);
        }
    }
    Ok(columns)
}

/// What a node says of itself.
pub(crate) fn read_header<S: PageStore>(
    store: &S,
    g: &Geometry,
    id: NodeId,
) -> Result<Header, AccessError<S::Error>> {
    let block = g.block_of(id);
    let page = store.read(block)?;
    Ok(*Node::read(&page, g, g.slot_of(id)).at(block)?.header())
}

pub(crate) fn read_meta<S: PageStore>(store: &S) -> Result<Meta, AccessError<S::Error>> {
    let page = store.read(BlockNumber(0))?;
    Meta::decode(&page).at(BlockNumber(0))
}

impl EntryTable {
    /// Reads the pages of the table from one on; 0 is the first.
    fn load_from<S: PageStore>(
        &mut self,
        store: &S,
        meta: &Meta,
        first: usize,
    ) -> Result<(), AccessError<S::Error>> {
        let g = &meta.geometry;
        let mut next = self.pages.get(first).map_or(meta.entry_first, |block| block.0);
        // All pages but the last are full. What is read again is taken out of its groups.
        self.pages.truncate(first);
        let stale = self.ids.split_off((first * g.entries_per_page()).min(self.ids.len()));
        if self.ids.is_empty() {
            self.groups.clear();
        } else if !stale.is_empty() {
            let stale: HashSet<NodeId> = stale.into_iter().collect();
            for block in self.groups.iter_mut().flat_map(|group| &mut group.blocks) {
                block.ids.iter_mut().filter(|id| stale.contains(id)).for_each(|id| *id = NodeId::NONE);
            }
        }
        self.groups.resize(usize::from(g.leaders()) + 1, Group::default());
        let count = store.block_count()?;
        while next != 0 {
            let block = BlockNumber(next);
            if self.pages.len() >= count as usize {
                return Err(AccessError::EndlessChain { block });
            }
            store.check_interrupts()?;
            let page = store.read(block)?;
            let (following, used) = entry::header(&page, g).at(block)?;
            self.pages.push(block);
            for i in 0..used {
                let e = entry::get(&page, g, i);
                self.ids.push(e.id);
                let leaders = u64::from(g.leaders());
                layout::check("leader", e.leader.into(), 0, leaders).at(block)?;
                if e.id != NodeId::NONE {
                    let bits = fastscan::get_code(entry::codes(&page, g, i), i % MAX_DEGREE);
                    self.groups[usize::from(e.leader)].push(g, &e, &bits);
                }
            }
            next = following;
        }
        if g.is_weighted() {
            let blocks = self.groups.iter().flat_map(|group| &group.blocks);
            let mut norms: Vec<f32> = blocks
                .flat_map(|block| block.ids.iter().zip(block.weights.iter().flat_map(|all| all.iter())))
                .filter_map(|(&id, &norm)| (id != NodeId::NONE).then_some(norm))
                .collect();
            let at = norms.len() / 4;
            let norm =
                (!norms.is_empty()).then(|| *norms.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1);
            self.heavy_from = norm;
        }
        // What is kept from scan to scan takes no more than it needs; where inserts add to it, room for more saves copies.
        if first == 0 {
            self.pages.shrink_to_fit();
            self.ids.shrink_to_fit();
            for group in &mut self.groups {
                group.blocks.shrink_to_fit();
                group.codes.shrink_to_fit();
            }
        }
        Ok(())
    }
}
