//! Key columns after the vector: from values to the eight bytes that an index stores for each, and from scan keys to conditions on
//! these.
//!
//! Support function 1 of an operator class determines the mapping. *Ordered* values become numbers with the same order, or their first eight bytes
//! if they are longer. *Hashed* values become the hash that the type's hash partitions use. *Sets* are arrays, whose elements are hashed to
//! bits. A condition admits every row that the operator admits, and some others, so the executor checks all rows that a scan returns.

use super::opclass::SUPPORT_KIND;
use crate::error::{Code, Report};
use crate::fault;
use crate::storage::Relation;
use imgvec_ann::filter::{Condition, Kind, MAX_COLUMNS, NULL, signature};
use pgrx::{FromDatum, Internal, PgMemoryContexts, pg_sys};

/// What support function 1 answers. Codes of operator classes of vectors are smaller.
const ORDERED: i32 = 101;
const HASHED: i32 = 102;
const SET: i32 = 103;

/// Strategies of operators: those of btree, then those of arrays.
pub const LESS: u16 = 1;
const LESS_EQUAL: u16 = 2;
const EQUAL: u16 = 3;
const GREATER_EQUAL: u16 = 4;
const GREATER: u16 = 5;
const OVERLAPS: u16 = 6;
const CONTAINS: u16 = 7;
/// The largest strategy of a condition.
pub const LAST_STRATEGY: u16 = CONTAINS;

/// Collation "POSIX": 18 has no name for its number.
const POSIX_COLLATION: u32 = 951;

const MICROSECONDS_OF_DAY: i64 = 86_400_000_000;
/// Local time differs from universal time by less, whatever the time zone.
const ZONES: i64 = 8 * MICROSECONDS_OF_DAY;

/// Support function of operator classes whose values have an order.
#[pgrx::pg_extern(sql = false)]
fn ann_key_ordered(_unused: Internal) -> i32 {
    ORDERED
}

/// Support function of operator classes of equality.
#[pgrx::pg_extern(sql = false)]
fn ann_key_hashed(_unused: Internal) -> i32 {
    HASHED
}

/// Support function of operator classes of arrays.
#[pgrx::pg_extern(sql = false)]
fn ann_key_set(_unused: Internal) -> i32 {
    SET
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ordered,
    Hashed,
    Set,
}

impl Class {
    fn from_code(code: i32) -> Option<Self> {
        match code {
            ORDERED => Some(Class::Ordered),
            HASHED => Some(Class::Hashed),
            SET => Some(Class::Set),
            _ => None,
        }
    }
}

/// The strategies that an operator class of some support function may have; `None` if it is not one of key columns.
pub fn strategies(code: i32) -> Option<&'static [u16]> {
    Class::from_code(code).map(|class| match class {
        Class::Ordered => [LESS, LESS_EQUAL, EQUAL, GREATER_EQUAL, GREATER].as_slice(),
        Class::Hashed => &[EQUAL],
        Class::Set => &[OVERLAPS, CONTAINS],
    })
}

/// One key column of an index.
#[derive(Clone, Copy, Debug)]
struct Column {
    class: Class,
    /// What its values are, beneath any domain.
    of_type: pg_sys::Oid,
    collation: pg_sys::Oid,
}

/// The key columns of an index.
#[derive(Clone, Debug)]
pub struct KeyColumns {
    columns: Vec<Column>,
    /// Whether computing keys takes memory beside them.
    is_bulky: bool,
}

impl KeyColumns {
    /// Reads them from the catalogs.
    pub fn of(index: Relation) -> Self {
        let count = index.column_count() - 1;
        if count > MAX_COLUMNS {
            Report::new(
                Code::ERRCODE_TOO_MANY_COLUMNS,
                format!("index \"{}\" has too many columns", index.name()),
            )
            .detail(format!("An ann index holds a vector and up to {MAX_COLUMNS} key columns, not {count}."))
            .hint("Leave out columns that queries use only in combination with others.")
            .raise();
        }
        let columns: Vec<Column> = (1..=count).map(|number| Column::of(index, number)).collect();
        let is_bulky = columns
            .iter()
            .any(|c| c.class != Class::Ordered || c.of_type == pg_sys::NUMERICOID || is_text(c.of_type));
        Self { columns, is_bulky }
    }

    /// What the keys of each column are.
    pub fn kinds(&self) -> Vec<Kind> {
        let kind = |column: &Column| if column.class == Class::Set { Kind::Signature } else { Kind::Ordered };
        self.columns.iter().map(kind).collect()
    }

    /// The keys of a row.
    ///
    /// # Safety
    /// The values of an index tuple, that of the vector first.
    pub unsafe fn keys(&self, values: *const pg_sys::Datum, is_null: *const bool) -> Vec<u64> {
        let compute = || {
            let keys = self.columns.iter().zip(1..).map(|(column, i)| {
                // SAFETY: by contract there is one for each column.
                let (value, is_null) = unsafe { (*values.add(i), *is_null.add(i)) };
                // SAFETY: by contract a value of the column.
                if is_null { NULL } else { unsafe { column.key(value, column.of_type) } }
            });
            keys.collect()
        };
        if !self.is_bulky {
            return compute();
        }
        fault::point("compute keys");
        let mut context = PgMemoryContexts::new("imgvec keys");
        // SAFETY: what is computed is no memory of the context, which ends with this function or the statement.
        unsafe { context.switch_to(|_| compute()) }
    }

    /// The conditions of a scan, with the number of the key column from 0.
    ///
    /// # Safety
    /// Scan keys of the index.
    pub unsafe fn conditions(&self, keys: &[pg_sys::ScanKeyData]) -> Vec<(usize, Condition)> {
        let mut conditions = Vec::with_capacity(keys.len());
        for key in keys {
            let number = usize::try_from(key.sk_attno).expect("a column");
            // The vector is never NULL where there is a row.
            if number == 1 {
                if key.sk_flags & pg_sys::SK_SEARCHNULL as i32 != 0 && !self.columns.is_empty() {
                    conditions.push((0, Condition::Never));
                }
                continue;
            }
            let column = &self.columns[number - 2];
            // SAFETY: by contract a scan key of the column.
            conditions.push((number - 2, unsafe { column.condition(key) }));
        }
        conditions
    }
}

impl Column {
    fn of(index: Relation, number: usize) -> Self {
        fault::point("read the operator class of a key");
        let code = index.support_code(number, SUPPORT_KIND);
        let Some(class) = Class::from_code(code) else {
            Report::new(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("index \"{}\" has more than one vector", index.name()),
            )
            .detail(
                "The first column of an ann index is its vector; the others are keys that queries filter by.",
            )
            .hint("Create an index for each vector.")
            .raise()
        };
        let (of_type, collation) = index.column_type(number);
        let column = Self { class, of_type, collation };
        column.require_hash(index);
        column.require_bytewise_order(index);
        column
    }

    /// Raises an error where texts are to be kept in order and their collation orders them otherwise than by bytes.
    fn require_bytewise_order(&self, index: Relation) {
        let bytewise = [pg_sys::C_COLLATION_OID, pg_sys::Oid::from_u32(POSIX_COLLATION)];
        let is_ordered_text = self.class == Class::Ordered && is_text(self.of_type);
        if is_ordered_text && !bytewise.contains(&self.collation) {
            Report::new(
                Code::ERRCODE_COLLATION_MISMATCH,
                format!("index \"{}\" can order texts only by their bytes", index.name()),
            )
            .detail("Operator class ann_text_order_ops needs collation \"C\", but the column has another one.")
            .hint("Write COLLATE \"C\" after the column, in the index and in queries, or use the default class, which supports equality.")
            .raise();
        }
    }

    /// Raises an error unless what is to be hashed can be.
    fn require_hash(&self, index: Relation) {
        let hashed = match self.class {
            Class::Ordered => return,
            Class::Hashed => self.of_type,
            // SAFETY: plain look into the catalogs.
            Class::Set => unsafe { pg_sys::get_element_type(self.of_type) },
        };
        // SAFETY: plain look into the catalogs.
        let entry =
            unsafe { &*pg_sys::lookup_type_cache(hashed, pg_sys::TYPECACHE_HASH_EXTENDED_PROC as i32) };
        if entry.hash_extended_proc == pg_sys::InvalidOid {
            Report::new(
                Code::ERRCODE_UNDEFINED_FUNCTION,
                format!("index \"{}\" cannot hash the values of a column", index.name()),
            )
            .detail("The type has no hash function.")
            .hint("Index another column, or an expression over this one.")
            .raise();
        }
    }

    /// # Safety
    /// `value` is one of `of_type`, which the column's operators take.
    unsafe fn key(&self, value: pg_sys::Datum, of_type: pg_sys::Oid) -> u64 {
        // SAFETY: by contract.
        let key = unsafe {
            match self.class {
                Class::Ordered => ordered(value, of_type),
                Class::Hashed => hash(value, self.of_type, self.collation),
                Class::Set => {
                    let (element, elements) = elements(value);
                    signature(elements.into_iter().map(|value| hash(value, element, self.collation)))
                }
            }
        };
        key.min(NULL - 1)
    }

    /// What a scan key asks of the column.
    ///
    /// # Safety
    /// A scan key of the column.
    unsafe fn condition(&self, key: &pg_sys::ScanKeyData) -> Condition {
        let has = |flag: u32| key.sk_flags & flag as i32 != 0;
        if has(pg_sys::SK_SEARCHNULL) {
            return Condition::IsNull;
        }
        if has(pg_sys::SK_SEARCHNOTNULL) {
            return Condition::IsNotNull;
        }
        // Operators are strict.
        if has(pg_sys::SK_ISNULL) {
            return Condition::Never;
        }
        // SAFETY: by contract.
        unsafe {
            let mut keys: Vec<u64> = if has(pg_sys::SK_SEARCHARRAY) {
                let (element, elements) = elements(key.sk_argument);
                elements.into_iter().map(|value| self.key(value, self.given_type(element))).collect()
            } else {
                vec![self.key(key.sk_argument, self.given_type(key.sk_subtype))]
            };
            keys.sort_unstable();
            keys.dedup();
            let (Some(&least), Some(&most)) = (keys.first(), keys.last()) else { return Condition::Never };
            let given = self.given_type(if has(pg_sys::SK_SEARCHARRAY) {
                elements(key.sk_argument).0
            } else {
                key.sk_subtype
            });
            // Whether a time has a zone differs between column and argument: the zone may shift it either way.
            let slack = if (self.of_type == pg_sys::TIMESTAMPTZOID) != (given == pg_sys::TIMESTAMPTZOID) {
                ZONES.unsigned_abs()
            } else {
                0
            };
            let (low, high) = (least.saturating_sub(slack), most.saturating_add(slack).min(NULL - 1));
            // Values in order may share a key: a bound that is excluded is let in.
            match key.sk_strategy {
                LESS | LESS_EQUAL => Condition::Within { low: 0, high },
                EQUAL if slack > 0 => Condition::Within { low, high },
                EQUAL => Condition::OneOf(keys),
                GREATER_EQUAL | GREATER => Condition::Within { low, high: NULL - 1 },
                OVERLAPS => Condition::Overlaps(least),
                CONTAINS => Condition::Contains(least),
                _ => Condition::IsNotNull,
            }
        }
    }

    /// The type of an argument of which an operator says `declared`, beneath any domain.
    fn given_type(&self, declared: pg_sys::Oid) -> pg_sys::Oid {
        let is_any = declared == pg_sys::InvalidOid
            || declared == pg_sys::ANYENUMOID
            || declared == pg_sys::ANYARRAYOID;
        // SAFETY: plain look into the catalogs.
        if is_any { self.of_type } else { unsafe { pg_sys::getBaseType(declared) } }
    }
}

fn signed(x: i64) -> u64 {
    x.cast_unsigned() ^ 1 << 63
}

/// Numbers order as their bits with the sign set, negative ones as their complement; no number comes last.
fn float(x: f64) -> u64 {
    if x.is_nan() {
        return NULL;
    }
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The key of a value whose type has an order: a larger value has no smaller key, whichever type of a family it has.
///
/// # Safety
/// `value` is one of the type.
unsafe fn ordered(value: pg_sys::Datum, of_type: pg_sys::Oid) -> u64 {
    // SAFETY: by contract.
    unsafe {
        match of_type {
            pg_sys::BOOLOID => u64::from(read::<bool>(value)),
            pg_sys::INT2OID => signed(read::<i16>(value).into()),
            pg_sys::INT4OID => signed(read::<i32>(value).into()),
            pg_sys::INT8OID => signed(read::<i64>(value)),
            pg_sys::OIDOID => u64::from(read::<pg_sys::Oid>(value).to_u32()),
            pg_sys::FLOAT4OID => float(read::<f32>(value).into()),
            pg_sys::FLOAT8OID => float(read::<f64>(value)),
            pg_sys::NUMERICOID => {
                let number =
                    pgrx::direct_function_call::<f64>(pg_sys::numeric_float8_no_overflow, &[Some(value)]);
                float(number.expect("not NULL"))
            }
            // Days; those beyond the range of timestamps have the key of infinity.
            pg_sys::DATEOID => signed(i64::from(read_i32(value)).saturating_mul(MICROSECONDS_OF_DAY)),
            pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID | pg_sys::TIMEOID => signed(read_i64(value)),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => {
                let text = pgrx::varlena::varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(
                    value.cast_mut_ptr(),
                ));
                let (mut first, length) = ([0; 8], text.len().min(8));
                first[..length].copy_from_slice(&text[..length]);
                u64::from_be_bytes(first)
            }
            pg_sys::UUIDOID => {
                let bytes: *const [u8; 8] = value.cast_mut_ptr::<[u8; 8]>();
                u64::from_be_bytes(*bytes)
            }
            other => Report::new(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("ann cannot order keys of type {}", other.to_u32()),
            )
            .detail("An operator class names a type that the access method does not support.")
            .hint("Use an operator class of imgvec.")
            .raise(),
        }
    }
}

fn is_text(of_type: pg_sys::Oid) -> bool {
    of_type == pg_sys::TEXTOID || of_type == pg_sys::VARCHAROID
}

/// # Safety
/// `value` is a `T` and not NULL.
unsafe fn read<T: FromDatum>(value: pg_sys::Datum) -> T {
    // SAFETY: by contract.
    unsafe { T::from_datum(value, false) }.expect("not NULL")
}

fn read_i32(value: pg_sys::Datum) -> i32 {
    #[allow(clippy::cast_possible_truncation, reason = "the lower half holds it")]
    let word = value.value() as u32;
    word.cast_signed()
}

fn read_i64(value: pg_sys::Datum) -> i64 {
    (value.value() as u64).cast_signed()
}

/// The hash of a value that the server's hash partitions go by.
///
/// # Safety
/// `value` is one of the type.
unsafe fn hash(value: pg_sys::Datum, of_type: pg_sys::Oid, collation: pg_sys::Oid) -> u64 {
    // SAFETY: the cache's entry lives as long as the process; the function takes a value of the type and a seed.
    unsafe {
        let entry = pg_sys::lookup_type_cache(of_type, pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO as i32);
        let function = &raw mut (*entry).hash_extended_proc_finfo;
        let seed = pg_sys::Datum::from(0i64);
        pg_sys::FunctionCall2Coll(function, collation, value, seed).value() as u64
    }
}

/// Element type and elements of an array, without those that are NULL.
///
/// # Safety
/// `array` is an array.
pub unsafe fn elements(array: pg_sys::Datum) -> (pg_sys::Oid, Vec<pg_sys::Datum>) {
    // SAFETY: by contract; the server fills as many values as it says.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let of_type = (*array).elemtype;
        let (mut length, mut by_value, mut alignment) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(of_type, &raw mut length, &raw mut by_value, &raw mut alignment);
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            of_type,
            length.into(),
            by_value,
            alignment,
            &raw mut values,
            &raw mut nulls,
            &raw mut count,
        );
        let count = usize::try_from(count).expect("a count");
        let there = (0..count).filter(|&i| !*nulls.add(i)).map(|i| *values.add(i));
        (of_type, there.collect())
    }
}

/// What of a build, an insert or a check is common: the values of an index tuple as the index holds them.
pub struct TableRow<'a> {
    pub vector: &'a [f32],
    pub keys: &'a [u64],
    pub tid: imgvec_ann::layout::HeapTid,
}
