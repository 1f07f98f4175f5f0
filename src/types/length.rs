//! What the planner may know of the length cast: it has nothing to check where the number of dimensions is
//! declared already.

use pgrx::datum::FromDatum;
use pgrx::{Internal, pg_sys};

/// Support function of the length cast `imgvec(imgvec, integer, boolean)`.
///
/// A value declared with the wanted number of dimensions needs no check, also where a column of pgvector's
/// `vector(n)` is taken for an `imgvec(n)`: its modifier means the same. So `ALTER TABLE ... TYPE imgvec(n)` need not
/// read the table.
#[pgrx::pg_extern(sql = false)]
fn imgvec_support(mut request: Internal) -> Internal {
    // SAFETY: the server hands over a node, and expects one or a null pointer.
    let simplified = unsafe {
        request
            .get_mut::<pg_sys::Node>()
            .filter(|node| node.type_ == pg_sys::NodeTag::T_SupportRequestSimplify)
            .and_then(|node| simplify(&*std::ptr::from_mut(node).cast::<pg_sys::SupportRequestSimplify>()))
    };
    Internal::from(Some(pg_sys::Datum::from(simplified.unwrap_or(std::ptr::null_mut()))))
}

/// The value alone, if it is declared with the modifier that the cast would check.
///
/// # Safety
/// `request` comes from the planner and is about the length cast.
unsafe fn simplify(request: &pg_sys::SupportRequestSimplify) -> Option<*mut pg_sys::Node> {
    // SAFETY: arguments of a call are expressions, their list is valid while the call is planned.
    unsafe {
        let arguments = (*request.fcall).args.as_ref()?;
        let count = usize::try_from(arguments.length).ok().filter(|&count| count >= 2)?;
        let cells = std::slice::from_raw_parts(arguments.elements, count);
        let (value, modifier) =
            (cells[0].ptr_value.cast::<pg_sys::Node>(), cells[1].ptr_value.cast::<pg_sys::Const>());
        if (*modifier).xpr.type_ != pg_sys::NodeTag::T_Const || (*modifier).constisnull {
            return None;
        }
        let wanted = i32::from_datum((*modifier).constvalue, false)?;
        let mut declared = value;
        while (*declared).type_ == pg_sys::NodeTag::T_RelabelType && pg_sys::exprTypmod(declared) == -1 {
            declared = (*declared.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        // What a domain says holds for every value of it.
        let mut modifier = pg_sys::exprTypmod(declared);
        pg_sys::getBaseTypeAndTypmod(pg_sys::exprType(declared), &raw mut modifier);
        (wanted == -1 || modifier == wanted).then(|| pg_sys::relabel_to_typmod(value, wanted))
    }
}
