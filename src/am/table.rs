//! Reading a table's vectors as its index would see them.

use super::insert::{seed, tid};
use super::keys::{KeyColumns, TableRow};
use super::opclass::{self, Elements, ORDER_STRATEGY, OpClass};
use crate::fault;
use crate::server::raw::RowFetch;
use crate::server::{subtransaction, version};
use crate::storage::Relation;
use crate::types::datum::NewVector;
use half::f16;
use imgvec_ann::layout::HeapTid;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::space::MAX_NORM;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgTryBuilder, pg_guard, pg_sys};
use std::ffi::c_void;
use std::ops::Range;
use std::panic::AssertUnwindSafe;

/// Places of the table that a sample comes from.
const SAMPLE_PLACES: u32 = 64;
/// Pages read at each of them: wide rows are one to a page.
const SAMPLE_PAGES: u32 = 4;

/// What costs as many operators as this runs once a row: functions in SQL and procedural languages, and models.
const COSTLY_OPERATORS: f64 = 100.0;

/// A table, its index, and how the one becomes the other.
pub struct Table<'a> {
    heap: Relation<'a>,
    index: Relation<'a>,
    info: *mut pg_sys::IndexInfo,
    elements: Elements,
    keys: KeyColumns,
}

/// What a scan of the table calls for each row, and how to read the row's vector.
struct EachRow<'a> {
    elements: Elements,
    keys: &'a KeyColumns,
    call: &'a mut dyn FnMut(&TableRow),
}

impl<'a> Table<'a> {
    /// # Safety
    /// `info` describes the index, for as long as the relations are open.
    pub unsafe fn new(heap: Relation<'a>, index: Relation<'a>, info: *mut pg_sys::IndexInfo) -> Self {
        Self { heap, index, info, elements: OpClass::of(index).elements, keys: KeyColumns::of(index) }
    }

    pub fn index(&self) -> Relation<'a> {
        self.index
    }

    /// Calls `each` with vector and keys of every row; rows without one are left out. Answers the number of
    /// rows, as the server wants to know it. Reports progress.
    pub fn scan(&self, mut each: impl FnMut(&TableRow)) -> f64 {
        self.scan_pages(0, pg_sys::InvalidBlockNumber, true, &mut each)
    }

    /// Dimensions of the first vector of the table. Reads as much of it as that takes, in steps that double.
    pub fn first_dim(&self) -> Option<usize> {
        let end = self.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM);
        let (mut start, mut dim) = (0, None);
        while start < end && dim.is_none() {
            let next = end.min(2 * start + 1);
            self.scan_pages(start, next - start, false, &mut |row| {
                dim = dim.or(Some(row.vector.len()));
            });
            start = next;
        }
        dim
    }

    /// As [`Table::scan`], of some blocks of the table.
    pub fn scan_part(&self, blocks: &Range<u32>, mut each: impl FnMut(&TableRow)) {
        let end = self.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM).min(blocks.end);
        if blocks.start < end {
            self.scan_pages(blocks.start, end - blocks.start, false, &mut each);
        }
    }

    fn scan_pages(&self, start: u32, count: u32, whole: bool, call: &mut dyn FnMut(&TableRow)) -> f64 {
        fault::point("scan the table");
        let mut each = EachRow { elements: self.elements, keys: &self.keys, call };
        // SAFETY: open relations; the state outlives the scan.
        unsafe {
            pg_sys::table_index_build_range_scan(
                self.heap.as_raw(),
                self.index.as_raw(),
                self.info,
                whole,
                false,
                whole,
                start,
                count,
                Some(row),
                (&raw mut each).cast(),
                std::ptr::null_mut(),
            )
        }
    }

    /// Scans the index from `query`, as a plan does: calls `each` with each visible row's lower bound, tid and
    /// vector, until it says false.
    pub fn search(&self, query: &[f32], mut each: impl FnMut(f64, HeapTid, &[f32]) -> bool) {
        let mut key = pg_sys::ScanKeyData {
            sk_attno: 1,
            sk_strategy: ORDER_STRATEGY,
            sk_argument: self.datum(query),
            ..Default::default()
        };
        // SAFETY: open relations, an active snapshot; slot, scan and executor state are given back below, or
        // by the server after an error.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            fault::point("make a slot");
            let slot = pg_sys::table_slot_create(self.heap.as_raw(), std::ptr::null_mut());
            let context = pg_sys::MakePerTupleExprContext(state);
            (*context).ecxt_scantuple = slot;
            let snapshot = pg_sys::GetActiveSnapshot();
            let scan = version::begin_ordered_scan(self.heap.as_raw(), self.index.as_raw(), snapshot);
            fault::point("begin a scan of the index");
            pg_sys::index_rescan(scan, std::ptr::null_mut(), 0, &raw mut key, 1);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while pg_sys::index_getnext_slot(scan, forward, slot) {
                fault::point("evaluate the index's expressions");
                let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
                let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
                pg_sys::FormIndexDatum(self.info, slot, state, values.as_mut_ptr(), nulls.as_mut_ptr());
                let lower_bound = f64::from_bits((*(*scan).xs_orderbyvals).value() as u64);
                let tid = tid(&raw mut (*slot).tts_tid);
                let goes_on = opclass::vector(values[0], nulls[0], self.elements)
                    .is_none_or(|vector| each(lower_bound, tid, &vector));
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
                if !goes_on {
                    break;
                }
            }
            fault::point("end a scan of the index");
            pg_sys::index_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::FreeExecutorState(state);
            // The expression state was the executor state's.
            (*self.info).ii_ExpressionsState = std::ptr::null_mut();
        }
    }

    /// Hands `work` a function that fetches rows by their places in the index: the place of the version that the statement's
    /// snapshot sees, if it sees one, and its vector, if it has one.
    pub fn with_rows<T>(
        &self,
        work: impl FnOnce(&mut dyn FnMut(HeapTid) -> Option<(HeapTid, Vec<f32>)>) -> T,
    ) -> T {
        // SAFETY: open relations, an active snapshot; slot, fetch and executor state are given back below, or by the
        // server after an error.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            fault::point("make a slot");
            let slot = pg_sys::table_slot_create(self.heap.as_raw(), std::ptr::null_mut());
            let context = pg_sys::MakePerTupleExprContext(state);
            (*context).ecxt_scantuple = slot;
            let snapshot = pg_sys::GetActiveSnapshot();
            let fetch = RowFetch::begin(self.heap.as_raw());
            let done = work(&mut |place| {
                pgrx::check_for_interrupts!();
                let mut item = pg_sys::ItemPointerData::default();
                pgrx::itemptr::item_pointer_set_all(&mut item, place.block, place.offset);
                if !fetch.fetch(&mut item, snapshot, slot) {
                    return None;
                }
                let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
                let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
                fault::point("evaluate the index's expressions");
                pg_sys::FormIndexDatum(self.info, slot, state, values.as_mut_ptr(), nulls.as_mut_ptr());
                let vector =
                    opclass::vector(values[0], nulls[0], self.elements).map(|vector| vector.to_vec());
                let seen = tid(&raw mut (*slot).tts_tid);
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
                Some((seen, vector?))
            });
            fetch.end();
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::FreeExecutorState(state);
            // The expression state was the executor state's.
            (*self.info).ii_ExpressionsState = std::ptr::null_mut();
            done
        }
    }

    /// A vector as the index's column has it.
    fn datum(&self, vector: &[f32]) -> pg_sys::Datum {
        match self.elements {
            Elements::Single => NewVector::from_slice(vector).into_raw(),
            Elements::Half => {
                let half: Vec<f16> = vector
                    .iter()
                    .map(|&x| f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())))
                    .collect();
                NewVector::from_slice(&half).into_raw()
            }
        }
    }

    /// Whether it costs much to compute a row's vector, or whether the row is to be indexed, by the COST of functions.
    pub fn is_costly(&self) -> bool {
        fault::point("price the index's expressions");
        // SAFETY: the description is valid as long as the table is; its lists hold expressions.
        unsafe {
            [(*self.info).ii_Expressions, (*self.info).ii_Predicate].into_iter().any(|expressions| {
                let mut cost = pg_sys::QualCost::default();
                pg_sys::cost_qual_eval(&raw mut cost, expressions, std::ptr::null_mut());
                cost.startup + cost.per_tuple >= COSTLY_OPERATORS * pg_sys::cpu_operator_cost
            })
        }
    }

    /// Vectors, and keys one row after another, of up to `count` rows from all over the table. Vectors of other dimensions, or too long for an index,
    /// are left out: who reads the whole table reports them.
    pub fn sample(&self, dim: usize, count: usize) -> (Vec<Vec<f32>>, Vec<u64>) {
        let blocks = self.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM);
        let mut random = SplitMix64::new(seed());
        let mut rows: Vec<(Vec<f32>, Vec<u64>)> = Vec::new();
        let mut seen = 0;
        let mut take = |row: &TableRow| {
            pgrx::check_for_interrupts!();
            if !may_be_sampled(row.vector, dim) {
                return;
            }
            // Reservoir sampling (Vitter 1985).
            seen += 1;
            let place = if rows.len() < count { rows.len() } else { random.below(seen) };
            if place < count {
                let row = (row.vector.to_vec(), row.keys.to_vec());
                if place < rows.len() {
                    rows[place] = row;
                } else {
                    rows.push(row);
                }
            }
        };
        if blocks <= SAMPLE_PLACES * SAMPLE_PAGES {
            self.scan_pages(0, blocks, false, &mut take);
        } else {
            let mut random = SplitMix64::new(seed());
            for place in 0..SAMPLE_PLACES {
                let (start, end) = (range_start(blocks, place), range_start(blocks, place + 1));
                let at = start + u32::try_from(random.below((end - start) as usize)).expect("a block");
                self.scan_pages(at, SAMPLE_PAGES.min(blocks - at), false, &mut take);
            }
        }
        let (vectors, keys): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        (vectors, keys.concat())
    }
}

/// Whether a vector may be one of a sample for an index of so many dimensions.
pub fn may_be_sampled(vector: &[f32], dim: usize) -> bool {
    vector.len() == dim && vector.iter().all(|x| f64::from(x.abs()) <= MAX_NORM)
}

fn range_start(blocks: u32, place: u32) -> u32 {
    let start = u64::from(blocks) * u64::from(place) / u64::from(SAMPLE_PLACES);
    u32::try_from(start).expect("below the number of blocks")
}

#[pg_guard]
unsafe extern "C-unwind" fn row(
    _index: pg_sys::Relation,
    heap_tid: pg_sys::ItemPointer,
    values: *mut pg_sys::Datum,
    is_null: *mut bool,
    is_alive: bool,
    state: *mut c_void,
) {
    fault::point("take a row of the table");
    // SAFETY: the server passes what Table::scan_pages gave it, one value and a tid.
    unsafe {
        let each = &mut *state.cast::<EachRow>();
        if *is_null {
            return;
        }
        let tid = tid(heap_tid);
        if !is_alive && pgrx::varlena::varatt_is_1b_e((*values).cast_mut_ptr()) {
            if let Some((vector, keys)) = fetch_dead(values, is_null, each) {
                (each.call)(&TableRow { vector: &vector, keys: &keys, tid });
            }
        } else if let Some(vector) = opclass::vector(*values, false, each.elements) {
            let keys = each.keys.keys(values, is_null);
            (each.call)(&TableRow { vector: &vector, keys: &keys, tid });
        }
    }
}

/// Vector and keys of a row that is deleted, but that an old snapshot may still see. Its value lies in the TOAST
/// table, which is vacuumed by itself and may have lost it already; then nobody can ask for the row.
///
/// # Safety
/// An index tuple whose vector is not NULL.
unsafe fn fetch_dead(
    values: *const pg_sys::Datum,
    is_null: *const bool,
    each: &EachRow,
) -> Option<(Vec<f32>, Vec<u64>)> {
    let (elements, columns) = (each.elements, each.keys);
    subtransaction::attempt(|| {
        // SAFETY: by contract.
        let fetch = || unsafe {
            let vector = opclass::vector(*values, false, elements)?.to_vec();
            Some((vector, columns.keys(values, is_null)))
        };
        PgTryBuilder::new(AssertUnwindSafe(fetch))
            .catch_when(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, |_| None)
            .execute()
    })
}
