//! What a distance costs, by the width of its vectors: the planner's view of the functions, and of scans that compute them.
//!
//! Prices are nanoseconds on the machine that they were measured on (`make bench-crossover`); only their ratios matter.

use pgrx::{Internal, pg_sys};

/// Nanoseconds that `cpu_operator_cost` stands for: a fourth of what a row of a table stands for.
const OPERATOR_NS: f64 = 12.5;
/// A call, whatever the vector.
const CALL_NS: f64 = 55.0;
/// Each dimension.
const DIMENSION_NS: f64 = 0.06;
/// Fetching a value that lies in TOAST: looking it up, and each dimension.
const FETCH_NS: f64 = 1800.0;
const FETCH_DIMENSION_NS: f64 = 0.7;
/// Dimensions where neither a type nor statistics tell.
const USUAL_DIM: f64 = 512.0;
/// Bytes of a value beside its elements.
const HEADER_BYTES: f64 = 8.0;

/// What the planner knows of the vectors of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub dim: f64,
    /// Whether they lie in TOAST.
    pub is_out_of_line: bool,
}

impl Shape {
    /// Of a declared number of dimensions, -1 if there is none, and the average width of a value in its row, 0 if nobody
    /// knows.
    pub fn new(type_modifier: i32, width: i32) -> Self {
        let (declared, width) = (f64::from(type_modifier), f64::from(width));
        let by_width = (width - HEADER_BYTES) / size_of::<f32>() as f64;
        let dim = match () {
            () if declared >= 1.0 => declared,
            // What is narrower may be a pointer into TOAST.
            () if by_width > 3.0 => by_width,
            () => USUAL_DIM,
        };
        // Half-precision elements take two bytes each.
        Self { dim, is_out_of_line: width > 0.0 && width < dim }
    }

    /// Nanoseconds that a distance takes, with fetching one of its vectors.
    pub fn distance_ns(self) -> f64 {
        let fetch = if self.is_out_of_line { FETCH_NS + FETCH_DIMENSION_NS * self.dim } else { 0.0 };
        CALL_NS + DIMENSION_NS * self.dim + fetch
    }
}

/// Average width of a column, 0 if there are no statistics or it is no column of a table.
///
/// # Safety
/// The planner's structures, or NULL.
pub unsafe fn column_width(root: *const pg_sys::PlannerInfo, relation: u32, column: i16) -> i32 {
    // SAFETY: by contract; the array has as many entries as it says, those of tables with their oid.
    unsafe {
        let Some(root) = root.as_ref() else { return 0 };
        let (at, count) = (relation as usize, usize::try_from(root.simple_rel_array_size).unwrap_or(0));
        if at == 0 || at >= count || column <= 0 {
            return 0;
        }
        match (*root.simple_rte_array.add(at)).as_ref() {
            Some(entry) if entry.rtekind == pg_sys::RTEKind::RTE_RELATION => {
                pg_sys::get_attavgwidth(entry.relid, column)
            }
            _ => 0,
        }
    }
}

/// Support function of the distances: their cost, which grows with the width of the vectors.
#[pgrx::pg_extern(sql = false)]
fn imgvec_distance_support(mut request: Internal) -> Internal {
    // SAFETY: the server hands over a node, and expects one or a null pointer.
    let answer = unsafe {
        request
            .get_mut::<pg_sys::Node>()
            .filter(|node| node.type_ == pg_sys::NodeTag::T_SupportRequestCost)
            .map(|node| {
                let request = std::ptr::from_mut(node).cast::<pg_sys::SupportRequestCost>();
                let shape = shape_of_call((*request).root, (*request).node);
                (*request).startup = 0.0;
                (*request).per_tuple = pg_sys::cpu_operator_cost * shape.distance_ns() / OPERATOR_NS;
                request
            })
    };
    Internal::from(Some(pg_sys::Datum::from(answer.unwrap_or(std::ptr::null_mut()))))
}

/// What a call of a distance is about, from the first of its arguments that is declared or is a column.
///
/// # Safety
/// The planner's structures: a call or NULL.
#[allow(clippy::wildcard_enum_match_arm, reason = "of the hundreds of tags few matter")]
unsafe fn shape_of_call(root: *const pg_sys::PlannerInfo, call: *mut pg_sys::Node) -> Shape {
    // SAFETY: a node's tag determines its type; lists hold expressions.
    unsafe {
        let arguments = match call.as_ref().map(|node| node.type_) {
            Some(pg_sys::NodeTag::T_OpExpr) => (*call.cast::<pg_sys::OpExpr>()).args,
            Some(pg_sys::NodeTag::T_FuncExpr) => (*call.cast::<pg_sys::FuncExpr>()).args,
            _ => std::ptr::null_mut(),
        };
        let count = arguments.as_ref().map_or(0, |list| usize::try_from(list.length).unwrap_or(0));
        let (mut modifier, mut width) = (-1, 0);
        for i in 0..count {
            let argument: *mut pg_sys::Node = (*(*arguments).elements.add(i)).ptr_value.cast();
            let mut declared = pg_sys::exprTypmod(argument);
            pg_sys::getBaseTypeAndTypmod(pg_sys::exprType(argument), &raw mut declared);
            modifier = modifier.max(declared);
            let mut column = argument;
            while (*column).type_ == pg_sys::NodeTag::T_RelabelType {
                column = (*column.cast::<pg_sys::RelabelType>()).arg.cast();
            }
            if (*column).type_ == pg_sys::NodeTag::T_Var {
                let var = &*column.cast::<pg_sys::Var>();
                let relation = u32::try_from(var.varno).unwrap_or(0);
                width = width.max(if var.varlevelsup == 0 {
                    column_width(root, relation, var.varattno)
                } else {
                    0
                });
            }
        }
        Shape::new(modifier, width)
    }
}
