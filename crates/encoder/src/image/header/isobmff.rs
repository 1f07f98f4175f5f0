//! Boxes of the ISO base media file format (ISO 14496-12), and the items of a picture file in them (ISO 23008-12).
//!
//! Boxes are read where they are expected, to a fixed depth, so that nesting without end costs nothing. All lists are no longer than the file.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bytes::Bytes;
use crate::image::ImageFormat;
use crate::image::error::ImageError;

/// Most items, properties of all items, and references that a file may have.
const MAX_ENTRIES: usize = 1 << 17;

/// A box, with its body as a place in the file.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: [u8; 4],
    pub(super) body: Range<usize>,
}

/// A file, and the format that its errors name.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) bytes: Bytes<'a>,
    pub(super) format: ImageFormat,
}

impl<'a> File<'a> {
    pub(super) fn new(data: &'a [u8], format: ImageFormat) -> Self {
        Self { bytes: Bytes::big(data), format }
    }

    pub(super) fn damaged(&self, reason: &str) -> ImageError {
        ImageError::corrupt(self.format, reason)
    }

    pub(super) fn cut_off(&self) -> ImageError {
        super::cut_off(self.format)
    }

    pub(super) fn all(&self) -> Range<usize> {
        0..self.bytes.data.len()
    }

    /// The boxes in a place. What is after the last whole header is passed over, and a box that ends too late ends there.
    pub(super) fn parts(self, place: Range<usize>) -> impl Iterator<Item = Part> + 'a {
        let mut at = place.start;
        std::iter::from_fn(move || {
            let left = place.end.checked_sub(at).filter(|&left| left >= 8)?;
            let kind = self.bytes.tag(at + 4)?;
            let (header, size) = match self.bytes.u32(at)? {
                0 => (8, left),
                1 => (16, usize::try_from(self.bytes.u64(at + 8)?).unwrap_or(usize::MAX)),
                size => (8, size as usize),
            };
            if size < header || header > left {
                return None;
            }
            let body = at + header..at + size.min(left);
            at = body.end;
            Some(Part { kind, body })
        })
    }

    pub(super) fn part(self, place: Range<usize>, kind: &[u8; 4]) -> Option<Range<usize>> {
        self.parts(place).find(|part| &part.kind == kind).map(|part| part.body)
    }

    /// A cursor over a place.
    pub(super) fn cursor(self, place: Range<usize>) -> Cursor<'a> {
        Cursor { file: self, place }
    }
}

/// Reads numbers one after the other, within a place.
pub(super) struct Cursor<'a> {
    file: File<'a>,
    pub(super) place: Range<usize>,
}

impl Cursor<'_> {
    pub(super) fn skip(&mut self, count: usize) -> Result<(), ImageError> {
        if count > self.place.len() {
            return Err(self.file.cut_off());
        }
        self.place.start += count;
        Ok(())
    }

    /// An unsigned number of so many bytes, 8 at most; 0 for none.
    pub(super) fn number(&mut self, bytes: usize) -> Result<u64, ImageError> {
        let at = self.place.start;
        self.skip(bytes)?;
        let read = self.file.bytes.data[at..at + bytes].iter();
        Ok(read.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    pub(super) fn u8(&mut self) -> Result<u8, ImageError> {
        self.number(1).map(|number| number as u8)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ImageError> {
        self.number(2).map(|number| number as u16)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ImageError> {
        self.number(4).map(|number| number as u32)
    }

    pub(super) fn tag(&mut self) -> Result<[u8; 4], ImageError> {
        self.u32().map(u32::to_be_bytes)
    }

    /// Version and flags of a full box.
    pub(super) fn version(&mut self) -> Result<(u8, u32), ImageError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// A number of entries, each of at least so many bytes.
    pub(super) fn count(&mut self, count: u64, least: usize) -> Result<usize, ImageError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.place.len() / least {
            return Err(self.file.cut_off());
        }
        if count > MAX_ENTRIES {
            return Err(ImageError::unsupported(self.file.format, "with so many parts"));
        }
        Ok(count)
    }
}

/// One thing in the file: a coded picture, a grid, metadata.
#[derive(Default)]
pub(super) struct Item {
    pub(super) kind: [u8; 4],
    /// Where its bytes lie, in order.
    extents: Vec<Range<u64>>,
    /// The places are those of `idat`.
    is_in_idat: bool,
    /// They are in no way that is known here.
    is_elsewhere: bool,
    /// Numbers of properties from 1, and whether a reader must know them.
    properties: Vec<(u16, bool)>,
}

/// Items refer to others: tiles of a grid, the alpha of a picture.
pub(super) struct Reference {
    pub(super) kind: [u8; 4],
    pub(super) from: u32,
    pub(super) to: Vec<u32>,
}

/// The items of a file.
pub(super) struct Meta<'a> {
    pub(super) file: File<'a>,
    pub(super) primary: u32,
    items: BTreeMap<u32, Item>,
    properties: Vec<Part>,
    pub(super) references: Vec<Reference>,
    idat: Range<usize>,
}

impl<'a> Meta<'a> {
    pub(super) fn read(file: File<'a>) -> Result<Self, ImageError> {
        let body = file.part(file.all(), b"meta").ok_or_else(|| file.damaged("it names no picture"))?;
        let mut cursor = file.cursor(body);
        cursor.version()?;
        let mut meta = Self {
            file,
            primary: 0,
            items: BTreeMap::new(),
            properties: Vec::new(),
            references: Vec::new(),
            idat: 0..0,
        };
        let mut has_primary = false;
        for Part { kind, body } in file.parts(cursor.place) {
            match &kind {
                b"pitm" => {
                    let mut cursor = file.cursor(body);
                    let (version, _) = cursor.version()?;
                    meta.primary = cursor.number(if version == 0 { 2 } else { 4 })? as u32;
                    has_primary = true;
                }
                b"iinf" => meta.read_kinds(body)?,
                b"iloc" => meta.read_places(body)?,
                b"iref" => meta.read_references(body)?,
                b"iprp" => meta.read_properties(body)?,
                b"idat" => meta.idat = body,
                _ => {}
            }
        }
        if has_primary { Ok(meta) } else { Err(file.damaged("it names no picture")) }
    }

    fn read_kinds(&mut self, body: Range<usize>) -> Result<(), ImageError> {
        let mut cursor = self.file.cursor(body);
        let (version, _) = cursor.version()?;
        let count = cursor.number(if version == 0 { 2 } else { 4 })?;
        cursor.count(count, 8)?;
        for Part { kind, body } in self.file.parts(cursor.place) {
            if &kind != b"infe" {
                continue;
            }
            let mut cursor = self.file.cursor(body);
            let (version, _) = cursor.version()?;
            // Older entries have no kind, and are no pictures.
            if version >= 2 {
                let id = cursor.number(if version == 2 { 2 } else { 4 })? as u32;
                cursor.skip(2)?;
                let kind = cursor.tag()?;
                self.item(id)?.kind = kind;
            }
        }
        Ok(())
    }

    fn item(&mut self, id: u32) -> Result<&mut Item, ImageError> {
        if self.items.len() >= MAX_ENTRIES && !self.items.contains_key(&id) {
            return Err(ImageError::unsupported(self.file.format, "with so many parts"));
        }
        Ok(self.items.entry(id).or_default())
    }

    fn read_places(&mut self, body: Range<usize>) -> Result<(), ImageError> {
        let mut cursor = self.file.cursor(body);
        let (version, _) = cursor.version()?;
        let sizes = cursor.u16()?;
        let [offset_size, length_size, base_size, index_size] =
            [12, 8, 4, 0].map(|shift| usize::from(sizes >> shift & 15));
        if [offset_size, length_size, base_size, index_size].iter().any(|&size| size > 8) || version > 2 {
            return Err(self.file.damaged("its places are of unknown sizes"));
        }
        let count = cursor.number(if version < 2 { 2 } else { 4 })?;
        let count = cursor.count(count, 6)?;
        let mut extents_left = MAX_ENTRIES;
        for _ in 0..count {
            let id = cursor.number(if version < 2 { 2 } else { 4 })? as u32;
            let construction = if version > 0 { cursor.u16()? & 15 } else { 0 };
            let reference = cursor.u16()?;
            let base = cursor.number(base_size)?;
            let extent_count = u64::from(cursor.u16()?);
            let least = (offset_size + length_size).max(1);
            let extent_count = cursor.count(extent_count, least)?;
            extents_left = extents_left
                .checked_sub(extent_count)
                .ok_or_else(|| ImageError::unsupported(self.file.format, "with so many parts"))?;
            let mut extents = Vec::new();
            for _ in 0..extent_count {
                if version > 0 {
                    cursor.number(index_size)?;
                }
                let start = base.saturating_add(cursor.number(offset_size)?);
                let len = cursor.number(length_size)?;
                // A length of 0 means all that there is.
                extents.push(start..if len == 0 { u64::MAX } else { start.saturating_add(len) });
            }
            let item = self.item(id)?;
            item.extents = extents;
            item.is_in_idat = construction == 1;
            item.is_elsewhere = construction > 1 || reference != 0;
        }
        Ok(())
    }

    fn read_references(&mut self, body: Range<usize>) -> Result<(), ImageError> {
        let mut cursor = self.file.cursor(body);
        let (version, _) = cursor.version()?;
        let size = if version == 0 { 2 } else { 4 };
        let mut left = MAX_ENTRIES;
        for Part { kind, body } in self.file.parts(cursor.place) {
            let mut cursor = self.file.cursor(body);
            let from = cursor.number(size)? as u32;
            let count = u64::from(cursor.u16()?);
            let count = cursor.count(count, size)?;
            left = left
                .checked_sub(count + 1)
                .ok_or_else(|| ImageError::unsupported(self.file.format, "with so many parts"))?;
            let to = (0..count).map(|_| cursor.number(size).map(|id| id as u32));
            self.references.push(Reference { kind, from, to: to.collect::<Result<_, _>>()? });
        }
        Ok(())
    }

    fn read_properties(&mut self, body: Range<usize>) -> Result<(), ImageError> {
        let container = self.file.part(body.clone(), b"ipco").ok_or_else(|| self.file.cut_off())?;
        // 15 bits number them.
        self.properties = self.file.parts(container).take(1 << 15).collect();
        let mut left = MAX_ENTRIES;
        for part in self.file.parts(body).filter(|part| &part.kind == b"ipma") {
            let mut cursor = self.file.cursor(part.body);
            let (version, flags) = cursor.version()?;
            let count = u64::from(cursor.u32()?);
            let count = cursor.count(count, 3)?;
            for _ in 0..count {
                let id = cursor.number(if version == 0 { 2 } else { 4 })? as u32;
                let associations = usize::from(cursor.u8()?);
                left = left
                    .checked_sub(associations)
                    .ok_or_else(|| ImageError::unsupported(self.file.format, "with so many parts"))?;
                let is_long = flags & 1 != 0;
                let mut properties = Vec::new();
                for _ in 0..associations {
                    let (essential, number) = if is_long {
                        let word = cursor.u16()?;
                        (word >> 15, word & 0x7fff)
                    } else {
                        let byte = u16::from(cursor.u8()?);
                        (byte >> 7, byte & 0x7f)
                    };
                    if number > 0 {
                        properties.push((number, essential != 0));
                    }
                }
                self.item(id)?.properties = properties;
            }
        }
        Ok(())
    }

    pub(super) fn kind(&self, id: u32) -> Option<[u8; 4]> {
        self.items.get(&id).map(|item| item.kind)
    }

    /// Properties of an item, and whether a reader must know them.
    pub(super) fn properties(&self, id: u32) -> impl Iterator<Item = (&Part, bool)> {
        let numbers = self.items.get(&id).map_or(&[][..], |item| &item.properties);
        numbers.iter().filter_map(|&(number, essential)| {
            Some((self.properties.get(usize::from(number) - 1)?, essential))
        })
    }

    pub(super) fn property(&self, id: u32, kind: &[u8; 4]) -> Option<Range<usize>> {
        self.properties(id).find(|(part, _)| &part.kind == kind).map(|(part, _)| part.body.clone())
    }

    /// Where the bytes of an item lie in the file.
    pub(super) fn places(&self, id: u32) -> Result<Vec<Range<usize>>, ImageError> {
        let item =
            self.items.get(&id).ok_or_else(|| self.file.damaged("a part of the picture is not there"))?;
        if item.is_elsewhere {
            return Err(ImageError::unsupported(self.file.format, "whose parts lie in other items or files"));
        }
        let whole = if item.is_in_idat { self.idat.clone() } else { self.file.all() };
        let mut total = 0;
        let mut places = Vec::with_capacity(item.extents.len());
        for extent in &item.extents {
            let len = whole.len();
            let start = usize::try_from(extent.start).ok().filter(|&start| start < len);
            let end = if extent.end == u64::MAX { Some(len) } else { usize::try_from(extent.end).ok() };
            let (Some(start), Some(end)) = (start, end.filter(|&end| end <= len)) else {
                return Err(self.file.damaged("the picture's data are cut off"));
            };
            places.push(whole.start + start..whole.start + end);
            total += end - start;
            // Pieces that overlap would be more than the file.
            if total > self.file.bytes.data.len() {
                return Err(self.file.damaged("its pieces overlap"));
            }
        }
        if total == 0 {
            return Err(self.file.damaged("the picture has no data"));
        }
        Ok(places)
    }

    /// Width and height that a property tells.
    pub(super) fn sides(&self, id: u32) -> Result<(u32, u32), ImageError> {
        let body = self.property(id, b"ispe").ok_or_else(|| self.file.damaged("the size is not told"))?;
        let mut cursor = self.file.cursor(body);
        cursor.version()?;
        Ok((cursor.u32()?, cursor.u32()?))
    }
}
