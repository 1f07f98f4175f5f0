//! `ann_index_info`: what an index is.

use super::Opened;
use crate::am::keys::KeyColumns;
use crate::am::opclass::OpClass;
use crate::am::{cache, waiting};
use crate::types::datum::{NewRecord, NewText};
use imgvec_ann::Metric;
use imgvec_ann::filter::KEY_BYTES;
use imgvec_ann::layout::{BlockNumber, MAX_DEGREE, meta};
use imgvec_ann::store::PageStore;
use pgrx::prelude::*;

/// Size and shape of an index, from its first pages.
#[pg_extern(sql = false)]
fn ann_index_info(index: pg_sys::Oid) -> NewRecord {
    // Sizes, as everybody may ask of any relation: nothing of any row.
    let opened = Opened::new(index, pg_sys::AccessShareLock, |_| ());
    let pages = opened.pages();
    if waiting::is_waiting(*opened.index) {
        let Ok(page_count) = pages.block_count();
        let columns = KeyColumns::of(*opened.index).kinds().len();
        return waiting_info(OpClass::of(*opened.index).metric, columns, page_count);
    }
    let ann = cache::open(&pages);
    let Ok(format_version) = pages.read(BlockNumber(0)).map(|page| meta::version(&page));
    let Ok(page_count) = pages.block_count();
    let (meta, geometry) = (ann.meta(), ann.space().geometry());
    let metric = metric_name(meta.metric);
    let number = |n: usize| i32::try_from(n).expect("a page's field");
    NewRecord::new()
        .column(Some(NewText::from_utf8(metric)))
        .column(Some(number(geometry.dim())))
        .column(Some(number(geometry.code_dim())))
        .column(Some(number(geometry.slots())))
        .column(Some(i64::from(page_count)))
        .column(Some(i64::from(page_count) * i64::from(pg_sys::BLCKSZ)))
        .column(Some(i64::try_from(ann.entry_points().count()).expect("a count")))
        .column(Some(i64::from(meta.built_rows)))
        .column(Some(i32::from(format_version)))
        .column(Some(number(geometry.columns().len())))
        .column(Some(number(geometry.columns().len() * (KEY_BYTES + MAX_DEGREE))))
        .column(Some(number(geometry.planes())))
        .column(Some(Vec::from(meta.calibration.map(i32::from))).filter(|measured| !measured.contains(&0)))
}

pub(super) fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::L2 => "l2",
        Metric::InnerProduct => "inner product",
    }
}

/// An index without a row: what depends on the number of dimensions or stands on the first page is not known.
fn waiting_info(metric: Metric, columns: usize, page_count: u32) -> NewRecord {
    let number = |n: usize| i32::try_from(n).expect("a few");
    NewRecord::new()
        .column(Some(NewText::from_utf8(metric_name(metric))))
        .column(None::<i32>)
        .column(None::<i32>)
        .column(None::<i32>)
        .column(Some(i64::from(page_count)))
        .column(Some(i64::from(page_count) * i64::from(pg_sys::BLCKSZ)))
        .column(Some(0i64))
        .column(Some(0i64))
        .column(None::<i32>)
        .column(Some(number(columns)))
        .column(Some(number(columns * (KEY_BYTES + MAX_DEGREE))))
        .column(None::<i32>)
        .column(None::<Vec<i32>>)
}
