//! Disjoint sets (union by size, paths halved).

pub struct Sets {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl Sets {
    pub fn new(count: usize) -> Self {
        let count = u32::try_from(count).expect("rows are numbered by 32 bits");
        Self { parent: (0..count).collect(), size: vec![1; count as usize] }
    }

    pub fn find(&mut self, of: u32) -> u32 {
        let mut at = of;
        while self.parent[at as usize] != at {
            let next = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = next;
            at = next;
        }
        at
    }

    /// Joins the sets of two; false if they were one already.
    pub fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return false;
        }
        let (small, large) = if self.size[a as usize] < self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[small as usize] = large;
        self.size[large as usize] += self.size[small as usize];
        true
    }
}
