//! The server's lists.

use pgrx::pg_sys;

/// The elements of a list.
///
/// # Safety
/// `list` is NULL or a list of pointers to `T` that nobody changes meanwhile.
pub unsafe fn pointers<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: by contract.
    let count = unsafe { list.as_ref() }.map_or(0, |list| usize::try_from(list.length).expect("a count"));
    // SAFETY: as many elements as the list says.
    (0..count).map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast() })
}
