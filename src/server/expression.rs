//! Expressions over a table's row that come as text: what they are, and their text for any search path.

use super::{security, spi};
use crate::encoding;
use crate::error::{Code, Report};
use crate::fault;
use pgrx::pg_sys;
use std::ffi::CStr;

/// What a table is called in the text of [`Expression::text`].
pub const ALIAS: &str = "p";

/// An expression over the columns of one table.
pub struct Expression {
    /// The same expression with names that need no search path; columns stand by themselves or after [`ALIAS`].
    pub text: String,
    /// Its type, or what its domain is over.
    pub data_type: pg_sys::Oid,
    /// The columns that it reads, ascending; `None` for the row as a whole.
    pub columns: Option<Vec<i16>>,
    /// Whether it is nothing but a column.
    pub is_column: bool,
}

/// Looks at an expression as a SELECT of the current user would read it. Nothing is evaluated, but literals are read by their
/// types, and a domain's or a composite type's checks are code of whoever made it: so callers do this as the table's owner
/// (`security::as_owner`), whose types the table has. `from` is how FROM names the table; `names` are
/// what the expression calls its columns, in their order, where these are other names than they have.
pub fn analyze(
    relation: pg_sys::Oid,
    from: &str,
    names: &[String],
    source: &str,
) -> Result<Expression, Report> {
    check_syntax(source)?;
    let names: Vec<String> = names.iter().map(|name| spi::quoted(name)).collect();
    let names = if names.is_empty() { String::new() } else { format!("({})", names.join(", ")) };
    let sql = spi::c_string(&format!("SELECT ({source}\n) FROM {from} AS {ALIAS}{names}"));
    // SAFETY: the plan lives until SPI_finish, the text that is made of it is copied; an error closes the connection.
    unsafe {
        pg_sys::SPI_connect();
        fault::point("read an expression");
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), 0, std::ptr::null_mut());
        assert!(!plan.is_null(), "a SELECT can be prepared");
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        let source: *mut pg_sys::CachedPlanSource = pg_sys::list_nth(sources, 0).cast();
        let query: *mut pg_sys::Query = pg_sys::list_nth((*source).query_list, 0).cast();
        let result = describe(relation, &*query);
        fault::point("end an expression");
        pg_sys::SPI_finish();
        result
    }
}

/// An expression and nothing else, which parentheses around it cannot be closed by.
fn check_syntax(source: &str) -> Result<(), Report> {
    let text = spi::c_string(source);
    // SAFETY: the parser answers one SelectStmt for this mode, or raises an error.
    let is_expression = unsafe {
        let statements = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR);
        let raw: *mut pg_sys::RawStmt = pg_sys::list_nth(statements, 0).cast();
        let select: *mut pg_sys::SelectStmt = (*raw).stmt.cast();
        let targets = (*select).targetList;
        pg_sys::list_length(statements) == 1
            && (*(*raw).stmt).type_ == pg_sys::NodeTag::T_SelectStmt
            && (*select).op == pg_sys::SetOperation::SETOP_NONE
            && pg_sys::list_length(targets) == 1
            && (*pg_sys::list_nth(targets, 0).cast::<pg_sys::ResTarget>()).name.is_null()
            && (*select).distinctClause.is_null()
            && (*select).fromClause.is_null()
            && (*select).whereClause.is_null()
            && (*select).groupClause.is_null()
            && (*select).havingClause.is_null()
            && (*select).windowClause.is_null()
            && (*select).sortClause.is_null()
            && (*select).limitCount.is_null()
            && (*select).limitOffset.is_null()
            && (*select).lockingClause.is_null()
    };
    if is_expression { Ok(()) } else { Err(not_an_expression(source, "It is a query, or several values.")) }
}

fn not_an_expression(source: &str, why: &str) -> Report {
    Report::new(
        Code::ERRCODE_SYNTAX_ERROR,
        format!("\"{source}\" is not an expression over one row of the table"),
    )
    .detail(why)
    .hint("Name a column, or combine columns, as in \"title || ' ' || description\".")
}

unsafe fn list_first_target(query: &pg_sys::Query) -> *mut pg_sys::TargetEntry {
    // SAFETY: the caller has an analyzed SELECT of at least one column.
    unsafe { pg_sys::list_nth(query.targetList, 0).cast() }
}

/// # Safety
/// An analyzed SELECT from one table, the first of its range table.
unsafe fn describe(relation: pg_sys::Oid, query: &pg_sys::Query) -> Result<Expression, Report> {
    // SAFETY: by contract; the tree lives as long as the plan.
    unsafe {
        let expression: *mut pg_sys::Node = (*list_first_target(query)).expr.cast();
        let context = pg_sys::deparse_context_for(c"p".as_ptr(), relation);
        let text = security::pinned(|| {
            let text = pg_sys::deparse_expression(expression, context, false, false);
            encoding::to_utf8_lossy(CStr::from_ptr(text).to_bytes()).into_owned()
        });
        let refused = if pg_sys::list_length(query.targetList) != 1 {
            Some("It has several values.")
        } else if query.hasSubLinks {
            Some("It has a subquery. Changes of other rows would go unnoticed.")
        } else if query.hasAggs || query.hasWindowFuncs {
            Some("It has an aggregate or window function.")
        } else if query.hasTargetSRFs {
            Some("It has a function that returns a set.")
        } else {
            None
        };
        if let Some(why) = refused {
            return Err(not_an_expression(&text, why));
        }
        let mut members: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(expression, 1, &raw mut members);
        let (mut columns, mut is_whole, mut member) = (Vec::new(), false, -1);
        loop {
            member = pg_sys::bms_next_member(members, member);
            if member < 0 {
                break;
            }
            let number = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            if number < 0 {
                return Err(not_an_expression(&text, "It has a system column, which changes by itself."));
            }
            is_whole |= number == 0;
            columns.push(i16::try_from(number).expect("a column's number"));
        }
        Ok(Expression {
            text,
            data_type: pg_sys::getBaseType(pg_sys::exprType(expression)),
            columns: (!is_whole).then_some(columns),
            is_column: (*expression).type_ == pg_sys::NodeTag::T_Var && !is_whole,
        })
    }
}
