//! What differs from version to version of the server.

use pgrx::pg_sys;

/// Whether a user owns a relation, or is a member of the role that does.
pub fn owns_relation(relation: pg_sys::Oid, user: pg_sys::Oid) -> bool {
    // SAFETY: looks into the catalogs.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owns = pg_sys::pg_class_ownercheck(relation, user);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owns = pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, user);
        owns
    }
}

/// Tablespace, database and number of a relation's files.
pub fn files(relation: &pg_sys::RelationData) -> (pg_sys::Oid, pg_sys::Oid, u32) {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let files = {
        let node = relation.rd_node;
        (node.spcNode, node.dbNode, node.relNode.to_u32())
    };
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    let files = {
        let locator = relation.rd_locator;
        (locator.spcOid, locator.dbOid, locator.relNumber.to_u32())
    };
    files
}

/// The subtransaction that gave a relation new files, 0 if none of this transaction did.
pub fn first_files_subtransaction(relation: &pg_sys::RelationData) -> pg_sys::SubTransactionId {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let subtransaction = relation.rd_firstRelfilenodeSubid;
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    let subtransaction = relation.rd_firstRelfilelocatorSubid;
    subtransaction
}

/// Type and type modifier of a column, from 0.
///
/// # Safety
/// A descriptor that has the column.
pub unsafe fn column_type(descriptor: pg_sys::TupleDesc, column: usize) -> (pg_sys::Oid, i32) {
    // SAFETY: by contract.
    unsafe {
        let attribute = attribute(descriptor, column);
        ((*attribute).atttypid, (*attribute).atttypmod)
    }
}

/// A column's description, from 0.
///
/// # Safety
/// A descriptor that has the column.
pub unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    column: usize,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by contract.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let attribute = &raw const (*descriptor).attrs.as_slice(column + 1)[column];
        #[cfg(feature = "pg18")]
        let attribute =
            pg_sys::TupleDescAttr(descriptor, i32::try_from(column).expect("a column")).cast_const();
        attribute
    }
}

/// Begins an index scan with one ORDER BY key and no other.
///
/// # Safety
/// Open relations, and a snapshot that stays registered until the scan ends.
pub unsafe fn begin_ordered_scan(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by contract.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(heap, index, snapshot, 0, 1);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), 0, 1);
        scan
    }
}

/// Raises the error "snapshot too old" where a page has changed since a snapshot that `old_snapshot_threshold` calls too
/// old, and may lack rows that it should see. PostgreSQL 17 has no such setting.
///
/// # Safety
/// A valid snapshot, an open relation, and a page of it that is locked.
#[cfg_attr(any(feature = "pg17", feature = "pg18"), allow(unused_variables, reason = "nothing to ask"))]
pub unsafe fn refuse_old_snapshot(
    snapshot: pg_sys::Snapshot,
    relation: pg_sys::Relation,
    page: pg_sys::Page,
) {
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: by contract.
    unsafe {
        pg_sys::TestForOldSnapshot(snapshot, relation, page);
    }
}

/// Sleeps if the cost of a vacuum asks for it, and serves interrupts.
pub fn vacuum_delay() {
    // SAFETY: sleeps or raises an error; the callers hold no lock.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::vacuum_delay_point();
        #[cfg(feature = "pg18")]
        pg_sys::vacuum_delay_point(false);
    }
}

/// Counts a scan in the server's statistics of an index.
///
/// # Safety
/// An open index.
pub unsafe fn count_index_scan(relation: pg_sys::Relation) {
    // SAFETY: by contract; the counters are this backend's.
    unsafe {
        // PostgreSQL 14 made the counters when it opened the relation; later ones wait until they are wanted.
        #[cfg(not(feature = "pg14"))]
        if (*relation).pgstat_info.is_null() && (*relation).pgstat_enabled {
            pg_sys::pgstat_assoc_relation(relation);
        }
        if let Some(info) = (*relation).pgstat_info.as_mut() {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            {
                info.t_counts.t_numscans += 1;
            }
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            {
                info.counts.numscans += 1;
            }
        }
    }
}

/// After this, an unknown setting with a prefix is an error rather than a placeholder.
pub fn reserve_prefix(prefix: &std::ffi::CStr) {
    // SAFETY: a NUL-terminated string.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Has a path lose to all others. Since 18 a path with fewer disabled nodes wins whatever it costs, and settings such as
/// enable_seqscan and enable_sort disable those of the plan that must be taken instead.
#[cfg_attr(not(feature = "pg18"), allow(unused_variables, reason = "only 18 counts what is disabled"))]
pub fn disable(path: &mut pg_sys::Path) {
    #[cfg(feature = "pg18")]
    {
        path.disabled_nodes = 1000;
    }
}

/// Whether a process is a background worker.
pub fn is_worker(process: &pg_sys::PGPROC) -> bool {
    #[cfg(not(feature = "pg18"))]
    let is_worker = process.isBackgroundWorker;
    #[cfg(feature = "pg18")]
    let is_worker = !process.isRegularBackend;
    is_worker
}

/// Has a signal handled in the server's way.
///
/// # Safety
/// A handler that does no more than handlers may.
pub unsafe fn handle_signal(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: by contract.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Lets a path in order over an index of ours take up what the planners of 14 to 16 leave out of it (`conditions.rs`).
///
/// # Safety
/// A path over an index of ours that is being costed.
pub unsafe fn complete_conditions(root: *mut pg_sys::PlannerInfo, path: &mut pg_sys::IndexPath) {
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: by contract.
    unsafe {
        super::conditions::complete(root, path);
    }
    #[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16")))]
    let _ = (root, path);
}
