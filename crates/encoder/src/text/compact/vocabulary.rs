//! Texts of tokens by id, and ids by text.

use super::format::{FormatError, HASHES, OFFSETS, TEXTS, Tables};

/// Tokens with the ids 0 to `len`.
pub(super) struct Vocabulary {
    pub tables: Tables,
    /// Places of the hash table, a power of two.
    places: usize,
}

impl Vocabulary {
    pub fn new(tables: Tables) -> Result<Self, FormatError> {
        let places = tables.section(HASHES).len() / 4;
        if !places.is_power_of_two() {
            return Err(FormatError::Damaged);
        }
        Ok(Vocabulary { tables, places })
    }

    pub fn len(&self) -> usize {
        self.tables.tokens
    }

    /// The text of a token as bytes.
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let start = self.tables.number(OFFSETS, id as usize)?;
        let end = self.tables.number(OFFSETS, id as usize + 1)?;
        self.tables.section(TEXTS).get(start as usize..end as usize)
    }

    /// The text of a token.
    pub fn token(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.bytes(id)?).ok()
    }

    /// The token of a text.
    pub fn id(&self, text: &str) -> Option<u32> {
        let mut place = first_place(text.as_bytes(), self.places);
        for _ in 0..self.places {
            let id = self.tables.number(HASHES, place)?.checked_sub(1)?;
            if self.bytes(id)? == text.as_bytes() {
                return Some(id);
            }
            place = (place + 1) & (self.places - 1);
        }
        None
    }
}

/// The sections of texts, offsets and hashes for tokens in the order of their ids.
pub(super) fn sections(tokens: &[String]) -> Option<[Vec<u8>; 3]> {
    let (mut texts, mut offsets) = (Vec::new(), Vec::new());
    for token in tokens {
        offsets.extend(u32::try_from(texts.len()).ok()?.to_le_bytes());
        texts.extend(token.as_bytes());
    }
    offsets.extend(u32::try_from(texts.len()).ok()?.to_le_bytes());

    let places = (tokens.len() * 2).next_power_of_two().max(2);
    let mut table = vec![0_u32; places];
    for (id, token) in tokens.iter().enumerate() {
        let mut place = first_place(token.as_bytes(), places);
        while table[place] != 0 {
            place = (place + 1) & (places - 1);
        }
        table[place] = u32::try_from(id + 1).ok()?;
    }
    Some([texts, offsets, table.iter().flat_map(|number| number.to_le_bytes()).collect()])
}

/// Where a text is looked for first. Frozen with the format: FNV-1a of 64 bits (Fowler, Noll, Vo), its halves mixed.
fn first_place(text: &[u8], places: usize) -> usize {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize & (places - 1)
}

#[cfg(test)]
mod tests {
    use super::first_place;

    #[test]
    fn the_hash_is_the_one_of_version_1() {
        let places: Vec<usize> = ["", "a", "dog", "\u{2581}the"]
            .iter()
            .map(|text| first_place(text.as_bytes(), 1 << 19))
            .collect();
        assert_eq!(places, KNOWN);
    }

    const KNOWN: [usize; 4] = [57_940, 105_884, 35_758, 221_936];
}
