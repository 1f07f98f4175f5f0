//! What can be reached from the entries, in an index that may be larger than memory: two bits for each node, and
//! passes over the pages instead of a walk.

use crate::bits::Bits;
use crate::index::{AccessError, Decoded};
use crate::layout::node::{Header, Node};
use crate::layout::{BlockNumber, Geometry, Kind, NodeId, kind_in};
use crate::store::PageStore;

/// A node of a page, with its neighbors.
pub struct Seen {
    /// The node.
    pub id: NodeId,
    /// Its header.
    pub header: Header,
    /// Its keys.
    pub keys: Vec<u8>,
    /// Ends of its edges.
    pub neighbors: Vec<NodeId>,
}

/// The nodes of a page; none if it is no node page.
///
/// # Errors
/// [`AccessError`].
pub fn nodes_of<S: PageStore>(
    store: &S,
    g: &Geometry,
    block: BlockNumber,
) -> Result<Vec<Seen>, AccessError<S::Error>> {
    store.check_interrupts()?;
    let page = store.read(block)?;
    if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
        return Ok(Vec::new());
    }
    let mut seen = Vec::with_capacity(g.slots());
    for slot in 0..g.slots() {
        let node = Node::read(&page, g, slot).at(block)?;
        if let Some(id) = g.node_id(block, slot) {
            let (header, keys) = (*node.header(), node.keys().to_vec());
            seen.push(Seen { id, header, keys, neighbors: node.ids().collect() });
        }
    }
    Ok(seen)
}

/// Nodes that were reached so far.
pub struct Reach {
    reached: Bits,
    /// Those whose own links were followed.
    expanded: Bits,
}

impl Reach {
    /// Nothing yet, of an index with so many pages.
    #[must_use]
    pub fn new(g: &Geometry, pages: u32) -> Self {
        let places = pages as usize * g.slots();
        Self { reached: Bits::new(places), expanded: Bits::new(places) }
    }

    /// Whether a path leads to a node.
    #[must_use]
    pub fn has(&self, id: NodeId) -> bool {
        self.reached.has(id.0)
    }

    /// A path leads to a node.
    pub fn set(&mut self, id: NodeId) {
        self.reached.set(id.0);
    }

    fn is_open(&self, id: NodeId) -> bool {
        self.reached.has(id.0) && !self.expanded.has(id.0)
    }

    /// Follows links from all that is reached to the nodes of which `is_node` holds, and calls `visit` with each node whose
    /// links it follows. Passes go to and fro; a page is read at most once for each of its nodes, and mostly once for
    /// several.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn follow<S: PageStore>(
        &mut self,
        store: &S,
        g: &Geometry,
        is_node: impl Fn(NodeId) -> bool,
        mut visit: impl FnMut(&Seen),
    ) -> Result<(), AccessError<S::Error>> {
        let words = self.reached.words().len();
        let mut forth = true;
        loop {
            let mut done = true;
            store.check_interrupts()?;
            for i in 0..words {
                let word = if forth { i } else { words - 1 - i };
                while let Some(open) = self.open_in(word, forth) {
                    done = false;
                    let here = nodes_of(store, g, g.block_of(open))?;
                    while let Some(node) = here.iter().find(|node| self.is_open(node.id)) {
                        self.expanded.set(node.id.0);
                        for &to in node.neighbors.iter().filter(|&&to| is_node(to)) {
                            self.reached.set(to.0);
                        }
                        visit(node);
                    }
                    // Also if its page is no node page any more, which only a damaged index shows.
                    self.expanded.set(open.0);
                }
            }
            if done {
                return Ok(());
            }
            forth = !forth;
        }
    }

    /// The first or the last open node of a word.
    fn open_in(&self, word: usize, first: bool) -> Option<NodeId> {
        let open = self.reached.words()[word] & !self.expanded.words()[word];
        let bit = if first { open.trailing_zeros() } else { 63 - open.leading_zeros().min(63) };
        (open != 0).then(|| NodeId(u32::try_from(word * 64).expect("ids are 32 bits wide") + bit))
    }
}
