//! Whose code runs, with whose rights, and by which search path.

use super::{passing, version};
use pgrx::pg_sys;

/// Ends what [`restricted`] began.
struct Restricted {
    user: pg_sys::Oid,
    context: i32,
    level: i32,
}

impl Drop for Restricted {
    fn drop(&mut self) {
        // After an error the transaction, or subtransaction, restores both.
        if !std::thread::panicking() {
            // SAFETY: the values that were in force before.
            unsafe {
                pg_sys::AtEOXact_GUC(false, self.level);
                pg_sys::SetUserIdAndSecContext(self.user, self.context);
            }
        }
    }
}

/// Runs `work`, which evaluates expressions and predicates of an index, as `owner`, who wrote them: as a
/// security-restricted operation, and with `search_path = pg_catalog, pg_temp`.
///
/// Without that path a function of the owner that calls another one without its schema finds what the *caller's* path
/// says, and the caller's code runs as the owner. The server has done the same since version 17; this holds on all.
///
/// The places that evaluate index expressions, all of them:
/// - `ann_index_recall` and `ann_index_check` (`am/inspect/`), through here.
/// - CREATE INDEX and REINDEX, concurrent or not (`ambuild` in `am/build.rs`), through here. Before 17 the server sets
///   the user but not the path, and a database's owner may reindex what belongs to others.
/// - The validation of a concurrent build, and ANALYZE: the server evaluates them itself, outside of any index's
///   code, as it does for every access method; with this path since 17.
/// - INSERT, UPDATE and COPY: the server evaluates them as the user who writes, who needs no other's rights for it.
/// - VACUUM (`am/vacuum.rs`), the planner (`am/cost.rs`), scans and statistics evaluate none.
pub fn restricted<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    passing::keep();
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain state of the session, put back by the guard or by the end of the transaction.
    let _guard = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_RESTRICTED_OPERATION.cast_signed());
        restrict_search_path();
        Restricted { user, context, level }
    };
    work()
}

/// Runs `work`, which reads and writes a table, with its owner's rights and path. Policies that bind the owner too
/// (FORCE ROW LEVEL SECURITY) do not hide rows from it: the server's own checks of foreign keys do the same.
///
/// Where the session is the owner's own, nobody else's code runs with the user's rights, so nothing is forbidden that a
/// statement of the user may do. Otherwise the work is a security-restricted operation: that the *current* user is the
/// owner is not enough, since SET ROLE looks at the session's user, and a background worker is a superuser's session.
pub fn as_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _guard = become_owner(owner);
    restrict_search_path();
    work()
}

/// Runs `work` as [`as_owner`] does, but by the path of the session: for what the caller wrote, over what the owner made.
pub fn as_owner_by_path<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _guard = become_owner(owner);
    work()
}

/// Whether the session was begun by this role, and has not become another one.
fn is_session_of(role: pg_sys::Oid) -> bool {
    // SAFETY: plain state of the session. A background worker has no role in its entry, and is its session's user.
    unsafe {
        let begun_by = pg_sys::MyProc.as_ref().map_or(pg_sys::InvalidOid, |process| process.roleId);
        pg_sys::GetUserId() == role
            && pg_sys::GetSessionUserId() == role
            && (begun_by == role || begun_by == pg_sys::InvalidOid)
    }
}

fn become_owner(owner: pg_sys::Oid) -> Restricted {
    passing::keep();
    let mut flags = pg_sys::SECURITY_NOFORCE_RLS.cast_signed();
    if !is_session_of(owner) {
        flags |= pg_sys::SECURITY_RESTRICTED_OPERATION.cast_signed();
    }
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: as in `restricted`.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::SetUserIdAndSecContext(owner, context | flags);
        Restricted { user, context, level }
    }
}

/// Runs `work`, statements of our own, as the same user by the path that [`restricted`] has.
pub fn pinned<T>(work: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: as in `restricted`; user and context stay what they are.
    let _guard = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let level = pg_sys::NewGUCNestLevel();
        restrict_search_path();
        Restricted { user, context, level }
    };
    work()
}

/// Sets the search path for the current level of settings.
fn restrict_search_path() {
    // SAFETY: static NUL-terminated strings. An invalid value would raise an error.
    unsafe {
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// The current user.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: plain state of the session.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the current user owns a relation, or is a member of the role that does.
pub fn owns(relation: pg_sys::Oid) -> bool {
    version::owns_relation(relation, current_user())
}

/// Whether the current user may SELECT all columns of a table.
pub fn may_select(table: pg_sys::Oid) -> bool {
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: looks into the catalogs.
    unsafe { pg_sys::pg_class_aclcheck(table, current_user(), select) == pg_sys::AclResult::ACLCHECK_OK }
}

/// Whether policies of a table bind the current user: then there may be rows that must not be told of.
pub fn is_bound_by_policies(table: pg_sys::Oid) -> bool {
    // SAFETY: looks into the catalogs. With `true` it answers also where row_security = off would be an error.
    let result = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    result == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// Whether each statement sees what was committed before it began.
pub fn sees_commits() -> bool {
    // SAFETY: plain state of the transaction.
    unsafe { pg_sys::XactIsoLevel <= pg_sys::XACT_READ_COMMITTED.cast_signed() }
}
