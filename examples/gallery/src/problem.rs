//! What went wrong, as a person should read it: the server's message, detail and hint as they are.

use std::fmt;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::html;
use serde_json::json;

use crate::page;

/// An error for the page, with the status of its response.
#[derive(Debug)]
pub struct Problem {
    /// The response's status.
    pub status: StatusCode,
    /// One line.
    pub message: String,
    /// What the server says besides.
    reported: Box<Reported>,
}

/// More about an error of the server.
#[derive(Debug, Default)]
struct Reported {
    /// A sentence more.
    detail: Option<String>,
    /// What to do.
    hint: Option<String>,
    /// SQLSTATE.
    code: Option<String>,
    /// The statement that failed.
    sql: Option<String>,
}

impl Problem {
    /// The request itself is wrong.
    pub fn of_request(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.to_owned(), reported: Box::default() }
    }

    /// No connection could be had.
    pub fn unreachable(error: &dyn fmt::Display) -> Self {
        Self::of_request(StatusCode::SERVICE_UNAVAILABLE, &format!("the database does not answer: {error}"))
    }

    /// A statement failed.
    pub fn of_server(error: &tokio_postgres::Error, sql: &str) -> Self {
        let sql = Some(sql.to_owned());
        let Some(error) = error.as_db_error() else {
            let reported = Box::new(Reported { sql, ..Reported::default() });
            return Self { reported, ..Self::unreachable(error) };
        };
        let reported = Reported {
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            code: Some(error.code().code().to_owned()),
            sql,
        };
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: error.message().to_owned(),
            reported: Box::new(reported),
        }
    }

    /// Message and detail on one line.
    pub fn reason(&self) -> String {
        self.reported
            .detail
            .as_ref()
            .map_or_else(|| self.message.clone(), |detail| format!("{}. {detail}", self.message))
    }

    /// For a script that asked.
    pub fn as_json(&self) -> serde_json::Value {
        json!({ "error": self.message, "detail": self.reported.detail, "hint": self.reported.hint, "code": self.reported.code })
    }

    /// For a place in a page.
    pub fn as_markup(&self) -> maud::Markup {
        html! {
            div class="problem" role="alert" {
                strong { (self.message) }
                @if let Some(detail) = &self.reported.detail { p { (detail) } }
                @if let Some(hint) = &self.reported.hint { p { (hint) } }
                @if let Some(code) = &self.reported.code { p class="soft" { "SQLSTATE " (code) } }
                @if let Some(sql) = &self.reported.sql { details { summary { "The statement" } pre { code { (sql) } } } }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Html(page::whole("Something went wrong", "", &self.as_markup()).into_string()))
            .into_response()
    }
}
